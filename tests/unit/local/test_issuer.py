"""The local token issuer, asked over ASGI, its tokens verified with its own published key."""

import json
import stat
import time
from pathlib import Path
from typing import Any

import httpx2
import pytest
from joserfc import jwt
from joserfc.errors import ExpiredTokenError
from joserfc.jwk import KeySet, OKPKey

from deploy.local.issuer import Settings, create_app, signing_key

pytestmark = pytest.mark.filterwarnings("ignore:EdDSA is deprecated")
CLERK = {"client_id": "clerk", "client_secret": "s3cret:+/ ü"}


def issuer(path: Path, allow_lifetime: bool = False) -> httpx2.AsyncClient:
    clients = path / "clients.json"
    clients.write_text(json.dumps([{**CLERK, "scopes": ["orders:read", "orders:write"]}]))
    settings = Settings(
        issuer="http://issuer",
        audience="isthmus",
        key_file=path / "key.json",
        clients=clients,
        allow_lifetime=allow_lifetime,
    )
    return httpx2.AsyncClient(transport=httpx2.ASGITransport(app=create_app(settings)), base_url="http://issuer")


async def verified(client: httpx2.AsyncClient, token: str) -> dict[str, Any]:
    """Return the claims of a token as a service would check it, from the metadata on."""
    metadata = (await client.get("/.well-known/openid-configuration")).json()
    keys = KeySet.import_key_set((await client.get(metadata["jwks_uri"])).json())
    decoded = jwt.decode(token, keys, algorithms=["ES256", "EdDSA"])
    jwt.JWTClaimsRegistry(
        iss={"essential": True, "value": metadata["issuer"]}, aud={"essential": True, "value": "isthmus"}
    ).validate(decoded.claims)
    return decoded.claims


def grant(**more: str) -> dict[str, str]:
    return {"grant_type": "client_credentials", **CLERK, **more}


@pytest.mark.asyncio
async def test_a_client_gets_a_token_with_all_its_scopes(tmp_path: Path) -> None:
    async with issuer(tmp_path) as client:
        answer = await client.post("/token", data=grant())
        assert answer.status_code == 200
        assert answer.headers["cache-control"] == "no-store"
        assert (answer.json()["token_type"], answer.json()["expires_in"]) == ("Bearer", 3600)
        claims = await verified(client, answer.json()["access_token"])
        assert (claims["sub"], claims["scope"]) == ("clerk", "orders:read orders:write")
        assert claims["exp"] - claims["iat"] == 3600
        assert abs(claims["iat"] - time.time()) < 5
        other = await client.post("/token", data=grant())
        assert (await verified(client, other.json()["access_token"]))["jti"] != claims["jti"]


@pytest.mark.asyncio
async def test_basic_credentials_and_fewer_scopes(tmp_path: Path) -> None:
    async with issuer(tmp_path) as client:
        form = {"grant_type": "client_credentials", "scope": "orders:read"}
        answer = await client.post("/token", data=form, auth=("clerk", "s3cret%3A%2B%2F+%C3%BC"))
        assert (await verified(client, answer.json()["access_token"]))["scope"] == "orders:read"


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("form", "status", "error"),
    [
        (grant(client_secret="guess"), 401, "invalid_client"),
        (grant(client_id="nobody"), 401, "invalid_client"),
        ({"grant_type": "client_credentials"}, 401, "invalid_client"),
        (CLERK, 400, "invalid_request"),
        (grant(grant_type="password"), 400, "unsupported_grant_type"),
        (grant(scope="orders:read admin"), 400, "invalid_scope"),
        (grant(lifetime="60"), 400, "invalid_request"),
    ],
)
async def test_refusals_are_those_of_rfc_6749(tmp_path: Path, form: dict[str, str], status: int, error: str) -> None:
    async with issuer(tmp_path) as client:
        answer = await client.post("/token", data=form)
        assert (answer.status_code, answer.json()["error"]) == (status, error)
        assert ("www-authenticate" in answer.headers) == (status == 401)


@pytest.mark.asyncio
async def test_a_repeated_parameter_or_two_ways_to_authenticate_are_refused(tmp_path: Path) -> None:
    async with issuer(tmp_path) as client:
        twice = "grant_type=client_credentials&grant_type=client_credentials&client_id=clerk"
        assert (await client.post("/token", content=twice)).json()["error"] == "invalid_request"
        both = await client.post("/token", data=grant(), auth=("clerk", "x"))
        assert both.json()["error"] == "invalid_request"
        odd = await client.post("/token", data={"grant_type": "x"}, headers={"authorization": "Basic ***"})
        assert odd.status_code == 401


@pytest.mark.asyncio
async def test_a_test_can_ask_for_an_expired_token_where_allowed(tmp_path: Path) -> None:
    async with issuer(tmp_path, allow_lifetime=True) as client:
        answer = await client.post("/token", data=grant(lifetime="-60"))
        with pytest.raises(ExpiredTokenError):
            await verified(client, answer.json()["access_token"])
        assert (await client.post("/token", data=grant(lifetime="soon"))).json()["error"] == "invalid_request"


@pytest.mark.asyncio
async def test_the_published_key_is_public_and_stays_over_a_restart(tmp_path: Path) -> None:
    async with issuer(tmp_path) as client:
        (published,) = (await client.get("/.well-known/jwks.json")).json()["keys"]
        token = (await client.post("/token", data=grant())).json()["access_token"]
    assert "d" not in published
    assert published["kid"] == signing_key(tmp_path / "key.json").thumbprint()
    assert stat.S_IMODE((tmp_path / "key.json").stat().st_mode) == 0o600
    async with issuer(tmp_path) as restarted:
        assert (await verified(restarted, token))["sub"] == "clerk"
        assert (await restarted.get("/health")).json() == {"status": "ok"}


@pytest.mark.asyncio
async def test_an_ed25519_key_works_too(tmp_path: Path) -> None:
    (tmp_path / "key.json").write_text(json.dumps(OKPKey.generate_key("Ed25519").as_dict(private=True)))
    async with issuer(tmp_path) as client:
        token = (await client.post("/token", data=grant())).json()["access_token"]
        assert (await verified(client, token))["sub"] == "clerk"
