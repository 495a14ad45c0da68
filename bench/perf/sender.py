"""The process that sends: requests built before the clock starts, then one after the other when they are due."""

from __future__ import annotations

from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import cast
from urllib.parse import urlsplit

import orjson
import uvloop

from bench import machine
from bench.perf.figures import quantile
from bench.perf.http import Run, drive
from bench.perf.orders import Load, build


@dataclass
class Sent:
    """What the clients were told. Times are of the monotonic clock; lists are in the order of the load."""

    order_ids: list[str | None]  # None: refused, or no answer
    answered: list[float]
    refused: dict[str, int] = field(default_factory=dict[str, int])  # by status; 0 is no answer
    first_refusal: str = ""
    again: int = 0
    cpu: float = 0.0  # seconds of this process while it sent
    seconds: float = 0.0  # that it sent
    slip_p99: float = 0.0  # seconds by which this process itself was late
    most_waiting: int = 0  # requests for a free connection


def main(pipe: Connection, url: str) -> None:
    """For each load and token that comes: build, say so, wait for the time to start, send, tell what came of it."""
    while True:
        try:
            load, token = cast("tuple[Load, str]", pipe.recv())
        except EOFError:
            return
        host, port = urlsplit(url).hostname or "", urlsplit(url).port or 80
        requests = build(load, host, port, token)
        pipe.send(len(requests))
        start = cast(float, pipe.recv())
        before = machine.cpu_of_self()
        sending = drive(host, port, requests, start=start, connections=load.connections, patience=load.patience)
        run = uvloop.run(sending)
        spent = machine.cpu_of_self() - before
        sent = told(load, run)
        sent.cpu = spent
        sent.seconds = max(request.answered for request in requests) - start
        pipe.send(sent)


def told(load: Load, run: Run) -> Sent:
    """What the answers say about each order."""
    sent = Sent([], [], slip_p99=quantile(sorted(run.slips), 0.99), most_waiting=run.most_waiting)
    for number, request in enumerate(run.requests):
        rows = min(load.rows, load.orders - number * load.rows) if load.rows else 1
        if request.status // 100 == 2 and load.rows:
            answers = [
                (one["status"], one.get("order_id"), one) for one in map(orjson.loads, request.body.splitlines())
            ]
        elif request.status // 100 == 2:
            answers = [(request.status, orjson.loads(request.body)["order_id"], None)]
        else:
            answers = [(request.status, None, request.body[:300])] * rows
        for status, order_id, said in answers:
            if status // 100 != 2:
                sent.refused[str(status)] = sent.refused.get(str(status), 0) + 1
                sent.first_refusal = sent.first_refusal or str(said)
                order_id = None
            sent.order_ids.append(order_id)
            sent.answered.append(request.answered)
        sent.again += request.again
    return sent
