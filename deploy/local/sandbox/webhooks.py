"""What goes out: webhooks, signed by the Standard Webhooks scheme, retried until the receiver says 2xx."""

import asyncio
import base64
import hashlib
import hmac
import logging
import sqlite3
import time
from collections.abc import Callable

import httpx2

from .outbox import Outbox, Webhook

log = logging.getLogger(__name__)

PARALLEL = 16
TICK_SECONDS = 0.02
TIMEOUT_SECONDS = 10.0
FIRST_RETRY_SECONDS, LAST_RETRY_SECONDS = 0.2, 30.0
MAX_ATTEMPTS = 1_000  # about eight hours


def sign(key: bytes, webhook_id: str, timestamp: int, body: str) -> str:
    """Return the webhook-signature header: v1,<base64 HMAC-SHA256 of id.timestamp.body>."""
    signed = hmac.new(key, f"{webhook_id}.{timestamp}.{body}".encode(), hashlib.sha256).digest()
    return f"v1,{base64.b64encode(signed).decode()}"


def retry_after(attempts: int) -> float | None:
    """Return the seconds until the next attempt after so many failed ones, or None to give up."""
    if attempts >= MAX_ATTEMPTS:
        return None
    return min(FIRST_RETRY_SECONDS * 2 ** min(attempts - 1, 20), LAST_RETRY_SECONDS)


class Courier:
    """Delivers each webhook at least once, several at a time, and calls `tick` for what falls due by the clock."""

    def __init__(self, tick: Callable[[], None], outbox: Outbox, url: str | None, key: bytes) -> None:
        self._tick, self._outbox, self._url, self._key = tick, outbox, url, key
        self._in_flight: dict[int, asyncio.Task[None]] = {}
        self._wake, self._stopping, self._failing = asyncio.Event(), False, False

    async def run(self) -> None:
        """Return after stop(), once the deliveries in flight have been answered or timed out."""
        limits = httpx2.Limits(max_connections=PARALLEL, max_keepalive_connections=PARALLEL)
        async with httpx2.AsyncClient(timeout=TIMEOUT_SECONDS, limits=limits, trust_env=False) as client:
            while not self._stopping:
                try:
                    self._tick()
                    self._start_due(client)
                except sqlite3.Error:  # say, a full disk: nothing was lost, and it may heal
                    log.exception("the database failed; trying again")
                    await asyncio.sleep(1)
                await self._pause()
            await asyncio.gather(*self._in_flight.values())

    def stop(self) -> None:
        self._stopping = True
        self._wake.set()

    def _start_due(self, client: httpx2.AsyncClient) -> None:
        if self._url is None:
            return
        # Those in flight are still due in the database, so that kill -9 forgets none; hence read that many more.
        for webhook in self._outbox.due(PARALLEL + len(self._in_flight)):
            if webhook.seq not in self._in_flight and len(self._in_flight) < PARALLEL:
                self._in_flight[webhook.seq] = asyncio.create_task(self._deliver(client, self._url, webhook))

    async def _deliver(self, client: httpx2.AsyncClient, url: str, webhook: Webhook) -> None:
        try:
            failure = await self._post(client, url, webhook)
            self._outbox.attempted(webhook.seq, retry_after(webhook.attempts + 1) if failure else None)
            if bool(failure) != self._failing:  # said on a change only, or an outage would fill the log
                self._failing = bool(failure)
                log.warning("webhooks to %s %s", url, f"fail: {failure}" if failure else "are accepted again")
        except sqlite3.Error:
            log.exception("a delivery could not be noted, and will be repeated")
        finally:
            del self._in_flight[webhook.seq]
            self._wake.set()

    async def _post(self, client: httpx2.AsyncClient, url: str, webhook: Webhook) -> str | None:
        """Return None when delivered, else what went wrong."""
        timestamp = int(time.time())  # of the attempt, as the scheme wants: receivers refuse old ones
        headers = {
            "content-type": "application/json",
            "webhook-id": webhook.id,
            "webhook-timestamp": str(timestamp),
            "webhook-signature": sign(self._key, webhook.id, timestamp, webhook.body),
        }
        try:
            answer = await client.post(url, content=webhook.body, headers=headers)
        except httpx2.HTTPError as error:
            return repr(error)
        return None if answer.is_success else f"answered {answer.status_code}"

    async def _pause(self) -> None:
        try:
            async with asyncio.timeout(TICK_SECONDS):
                await self._wake.wait()
        except TimeoutError:
            pass
        self._wake.clear()
