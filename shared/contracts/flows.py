"""The picture of topics and handlers, drawn from what the services really subscribe to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from shared.app import Parts
from shared.messages import Topic

BEGIN, END = "<!-- flows:begin -->", "<!-- flows:end -->"
MADE_BY = "<!-- written by `make flows`; change the code instead -->"


def picture(topics: Sequence[Topic[Any]], services: Mapping[str, Parts]) -> str:
    """Mermaid: services are boxes with their handlers, topics are rounded, internal ones dashed."""
    lines = ["```mermaid", "flowchart LR"]
    for name, parts in services.items():
        handlers = "".join(f"<br/>{one.name}" for one in parts.consumers.subscriptions)
        lines.append(f'  {name}["<b>{name}</b>{handlers}"]')
    for topic in topics:
        style = "" if topic.public else ":::internal"
        lines.append(f'  {_node(topic)}("{_short(topic)}"){style}')
    for topic in topics:
        lines.append(f"  {topic.owner} --> {_node(topic)}")
        readers = [name for name, parts in services.items() if _handlers(topic, parts)]
        if readers:
            lines.append(f"  {_node(topic)} --> {' & '.join(readers)}")
    lines.append("  classDef internal stroke-dasharray: 4 4")
    return "\n".join([*lines, "```"])


def page(topics: Sequence[Topic[Any]], services: Mapping[str, Parts]) -> str:
    """docs/flows.md: the picture, and who says and hears what."""
    rows = [_row(topic, services) for topic in topics]
    return f"""# Flows
{MADE_BY}

Services are boxes with their handlers; topics are rounded, and dashed where they are internal. A topic without a reader
here is there for subscribers. Each handler reads all of its topics in one transaction per batch.

{picture(topics, services)}

| topic | published by | events | read by |
| --- | --- | --- | --- |
{chr(10).join(rows)}

Demand is measured by a process of its own, `services/pricing/demand`: it reads `order.order`, counts what it says to
itself on `pricing.demand-line`, and publishes `pricing.demand`.

What a service cannot read goes to its dead letters, `isthmus.<service>.dead-letter.v1`.

## Handlers

{chr(10).join(_handler_lines(services))}
"""


def in_readme(readme: str, drawn: str) -> str:
    """``readme`` with the picture between its markers; ValueError if it has none."""
    before, begin, rest = readme.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"README.md has no {BEGIN} … {END}")
    return f"{before}{BEGIN}\n{MADE_BY}\n\n{drawn}\n\n{END}{after}"


def _row(topic: Topic[Any], services: Mapping[str, Parts]) -> str:
    events = ", ".join(event.__name__ for event in topic.events.values())
    readers = [f"{service}: `{handler}`" for service, parts in services.items() for handler in _handlers(topic, parts)]
    internal = "" if topic.public else " (internal)"
    return f"| `{topic.name}`{internal} | {topic.owner} | {events} | {'<br/>'.join(readers) or '-'} |"


def _handler_lines(services: Mapping[str, Parts]) -> list[str]:
    return [
        f"- **{service}** `{one.name}`: {(one.handle.__doc__ or '').partition(chr(10))[0]}"
        for service, parts in services.items()
        for one in parts.consumers.subscriptions
    ]


def _handlers(topic: Topic[Any], parts: Parts) -> list[str]:
    return [one.name for one in parts.consumers.subscriptions if topic in one.topics]


def _node(topic: Topic[Any]) -> str:
    return _short(topic).replace(".", "_").replace("-", "_")


def _short(topic: Topic[Any]) -> str:
    return topic.name.removeprefix("isthmus.").rpartition(".")[0]
