"""Commands over HTTP as causes of events."""

from __future__ import annotations

from typing import Annotated
from uuid import uuid4

from fastapi import Header

from shared.messages import Cause
from shared.tracing import Trace, current_trace

_KEY = Header(min_length=1, max_length=200, description="sent again, finds the first answer")
IdempotencyKey = Annotated[str, _KEY]
OptionalKey = Annotated[str | None, _KEY]


def command_cause(correlation_id: str | None = None) -> Cause:
    """The cause that a command is, new each time: that a repeat has no effect is the idempotency key's business."""
    id_ = uuid4()
    return Cause(id=id_, correlation_id=correlation_id or str(id_), trace=current_trace.get() or Trace.new())
