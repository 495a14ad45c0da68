"""What is done to a replica, with a process that is none."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncGenerator
from subprocess import PIPE

import psutil
import pytest

from bench.faults.replicas import Replica
from deploy.local.environment import spare_port
from deploy.local.errors import StackError

PROGRAM = """
import http.server, signal, sys
class Ready(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path == "/health/ready" else 404)
        self.end_headers()
    def log_message(self, *_): ...
signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Ready).serve_forever()
"""


@pytest.fixture
async def some() -> AsyncGenerator[Replica]:
    port = spare_port()
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", PROGRAM, str(port), stdin=PIPE)
    replica = Replica("order-1", port, process)
    await replica.wait_ready(20)
    yield replica
    await replica.kill()


async def test_paused_it_stands_still_and_resumed_it_goes_on(some: Replica):
    some.pause()
    with pytest.raises(StackError, match="order-1"):
        await some.wait_ready(0.5)
    assert psutil.Process(some.process.pid).status() == psutil.STATUS_STOPPED
    some.resume()
    await some.wait_ready(10)


async def test_it_stops_in_good_order_even_when_paused(some: Replica):
    some.pause()
    await asyncio.wait_for(some.stop(), 10)
    assert some.process.returncode == 7


async def test_killed_it_is_gone_and_never_ready_again(some: Replica):
    await some.kill()
    assert some.process.returncode == -9
    with pytest.raises(StackError):
        await some.wait_ready(10)
