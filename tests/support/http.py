"""HTTP over a real port of the loopback, and tokens of an issuer whose key is made here."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx2
from fastapi import FastAPI
from joserfc import jwt
from joserfc.jwk import ECKey, KeySet

from deploy.local.sandbox.server import server
from shared.auth import Authenticator

ISSUER, AUDIENCE = "https://issuer.example", "isthmus"


@asynccontextmanager
async def listening(app: FastAPI) -> AsyncGenerator[str]:
    """Serve ``app`` on a free port; yields its address."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        host, port = sock.getsockname()
        serving = server(app, host, port)
        task = asyncio.create_task(serving.serve(sockets=[sock]))
        while not serving.started:  # noqa: ASYNC110 - uvicorn offers nothing to wait for
            await asyncio.sleep(0.005)
        try:
            yield f"http://{host}:{port}"
        finally:
            serving.should_exit = True
            await task


@asynccontextmanager
async def client_of(app: FastAPI, token: str | None = None) -> AsyncGenerator[httpx2.AsyncClient]:
    """A client that calls ``app`` in this process."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    transport = httpx2.ASGITransport(app, raise_app_exceptions=False)
    async with httpx2.AsyncClient(transport=transport, base_url="http://test", headers=headers, timeout=30) as client:
        yield client


@dataclass
class Issuer:
    """Signs tokens, and shows its public keys."""

    key: ECKey = field(default_factory=lambda: ECKey.generate_key("P-256", {"kid": "first"}))
    asked: int = 0

    def token(self, scope: str = "", **changes: Any) -> str:
        """``changes`` replace claims; None leaves one out."""
        now = int(time.time())
        claims: dict[str, Any] = {"iss": ISSUER, "aud": AUDIENCE, "sub": "anna", "exp": now + 60, "scope": scope}
        claims = {name: value for name, value in (claims | changes).items() if value is not None}
        return jwt.encode({"alg": "ES256", "kid": self.key.kid}, claims, self.key)

    def authenticator(self) -> Authenticator:
        """One that knows the issuer's key already, and checks tokens as ever."""
        known = Authenticator(ISSUER, AUDIENCE, "http://issuer.example/keys")
        known._keys = KeySet([self.key])
        known._asked_at = time.monotonic()
        return known

    def app(self) -> FastAPI:
        app = FastAPI()

        async def keys() -> dict[str, Any]:
            self.asked += 1
            return {"keys": [self.key.as_dict(private=False)]}

        app.add_api_route("/keys", keys)
        return app
