"""What a service consumes: its handlers, the topics they read, and the deadlines they judge."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypeVar, overload

from shared.messages import Batch, Event, Topic
from shared.postgres import Tx

E1 = TypeVar("E1", bound=Event)
E2 = TypeVar("E2", bound=Event)
E3 = TypeVar("E3", bound=Event)

Handle = Callable[[Tx, Batch[E1]], Coroutine[Any, Any, None]]
Decorator = Callable[[Handle[E1]], Handle[E1]]
Judge = Callable[[Tx, "Due"], Awaitable[None]]
Hears = Sequence[type[Event]]


@dataclass(frozen=True)
class Due:
    """Deadlines up to ``until`` (database time) may be judged, for keys of these partitions.

    By then every message that was in the log at ``until`` has been consumed: nothing that arrived in time is late.
    """

    until: datetime
    partitions: Sequence[int]


@dataclass
class Subscription:
    """One handler and the topics it reads: one poll, one transaction."""

    name: str
    topics: Sequence[Topic[Any]]
    handle: Handle[Any]
    judge: Judge | None = None
    hears: frozenset[str] | None = None  # CloudEvents types that are handed over; None: all
    view: Sequence[str] = ()  # tables that it keeps, if it does nothing else: see shared/rebuild.py
    patience: float = 0.0  # seconds between two batches, unless the last one was full


@dataclass
class Consumers:
    """What a service consumes. Use ``on`` as a decorator; the function's name is the consumer's name."""

    subscriptions: list[Subscription] = field(default_factory=list[Subscription])

    @overload
    def on(
        self, one: Topic[E1], /, *, hears: Hears = (), view: Sequence[str] = (), patience: float = 0.0
    ) -> Decorator[E1]: ...
    @overload
    def on(
        self, one: Topic[E1], two: Topic[E2], /, *, hears: Hears = (), view: Sequence[str] = (), patience: float = 0.0
    ) -> Decorator[E1 | E2]: ...
    @overload
    def on(
        self,
        one: Topic[E1],
        two: Topic[E2],
        three: Topic[E3],
        /,
        *,
        hears: Hears = (),
        view: Sequence[str] = (),
        patience: float = 0.0,
    ) -> Decorator[E1 | E2 | E3]: ...
    def on(
        self, *topics: Topic[Any], hears: Hears = (), view: Sequence[str] = (), patience: float = 0.0
    ) -> Decorator[Any]:
        """Hand every batch of these topics to the decorated function, in log order.

        With ``hears``, only events of these classes; the others are passed over unread. ``view`` names the tables of a
        function that publishes nothing, bears repeats, and alone writes to them: they can be rebuilt from the log.

        ``patience`` is for what nobody waits for: so many seconds pass between two batches, and what comes meanwhile
        costs one transaction instead of many.
        """
        types = frozenset(topic.type_of(event) for topic in topics for event in hears if topic.carries(event))

        def register(handle: Handle[Any]) -> Handle[Any]:
            self.subscriptions.append(
                Subscription(handle.__name__, topics, handle, hears=types or None, view=view, patience=patience)
            )
            return handle

        return register

    def deadlines(self, after: Callable[..., Awaitable[None]]) -> Callable[[Judge], Judge]:
        """Judge deadlines about once a second, when the consumer ``after`` has read its partitions that far."""

        def register(judge: Judge) -> Judge:
            (subscription,) = [one for one in self.subscriptions if one.handle is after]
            subscription.judge = judge
            return judge

        return register
