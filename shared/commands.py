"""Commands over HTTP as causes of events."""

from __future__ import annotations

from uuid import UUID, uuid4, uuid5

from shared.messages import Cause
from shared.tracing import Trace, current_trace

COMMANDS = UUID("0c1e5a37-93f2-5d0e-8b7d-1f4f3a5f6f4e")


def command_cause(subject: str = "", key: str | None = None, correlation_id: str | None = None) -> Cause:
    """The cause that a command is; one that carries an idempotency key is the same cause each time it is sent."""
    id_ = uuid4() if key is None else uuid5(COMMANDS, f"{subject}/{key}")
    return Cause(id=id_, correlation_id=correlation_id or str(id_), trace=current_trace.get() or Trace.new())
