"""Who calls: JWT bearer tokens (RFC 9068 style), checked against the issuer's keys (JWKS)."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Request, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer, SecurityScopes
from joserfc import jwt
from joserfc.errors import InvalidKeyIdError, JoseError
from joserfc.jwk import KeySet

from shared.http import HttpClient, HttpError
from shared.problems import Problem
from shared.telemetry import log

ALGORITHMS = ["EdDSA", "Ed25519", "ES256", "RS256"]
LEEWAY_SECONDS = 5
REFRESH_SECONDS = 300.0
RETRY_SECONDS = 2.0  # a token that names an unknown key makes us ask again, at most so often
CACHED_TOKENS = 4096

_bearer = HTTPBearer(auto_error=False, description="JWT of the issuer; scopes in the claim `scope`")


@dataclass(frozen=True)
class Principal:
    """The caller: ``subject`` as the issuer knows it, and what it may do."""

    subject: str
    scopes: frozenset[str]
    expires_at: float


class Authenticator:
    """Verifies tokens. Keys are fetched once, again every five minutes, and when a token names an unknown one."""

    def __init__(self, issuer: str, audience: str, jwks_url: str):
        self._jwks_url = jwks_url
        self._claims = jwt.JWTClaimsRegistry(
            leeway=LEEWAY_SECONDS,
            iss={"essential": True, "value": issuer}, aud={"essential": True, "value": audience},
            exp={"essential": True}, sub={"essential": True},
        )  # fmt: skip
        self._keys: KeySet | None = None
        self._asked_at = -REFRESH_SECONDS
        self._fetching = asyncio.Lock()
        self._verified: OrderedDict[str, Principal] = OrderedDict()

    async def principal(self, token: str) -> Principal:
        """The caller of a valid token; raises a 401 that says what is wrong with it."""
        await self._key_set()  # first: a key that is gone takes its tokens with it, also those of a constant caller
        known = self._verified.get(token)
        if known is not None:
            if known.expires_at + LEEWAY_SECONDS > time.time():
                return known
            del self._verified[token]
        principal = await self._verify(token)
        self._verified[token] = principal
        if len(self._verified) > CACHED_TOKENS:
            self._verified.popitem(last=False)
        return principal

    async def _verify(self, token: str) -> Principal:
        keys = await self._key_set()
        try:
            try:
                decoded = jwt.decode(token, keys, algorithms=ALGORITHMS)
            except InvalidKeyIdError:  # signed with a key we have not heard of: the issuer may have rotated
                decoded = jwt.decode(token, await self._key_set(fresh=True), algorithms=ALGORITHMS)
            self._claims.validate(decoded.claims)
        except JoseError as error:
            raise _unauthorized(f"{error.error}: {error.description or 'token not accepted'}") from error
        except (ValueError, TypeError) as error:  # what the library makes of odd headers
            raise _unauthorized("the token cannot be read") from error
        scopes = frozenset(str(decoded.claims.get("scope", "")).split())
        return Principal(str(decoded.claims["sub"]), scopes, float(decoded.claims["exp"]))

    async def _key_set(self, *, fresh: bool = False) -> KeySet:
        """The issuer's keys: those at hand while they are young, or while the issuer was asked a moment ago."""
        if self._keys is None or self._due(fresh=fresh):
            async with self._fetching:
                if self._keys is None or self._due(fresh=fresh):
                    await self._fetch()
        assert self._keys is not None
        return self._keys

    def _due(self, *, fresh: bool) -> bool:
        return time.monotonic() - self._asked_at > (RETRY_SECONDS if fresh else REFRESH_SECONDS)

    async def _fetch(self) -> None:
        """Ask the issuer; with keys at hand, one that is away or talks nonsense hurts nobody."""
        self._asked_at = time.monotonic()
        try:
            issuer = HttpClient(self._jwks_url, timeout=5)
            try:
                answer = await issuer.request("GET", "")
            finally:
                await issuer.close()
            if not answer.is_success:
                raise ValueError(f"status {answer.status_code}")
            keys = KeySet.import_key_set(answer.json())
            if not keys.keys:
                raise ValueError("no keys")
        except (HttpError, JoseError, ValueError, TypeError, KeyError) as error:
            log.warning("the issuer's keys cannot be had", reason=f"{type(error).__name__}: {error}")
            if self._keys is None:
                self._asked_at = -REFRESH_SECONDS
                raise Problem(
                    503, "Issuer unavailable", "tokens cannot be checked", headers={"Retry-After": "1"}
                ) from error
            return
        self._keys = keys
        self._verified.clear()  # a key that is gone takes its tokens with it


def _unauthorized(detail: str) -> Problem:
    return Problem(401, "Unauthorized", detail, headers={"WWW-Authenticate": 'Bearer error="invalid_token"'})


async def _require(
    request: Request,
    scopes: SecurityScopes,
    credentials: Annotated[HTTPAuthorizationCredentials | None, Security(_bearer)],
) -> Principal:
    if credentials is None:
        raise Problem(401, "Unauthorized", "send Authorization: Bearer <token>", headers={"WWW-Authenticate": "Bearer"})
    authenticator: Authenticator = request.app.state.authenticator
    principal = await authenticator.principal(credentials.credentials)
    missing = [scope for scope in scopes.scopes if scope not in principal.scopes]
    if missing:
        raise Problem(
            403, "Forbidden", f"the token lacks the scope {' '.join(missing)}",
            headers={"WWW-Authenticate": f'Bearer error="insufficient_scope", scope="{" ".join(scopes.scopes)}"'},
        )  # fmt: skip
    return principal


def requires(*scopes: str) -> Any:
    """A dependency that lets a caller with all these scopes pass, and yields its Principal."""
    return Security(_require, scopes=list(scopes))
