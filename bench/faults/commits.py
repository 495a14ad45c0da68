"""Finds the answers to COMMIT in what a Postgres server says."""

from __future__ import annotations

_HEADER = 5  # bytes: a letter for the type, and a length that counts itself but not the letter
_COMMIT = b"C\0\0\0\x0bCOMMIT\0"  # CommandComplete with the tag COMMIT
_READY = {b"Z\0\0\0\x05" + state for state in (b"I", b"T", b"E")}  # ReadyForQuery


class CommitWatch:
    """Follows one connection's backend stream; messages may be split over pieces, or share one.

    Watching may begin at any time: it waits for the end of a ReadyForQuery, where a message begins. The start of a
    connection ends with one, so its answers without a frame (``N`` to a request for TLS) are never taken for messages.
    """

    def __init__(self) -> None:
        self._last = b""  # the last six bytes, before this piece
        self._partial: bytes | None = None  # what has come of a message not known yet; None: no boundary known
        self._skip = 0  # bytes of a known message that are still to come

    def pass_by(self, data: bytes) -> None:
        """A piece that nobody looks into; costs next to nothing."""
        self._last = data[-6:] if len(data) >= 6 else (self._last + data)[-6:]
        self._partial = None

    def commits(self, data: bytes) -> int:
        """How many answers to COMMIT end in this piece."""
        partial = self._partial
        if partial is None and self._last in _READY:
            partial, self._skip = b"", 0
        self.pass_by(data)
        if partial is None:
            return 0
        found, at, data = 0, self._skip, partial + data
        while (left := len(data) - at) >= _HEADER:
            if data.startswith(_COMMIT[:_HEADER], at):
                if left < len(_COMMIT):
                    break
                found += data.startswith(_COMMIT, at)
            at += 1 + int.from_bytes(data[at + 1 : at + _HEADER])
        self._skip = max(0, at - len(data))
        self._partial = data[at:]
        return found
