"""Whether events stay readable, in both directions: old events by new readers, and new events by old readers.

Both hold only where nothing changes but additions. So every difference is a breach, except a new event, a new optional
field, and words (titles, descriptions, examples).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, cast

Json = Mapping[str, Any]
WORDS = {"title", "description", "examples", "$id", "$schema", "$defs", "$comment"}
IN_DETAIL = {"properties", "required", "items", "enum", "default"}  # all other keywords must stay as they are
OLD = "new readers could not read old events"
NEW = "old readers could not read new events"


def breaches(old: Mapping[str, Json], new: Mapping[str, Json]) -> list[str]:
    """What is wrong with ``new`` after ``old``, both writers' schemas by event type; empty if compatible."""
    found = [f"{event}: the event is gone, but stays in the topic for ever" for event in old if event not in new]
    for event in old.keys() & new.keys():
        found += [f"{event}: {breach}" for breach in _compare("", _inlined(old[event]), _inlined(new[event]))]
    return sorted(found)


def _compare(path: str, old: Json, new: Json) -> Iterator[str]:
    here = path or "the event"
    for keyword in sorted((old.keys() | new.keys()) - IN_DETAIL):
        if old.get(keyword) != new.get(keyword):
            yield f"{here}: {_changed(keyword, old, new)}"
    if old.get("default") != new.get("default"):
        yield f"{here}: {_changed('default', old, new)}: events without it would change their meaning"
    yield from _enums(here, old, new)
    if isinstance(old.get("items"), dict) and isinstance(new.get("items"), dict):
        yield from _compare(f"{path}[]", old["items"], new["items"])
    elif old.get("items") != new.get("items"):
        yield f"{here}: {_changed('items', old, new)}"
    yield from _fields(path, old, new)


def _fields(path: str, old: Json, new: Json) -> Iterator[str]:
    before, after = old.get("properties", {}), new.get("properties", {})
    must_before, must_after = set(old.get("required", ())), set(new.get("required", ()))
    for name in {**before, **after}:
        field = f"{path}.{name}" if path else name
        if name not in after:
            yield f"{field}: removed or renamed; {NEW}"
        elif name not in before:
            if name in must_after:
                yield f"{field}: new and required; {OLD}"
        else:
            if name in must_after - must_before:
                yield f"{field}: was optional and is required; {OLD}"
            if name in must_before - must_after:
                yield f"{field}: was required and is optional; {NEW}"
            yield from _compare(field, before[name], after[name])


def _enums(here: str, old: Json, new: Json) -> Iterator[str]:
    if "enum" not in new or "enum" not in old:
        if "enum" in new or "enum" in old:
            yield f"{here}: {_changed('enum', old, new)}"
        return
    if gone := [value for value in old["enum"] if value not in new["enum"]]:
        yield f"{here}: enum lost {gone}; {OLD}"
    if added := [value for value in new["enum"] if value not in old["enum"]]:
        yield f"{here}: enum gained {added}; {NEW} (events carry open strings for this reason)"


def _inlined(root: Json) -> Json:
    """``root`` with every reference replaced by what it refers to, and without words."""

    def schema(one: Any) -> Any:
        if isinstance(one, list):
            return [schema(part) for part in cast(list[Any], one)]
        if not isinstance(one, dict):
            return one
        keywords = cast(dict[str, Any], one)
        if "$ref" in keywords:
            definition = root["$defs"][keywords["$ref"].rpartition("/")[2]]
            keywords = {**definition, **{name: value for name, value in keywords.items() if name != "$ref"}}
        return {
            # the keys of properties are names, whatever they look like
            name: {field: schema(part) for field, part in value.items()} if name == "properties" else schema(value)
            for name, value in keywords.items()
            if name not in WORDS
        }

    return schema(root)


def _changed(keyword: str, old: Json, new: Json) -> str:
    was, is_ = (repr(one[keyword]) if keyword in one else "absent" for one in (old, new))
    return f"{keyword} was {was} and is {is_}"
