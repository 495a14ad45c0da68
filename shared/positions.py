"""Where a consumer stands in each partition: read from its database, sought in Kafka, followed record by record.

A record that does not follow on the last one is a hole; it is believed when it is still there after another seek.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from shared import progress
from shared.envelope import Record
from shared.kafka import Consumer
from shared.postgres import Database
from shared.progress import Place, Step
from shared.telemetry import log


class BeyondLogError(Exception):
    """What was consumed lies beyond the end of Kafka's log."""


class Positions:
    """``at`` is the offset of the next record by place; ``sought`` is false until it is read anew after a rebalance."""

    def __init__(self, consumer: str, database: Database):
        self.at: dict[Place, int] = {}
        self.sought = self.joined = False
        self.beyond: Sequence[str] = ()  # what lies beyond the end of the log
        self._consumer, self._database = consumer, database
        self._holes: dict[Place, int] = {}

    def revoked(self) -> None:
        self.sought = False

    def assigned(self) -> None:
        """They are read anew before anything is taken. A member may get no partitions and be well."""
        self.sought, self.joined = False, True

    async def seek(self, kafka: Consumer) -> bool:
        """Seek every assigned partition to where the database says it was left; False while there is none.

        Raises BeyondLogError.
        """
        assigned = kafka.assignment()
        if not assigned:
            return False
        self.sought = True  # before the reading: a rebalance in the midst of it asks for another
        begin = await kafka.begin(assigned)
        async with self._database.transaction() as tx:
            known = await progress.load(tx.db, self._consumer)
            new = assigned - known.keys()
            if new:
                await progress.start(tx.db, self._consumer, {place: begin[place] for place in new})
                known = await progress.load(tx.db, self._consumer)
            lost = {place: known[place] for place in assigned if known[place] < begin[place]}
            if lost:
                log.error("retention has deleted what was not consumed", consumer=self._consumer,
                          next_offsets=str(lost))  # fmt: skip
                skipped = {place: Step(at, begin[place], skipped=begin[place] - at) for place, at in lost.items()}
                await progress.advance(tx.db, self._consumer, skipped)
        # After the reading: whoever had these partitions before may have gone on meanwhile.
        self._check_log_reaches({place: known[place] for place in assigned}, await kafka.end(assigned))
        self.at = {place: max(known[place], begin[place]) for place in assigned}
        for place, position in self.at.items():
            kafka.seek(place, position)
        log.info("partitions assigned", consumer=self._consumer, partitions=len(assigned))
        return True

    def _check_log_reaches(self, known: Mapping[Place, int], end: Mapping[Place, int]) -> None:
        """A log that ends before what was consumed is not the one that was consumed: go on, and events are missed."""
        self.beyond = [f"{place}: consumed up to {at}, the log ends at {end[place]}" for place, at in known.items()
                       if at > end[place]]  # fmt: skip
        if self.beyond:
            raise BeyondLogError(
                f"{self.beyond[:3]}: Kafka has lost data, or this is another Kafka. Restore the log; or, if what is "
                "missing is known to be applied, set next_offset in consumer_offsets to the end and start again"
            )

    def following(self, fetched: Sequence[Record]) -> list[Record]:
        """What follows on what was consumed."""
        expected = dict(self.at)
        following: list[Record] = []
        for record in fetched:
            place = (record.topic, record.partition)
            if place not in expected or record.offset < expected[place]:
                continue  # fetched before a rebalance or a seek
            if record.offset > expected[place]:
                if self._holes.get(place) != expected[place]:
                    self._holes[place] = expected.pop(place)
                    self.sought = False  # seek again; if it is still there, the log itself has it
                    continue
                log.error("the log has a hole", consumer=self._consumer, place=place, at=expected[place],
                          to=record.offset)  # fmt: skip
            expected[place] = record.offset + 1
            following.append(record)
        return following

    def took(self, record: Record) -> None:
        self.at[record.topic, record.partition] = record.offset + 1
