"""A token issuer for development only: OAuth 2 client credentials in, signed JWTs out.

Run with `python -m deploy.local.issuer`. In production the platform trusts an issuer of your own instead, and needs no
more of it than this one offers: its metadata, its public keys, its tokens.
"""

import base64
import binascii
import hmac
import os
import secrets
import time
from collections import Counter
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Annotated
from urllib.parse import parse_qsl, unquote_plus

import orjson
import uvicorn
from fastapi import APIRouter, Depends, FastAPI, Request
from fastapi.responses import JSONResponse
from joserfc import jwt
from joserfc.jwk import ECKey, OKPKey
from pydantic import BaseModel, Field, TypeAdapter
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    model_config = SettingsConfigDict(extra="ignore", populate_by_name=True)

    host: str = Field(default="127.0.0.1", validation_alias="ISTHMUS_HTTP_HOST")
    port: int = Field(default=8091, validation_alias="ISTHMUS_HTTP_PORT")
    issuer: str = Field(validation_alias="ISTHMUS_AUTH_ISSUER")
    audience: str = Field(default="isthmus", validation_alias="ISTHMUS_AUTH_AUDIENCE")
    key_file: Path = Field(validation_alias="ISSUER_KEY_FILE")
    clients: Path = Field(validation_alias="ISSUER_CLIENTS")
    token_seconds: int = Field(default=3600, validation_alias="ISSUER_TOKEN_SECONDS", gt=0)
    allow_lifetime: bool = Field(default=False, validation_alias="ISSUER_ALLOW_LIFETIME")


class Client(BaseModel):
    client_id: str
    client_secret: str
    scopes: list[str]


class OAuthError(Exception):
    """An error answer of RFC 6749, section 5.2."""

    def __init__(self, error: str, description: str, status: int = 400) -> None:
        super().__init__(description)
        self.error, self.description, self.status = error, description, status


@dataclass(frozen=True)
class Issuer:
    settings: Settings
    key: ECKey | OKPKey
    clients: dict[str, Client]

    def client(self, client_id: str, secret: str) -> Client:
        """Return the client whose secret this is; the time it takes tells neither secrets nor which clients exist."""
        client = self.clients.get(client_id)
        expected = client.client_secret if client else secrets.token_hex()
        right = hmac.compare_digest(sha256(secret.encode()).digest(), sha256(expected.encode()).digest())
        if client is None or not right:
            raise OAuthError("invalid_client", "unknown client or wrong secret", 401)
        return client

    def token(self, client: Client, scopes: list[str], seconds: int) -> str:
        """Return a signed JWT. One that has already expired was issued no later than that."""
        now = int(time.time())
        claims: dict[str, str | int] = {
            "iss": self.settings.issuer,
            "aud": self.settings.audience,
            "sub": client.client_id,
            "iat": min(now, now + seconds),
            "exp": now + seconds,
            "jti": secrets.token_urlsafe(16),
            "scope": " ".join(scopes),
        }
        algorithm = "ES256" if isinstance(self.key, ECKey) else "EdDSA"
        header = {"alg": algorithm, "kid": self.key.thumbprint()}
        return jwt.encode(header, claims, self.key, algorithms=[algorithm])


routes = APIRouter()


async def _issuer(request: Request) -> Issuer:
    return request.app.state.issuer


TheIssuer = Annotated[Issuer, Depends(_issuer)]


@routes.post("/token", summary="A token for client credentials, sent in the form or by HTTP Basic")
async def token(request: Request, issuer: TheIssuer) -> JSONResponse:
    form = _form(await request.body())
    client = issuer.client(*_credentials(form, request.headers.get("authorization")))
    if "grant_type" not in form:
        raise OAuthError("invalid_request", "grant_type is missing")
    if form["grant_type"] != "client_credentials":
        raise OAuthError("unsupported_grant_type", "only client_credentials")
    scopes = form.get("scope", "").split() or client.scopes
    if excess := sorted(set(scopes) - set(client.scopes)):
        raise OAuthError("invalid_scope", f"not allowed: {' '.join(excess)}")
    seconds = _lifetime(form, issuer.settings)
    body = {
        "access_token": issuer.token(client, scopes, seconds),
        "token_type": "Bearer",
        "expires_in": seconds,
        "scope": " ".join(scopes),
    }
    return JSONResponse(body, headers={"cache-control": "no-store"})


@routes.get("/.well-known/jwks.json", summary="The public key")
async def keys(issuer: TheIssuer) -> JSONResponse:
    algorithm = "ES256" if isinstance(issuer.key, ECKey) else "EdDSA"
    public = issuer.key.as_dict(private=False, kid=issuer.key.thumbprint(), use="sig", alg=algorithm)
    return JSONResponse({"keys": [public]})


@routes.get("/.well-known/openid-configuration", summary="Where everything is")
async def metadata(issuer: TheIssuer) -> dict[str, str | list[str]]:
    base = issuer.settings.issuer.rstrip("/")
    return {
        "issuer": issuer.settings.issuer,
        "token_endpoint": f"{base}/token",
        "jwks_uri": f"{base}/.well-known/jwks.json",
        "grant_types_supported": ["client_credentials"],
        "token_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post"],
    }


@routes.get("/health")
async def health() -> dict[str, str]:
    return {"status": "ok"}


async def _refused(_: Request, refusal: Exception) -> JSONResponse:
    assert isinstance(refusal, OAuthError)
    headers = {"cache-control": "no-store"} | ({"www-authenticate": "Basic"} if refusal.status == 401 else {})
    return JSONResponse({"error": refusal.error, "error_description": refusal.description}, refusal.status, headers)


def _form(body: bytes) -> dict[str, str]:
    """Read a form by hand, because RFC 6749 wants a repeated parameter refused."""
    try:
        pairs = parse_qsl(body.decode(), max_num_fields=20)
    except ValueError as error:
        raise OAuthError("invalid_request", "the body is not a form") from error
    if any(count > 1 for count in Counter(name for name, _ in pairs).values()):
        raise OAuthError("invalid_request", "a parameter is repeated")
    return dict(pairs)


def _credentials(form: dict[str, str], authorization: str | None) -> tuple[str, str]:
    if authorization is None:
        return form.get("client_id", ""), form.get("client_secret", "")
    if "client_secret" in form:
        raise OAuthError("invalid_request", "send the credentials in the form or by HTTP Basic, not both")
    scheme, _, encoded = authorization.partition(" ")
    try:
        decoded = base64.b64decode(encoded, validate=True).decode() if scheme.lower() == "basic" else ""
    except (binascii.Error, UnicodeDecodeError) as error:
        raise OAuthError("invalid_client", "unreadable HTTP Basic credentials", 401) from error
    client_id, _, secret = decoded.partition(":")
    return unquote_plus(client_id), unquote_plus(secret)


def _lifetime(form: dict[str, str], settings: Settings) -> int:
    """Return the seconds a token lives; a test may ask for another number, and a negative one is expired at birth."""
    if "lifetime" not in form:
        return settings.token_seconds
    if not settings.allow_lifetime:
        raise OAuthError("invalid_request", "lifetime needs ISSUER_ALLOW_LIFETIME=1")
    try:
        return int(form["lifetime"])
    except ValueError as error:
        raise OAuthError("invalid_request", "lifetime is a whole number of seconds") from error


def signing_key(path: Path) -> ECKey | OKPKey:
    """Return the key of the file, making it (ES256, 0600) when missing; of two that start at once, both get one key."""
    if not path.exists():
        # Written aside and linked into place: nobody ever reads half a key.
        draft = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(orjson.dumps(ECKey.generate_key("P-256").as_dict(private=True)))
        try:
            os.link(draft, path)
        except FileExistsError:
            pass
        finally:
            draft.unlink()
    jwk = orjson.loads(path.read_bytes())
    return OKPKey.import_key(jwk) if jwk.get("crv") == "Ed25519" else ECKey.import_key(jwk)


def create_app(settings: Settings) -> FastAPI:
    """Return the issuer. Raises when the clients or the key cannot be read."""
    clients = TypeAdapter(list[Client]).validate_json(settings.clients.read_bytes())
    app = FastAPI(title="Local token issuer (development only)", version="1")
    app.state.issuer = Issuer(
        settings, signing_key(settings.key_file), {client.client_id: client for client in clients}
    )
    app.include_router(routes)
    app.add_exception_handler(OAuthError, _refused)
    return app


if __name__ == "__main__":
    settings = Settings.model_validate({})
    uvicorn.run(create_app(settings), host=settings.host, port=settings.port, access_log=False, log_level="warning")
