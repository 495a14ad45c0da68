"""Dead letters as they are shown."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Literal
from uuid import UUID

from pydantic import BaseModel

from shared.operations.letters import DeadLetter
from shared.operations.redrive import Outcome
from shared.postgres import Row


class Redriven(BaseModel):
    """``already_applied``: a repeat of the event had been applied before, so nothing was done."""

    at: datetime
    by: str
    outcome: Outcome


class LetterView(BaseModel):
    """Named by ``offset``; ``topic``, ``partition``, ``origin_offset`` and ``key`` say where it was."""

    offset: int
    put_aside_at: datetime
    consumer: str
    topic: str
    partition: int
    origin_offset: int
    key: str
    type: str | None
    event_id: UUID | None
    reason: str
    bytes: int
    state: Literal["waiting", "redriven"] = "waiting"
    redriven: Redriven | None = None


class LetterContent(BaseModel):
    """Bytes as ``text`` where they are UTF-8, else as ``base64``."""

    text: str | None = None
    base64: str | None = None


class LetterHeader(LetterContent):
    name: str


class WholeLetter(LetterView):
    """What was put aside, byte for byte: whoever may read this sees what readers of its topic see."""

    headers: list[LetterHeader]
    payload: LetterContent


def entry(letter: DeadLetter) -> LetterView:
    """All but what it holds: a page of the largest would not fit into memory."""
    original = letter.original
    return LetterView(
        offset=letter.offset, put_aside_at=letter.at, consumer=letter.consumer, topic=original.topic,
        partition=original.partition, origin_offset=original.offset, key=original.key.decode(errors="replace"),
        type=original.header("ce_type"), event_id=letter.event_id, reason=letter.reason, bytes=len(original.value),
    )  # fmt: skip


def whole(letter: DeadLetter) -> WholeLetter:
    headers = [LetterHeader(name=name, **_content(value)) for name, value in letter.original.headers]
    return WholeLetter(**dict(entry(letter)), headers=headers, payload=LetterContent(**_content(letter.original.value)))


def mark(entries: Sequence[LetterView], redrives: Mapping[tuple[str, UUID], Row]) -> None:
    """Say of each what became of it."""
    for one in entries:
        done = redrives.get((one.consumer, one.event_id)) if one.event_id is not None else None
        if done is not None:
            one.state = "redriven"
            one.redriven = Redriven(at=done["redriven_at"], by=done["redriven_by"], outcome=done["outcome"])


def _content(value: bytes) -> dict[str, str]:
    try:
        return {"text": value.decode()}
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(value).decode()}
