"""An issuer that talks nonsense hurts nobody who has its keys; a key that it withdrew lets nobody in."""

from __future__ import annotations

import base64
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import orjson
import pytest
from fastapi import FastAPI, Response
from joserfc.jwk import ECKey

from shared.auth import REFRESH_SECONDS, RETRY_SECONDS, Authenticator
from tests.support.http import AUDIENCE, ISSUER, Issuer, client_of, listening
from tests.unit.shared.test_auth import forged, shop

NO_KEYS = [
    b'{"keys": []}', b"{}", b"[]", b"null", b"5", b'"keys"', b"", b"<html>", b"\xff\xfe", b'{"keys": null}',
    b'{"keys": {}}', b'{"keys": "first"}', b'{"keys": [null]}', b'{"keys": [5]}', b'{"keys": [{}]}',
    b'{"keys": [{"kty": "EC"}]}', b'{"keys": [{"kty": "EC", "crv": "P-256", "x": "***", "y": 7}]}',
    b'{"keys": [{"kty": []}]}',
]  # fmt: skip


@asynccontextmanager
async def saying(content: bytes) -> AsyncGenerator[str]:
    """An issuer that answers so when asked for its keys; yields the address."""
    app = FastAPI()

    async def keys() -> Response:
        return Response(content, media_type="application/json")

    app.add_api_route("/keys", keys)
    async with listening(app) as url:
        yield f"{url}/keys"


def age(authenticator: Authenticator, seconds: float) -> None:
    """So long ago were the keys asked for."""
    authenticator._asked_at -= seconds


async def look(client: httpx2.AsyncClient, token: str) -> int:
    return (await client.get("/lamps", headers={"Authorization": f"Bearer {token}"})).status_code


@pytest.mark.parametrize("content", NO_KEYS, ids=str)
async def test_with_keys_at_hand_an_issuer_that_talks_nonsense_hurts_nobody(content: bytes):
    issuer = Issuer()
    authenticator = issuer.authenticator()
    async with saying(content) as url, client_of(shop(authenticator)) as client:
        authenticator._jwks_url = url
        for sub in ("anna", "berta"):
            age(authenticator, REFRESH_SECONDS + 1)
            assert await look(client, issuer.token("lamps:read", sub=sub)) == 200
        age(authenticator, RETRY_SECONDS + 1)
        assert await look(client, Issuer(ECKey.generate_key("P-256", {"kid": "other"})).token("lamps:read")) == 401


@pytest.mark.parametrize("content", NO_KEYS, ids=str)
async def test_without_keys_at_hand_the_caller_is_told_to_come_again(content: bytes):
    issuer = Issuer()
    async with saying(content) as url:
        authenticator = Authenticator(ISSUER, AUDIENCE, url)
        async with client_of(shop(authenticator), issuer.token("lamps:read")) as client:
            answer = await client.get("/lamps")
            assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
            async with listening(issuer.app()) as mended:
                authenticator._jwks_url = f"{mended}/keys"
                assert (await client.get("/lamps")).status_code == 200


ODD_HEADERS: list[dict[str, Any]] = [
    {"crit": 5}, {"crit": "b64"}, {"crit": []}, {"crit": {}}, {"crit": [1]}, {"crit": [{}]}, {"crit": [[]]},
    {"crit": [None]}, {"crit": ["exp"]}, {"crit": ["b64"]}, {"crit": None}, {"crit": True},
    {"b64": False, "crit": ["b64"]}, {"kid": 5}, {"kid": []}, {"kid": {}}, {"alg": []}, {"alg": None},
    {"alg": {"a": 1}}, {"typ": 5}, {"jwk": 5}, {"zip": "DEF"},
]  # fmt: skip


@pytest.mark.parametrize("header", ODD_HEADERS, ids=str)
async def test_a_token_with_an_odd_header_is_refused(header: dict[str, Any]):
    issuer = Issuer()
    async with client_of(shop(issuer.authenticator())) as client:
        token = forged({"alg": "ES256", "kid": "first"} | header, b"x" * 64)
        assert await look(client, token) == 401


@pytest.mark.parametrize("header", [5, "ES256", [], ["alg"], None, True], ids=str)
async def test_a_token_whose_header_is_no_object_is_refused(header: Any):
    issuer = Issuer()
    _, claims, signature = issuer.token("lamps:read").split(".")
    head = base64.urlsafe_b64encode(orjson.dumps(header)).decode().rstrip("=")
    async with client_of(shop(issuer.authenticator())) as client:
        assert await look(client, f"{head}.{claims}.{signature}") == 401


async def test_a_withdrawn_key_takes_its_tokens_with_it_when_the_keys_are_next_fetched():
    issuer = Issuer()
    async with listening(issuer.app()) as url:
        authenticator = Authenticator(ISSUER, AUDIENCE, f"{url}/keys")
        async with client_of(shop(authenticator)) as client:
            stolen = issuer.token("lamps:read")
            assert await look(client, stolen) == 200
            issuer.key = ECKey.generate_key("P-256", {"kid": "second"})
            age(authenticator, RETRY_SECONDS + 1)
            assert await look(client, issuer.token("lamps:read")) == 200
            assert await look(client, stolen) == 401


async def test_a_withdrawn_key_lets_nobody_in_after_five_minutes_even_if_no_other_token_comes():
    issuer = Issuer()
    async with listening(issuer.app()) as url:
        authenticator = Authenticator(ISSUER, AUDIENCE, f"{url}/keys")
        async with client_of(shop(authenticator)) as client:
            stolen = issuer.token("lamps:read")
            assert await look(client, stolen) == 200
            issuer.key = ECKey.generate_key("P-256", {"kid": "second"})
            age(authenticator, REFRESH_SECONDS + 1)
            assert await look(client, stolen) == 401
