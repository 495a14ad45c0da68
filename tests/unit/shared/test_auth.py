"""Tokens of a real issuer with real ES256 keys: who is let in, who is not, and what the answer says."""

from __future__ import annotations

import base64
import hmac
import time
from typing import Annotated, Any

import httpx2
import orjson
import pytest
from fastapi import FastAPI
from joserfc.jwk import ECKey

from shared import problems
from shared.auth import Authenticator, Principal, requires
from tests.support.http import AUDIENCE, ISSUER, Issuer, client_of, listening


async def look(principal: Annotated[Principal, requires("lamps:read")]) -> str:
    return principal.subject


def shop(authenticator: Authenticator) -> FastAPI:
    app = FastAPI()
    app.add_api_route("/lamps", look)
    problems.install(app)
    app.state.authenticator = authenticator
    return app


async def asked(issuer: Issuer, token: str | None) -> httpx2.Response:
    async with client_of(shop(issuer.authenticator()), token) as client:
        return await client.get("/lamps")


async def test_a_token_of_the_issuer_with_the_scope_is_let_in():
    issuer = Issuer()
    answer = await asked(issuer, issuer.token("lamps:write lamps:read"))
    assert (answer.status_code, answer.json()) == (200, "anna")


@pytest.mark.parametrize(
    "changes",
    [
        {"exp": int(time.time()) - 60}, {"exp": None}, {"exp": "soon"}, {"aud": "elsewhere"}, {"aud": None},
        {"iss": "https://other.example"}, {"iss": None}, {"sub": None}, {"nbf": int(time.time()) + 86_400},
    ],
    ids=str,
)  # fmt: skip
async def test_a_token_with_a_wrong_claim_is_refused(changes: dict[str, Any]):
    issuer = Issuer()
    answer = await asked(issuer, issuer.token("lamps:read", **changes))
    assert answer.status_code == 401, answer.text
    assert 'error="invalid_token"' in answer.headers["WWW-Authenticate"]


def forged(header: dict[str, Any], signature: bytes = b"") -> str:
    claims = {"iss": ISSUER, "aud": AUDIENCE, "sub": "anna", "exp": int(time.time()) + 60, "scope": "lamps:read"}
    parts = [orjson.dumps(header), orjson.dumps(claims), signature]
    return ".".join(base64.urlsafe_b64encode(part).decode().rstrip("=") for part in parts)


async def test_forged_tokens_are_refused():
    issuer, stranger = Issuer(), Issuer()
    unsigned = forged({"alg": "HS256", "kid": "first"}).rstrip(".")
    digest = hmac.digest(issuer.key.as_pem(private=False), unsigned.encode(), "sha256")
    signed_with_the_public_key = f"{unsigned}.{base64.urlsafe_b64encode(digest).decode().rstrip('=')}"
    good = issuer.token("lamps:read")
    head, body, signature = good.split(".")
    tokens = [
        stranger.token("lamps:read"), forged({"alg": "none"}), forged({"alg": "none", "kid": "first"}),
        forged({"alg": "ES256", "kid": "first"}, b"x" * 64), forged({"alg": "ES256", "kid": "other"}, b"x" * 64),
        signed_with_the_public_key, f"{head}.{body}.", f"{head}.{body}", f"{head}.{signature}.{body}", "nonsense",
        "a.b.c", "..",
    ]  # fmt: skip
    for token in tokens:
        answer = await asked(issuer, token)
        assert answer.status_code == 401, token


async def test_without_a_token_the_caller_is_told_to_bring_one():
    answer = await asked(Issuer(), None)
    assert (answer.status_code, answer.headers["WWW-Authenticate"]) == (401, "Bearer")


async def test_a_token_without_the_scope_is_forbidden_and_told_which():
    issuer = Issuer()
    for scope in ("", "lamps:write", "lamps:readers", "lamps:read,lamps:write"):
        answer = await asked(issuer, issuer.token(scope))
        assert answer.status_code == 403, scope
        assert 'scope="lamps:read"' in answer.headers["WWW-Authenticate"]


async def test_a_key_that_the_issuer_rotated_in_is_fetched():
    issuer = Issuer()
    async with listening(issuer.app()) as url:
        authenticator = Authenticator(ISSUER, AUDIENCE, f"{url}/keys")
        async with client_of(shop(authenticator)) as client:
            first = {"Authorization": f"Bearer {issuer.token('lamps:read')}"}
            assert (await client.get("/lamps", headers=first)).status_code == 200
            assert (await client.get("/lamps", headers=first)).status_code == 200
            assert issuer.asked == 1
            issuer.key = ECKey.generate_key("P-256", {"kid": "second"})
            authenticator._asked_at -= 3
            second = {"Authorization": f"Bearer {issuer.token('lamps:read')}"}
            assert (await client.get("/lamps", headers=second)).status_code == 200
            unknown = {"Authorization": f"Bearer {Issuer().token('lamps:read')}"}
            for _ in range(5):  # made-up keys do not make us flood the issuer
                assert (await client.get("/lamps", headers=unknown)).status_code == 401
            assert issuer.asked <= 3


async def test_an_issuer_that_is_away_stops_newcomers_only():
    issuer = Issuer()
    authenticator = Authenticator(ISSUER, AUDIENCE, "http://127.0.0.1:9/keys")
    async with client_of(shop(authenticator), issuer.token("lamps:read")) as client:
        assert (await client.get("/lamps")).status_code == 503
    known = issuer.authenticator()
    known._jwks_url, known._asked_at = "http://127.0.0.1:9/keys", time.monotonic() - 3600
    async with client_of(shop(known), issuer.token("lamps:read")) as client:
        assert (await client.get("/lamps")).status_code == 200
