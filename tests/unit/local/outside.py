"""A merchant of the sandboxes: a receiver of their webhooks, a client of their APIs, and their processes."""

import asyncio
import base64
import hashlib
import hmac
import os
import socket
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
from fastapi import FastAPI, Request, Response

from tests.support.http import listening

KEY = base64.b64decode("c2FuZGJveC1zZWNyZXQtb2YtdGVzdHM=")
SECRET = "whsec_c2FuZGJveC1zZWNyZXQtb2YtdGVzdHM="
MERCHANT = {"authorization": "Bearer merchant"}


@dataclass
class Shop:
    """A receiver of webhooks that refuses the first few, and checks every signature."""

    url: str = ""
    refusals: int = 0
    webhooks: list[tuple[str, dict[str, Any]]] = field(default_factory=list[tuple[str, dict[str, Any]]])

    async def receive(self, request: Request) -> Response:
        body = await request.body()
        webhook_id, timestamp = request.headers["webhook-id"], request.headers["webhook-timestamp"]
        expected = hmac.new(KEY, f"{webhook_id}.{timestamp}.".encode() + body, hashlib.sha256).digest()
        assert request.headers["webhook-signature"] == f"v1,{base64.b64encode(expected).decode()}"
        assert abs(time.time() - int(timestamp)) < 5
        if self.refusals:
            self.refusals -= 1
            return Response(status_code=503)
        self.webhooks.append((webhook_id, await request.json()))
        return Response(status_code=204)

    def told(self) -> list[tuple[str, str]]:
        return [(webhook["type"], webhook["data"]["reference"]) for _, webhook in self.webhooks]


@asynccontextmanager
async def shop(refusals: int = 0) -> AsyncGenerator[Shop]:
    receiver, app = Shop(refusals=refusals), FastAPI()
    app.add_api_route("/webhooks", receiver.receive, methods=["POST"])
    async with listening(app) as url:
        receiver.url = f"{url}/webhooks"
        yield receiver


def merchant(url: str) -> httpx2.AsyncClient:
    return httpx2.AsyncClient(base_url=url, headers=MERCHANT, trust_env=False)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - the condition lives in another server
            await asyncio.sleep(0.01)


@contextmanager
def process(name: str, path: Path, webhook_url: str, **more: str) -> Generator[tuple[subprocess.Popen[bytes], str]]:
    """Run this sandbox as a process of its own, on a free port and a file in `path`; killed in the end."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    environment = {
        "ISTHMUS_HTTP_PORT": str(port),
        "SANDBOX_DATABASE": str(path / f"{name}.db"),
        "SANDBOX_API_KEY": "merchant",
        "SANDBOX_WEBHOOK_SECRET": SECRET,
        "SANDBOX_WEBHOOK_URL": webhook_url,
        **more,
    }
    root = Path(__file__).parents[3]
    command = [sys.executable, "-m", f"deploy.local.{name}"]
    with subprocess.Popen(command, cwd=root, env={**os.environ, **environment}) as running:
        try:
            yield running, f"http://127.0.0.1:{port}"
        finally:
            running.kill()


async def healthy(client: httpx2.AsyncClient) -> None:
    async with asyncio.timeout(15):
        while True:
            try:
                if (await client.get("/health")).is_success:
                    return
            except httpx2.ConnectError:
                await asyncio.sleep(0.05)
