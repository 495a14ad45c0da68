"""W3C Trace Context (https://www.w3.org/TR/trace-context/), over HTTP and Kafka, in logs and in events."""

from __future__ import annotations

import os
import re
from contextvars import ContextVar
from dataclasses import dataclass

_FORMAT = re.compile(r"^00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})$")
_NO_TRACE, _NO_SPAN = "0" * 32, "0" * 16


@dataclass(frozen=True)
class Trace:
    """Where in which trace we are: ``trace_id`` 16 bytes and ``span_id`` 8 bytes, as lower-case hex."""

    trace_id: str
    span_id: str
    flags: str = "01"

    @staticmethod
    def new() -> Trace:
        """A new trace; also where an incoming header is missing or malformed, as the specification asks."""
        return Trace(os.urandom(16).hex(), os.urandom(8).hex())

    @staticmethod
    def parse(header: str | None) -> Trace:
        match = _FORMAT.match(header or "")
        if match is None:
            return Trace.new()
        trace_id, span_id, flags = match.groups()
        return Trace.new() if trace_id == _NO_TRACE or span_id == _NO_SPAN else Trace(trace_id, span_id, flags)

    def child(self) -> Trace:
        return Trace(self.trace_id, os.urandom(8).hex(), self.flags)

    def __str__(self) -> str:
        return f"00-{self.trace_id}-{self.span_id}-{self.flags}"


current_trace: ContextVar[Trace | None] = ContextVar("current_trace", default=None)
