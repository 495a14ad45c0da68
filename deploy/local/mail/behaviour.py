"""How the mail server behaves: faults by (seed, Message-ID), and addresses that it does not know."""

from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from deploy.local.sandbox.rates import Rate, Seeded


def _listed(patterns: object) -> object:
    """In the environment, commas stand between them."""
    return [part.strip() for part in patterns.split(",") if part.strip()] if isinstance(patterns, str) else patterns


class Behaviour(Seeded):
    """Each of the two rates touches the first attempt of a mail only."""

    accepting: bool = Field(
        default=True, description="false: every connection, also one that is open, gets 421 and is closed"
    )
    defer_rate: Rate = Field(default=0, description="451 to the whole mail, which is not kept")
    drop_after_data_rate: Rate = Field(default=0, description="the mail is kept, and the connection closed unanswered")
    reject: Annotated[list[str], BeforeValidator(_listed)] = Field(
        default=[], description="addresses that get 550; * and ? stand for any characters"
    )

    @model_validator(mode="after")
    def _faults_share_one(self) -> Self:
        if self.defer_rate + self.drop_after_data_rate > 1:
            raise ValueError("defer_rate + drop_after_data_rate must stay within 1")
        return self

    def rejects(self, address: str) -> bool:
        return any(fnmatchcase(address.lower(), pattern.lower()) for pattern in self.reject)

    def fate(self, message_id: str) -> Literal["kept", "deferred", "dropped"]:
        """Return what becomes of the first attempt to hand over this mail."""
        fault = self.draw("mail", message_id)
        if fault >= self.defer_rate + self.drop_after_data_rate:
            return "kept"
        return "deferred" if fault < self.defer_rate else "dropped"


class Settings(BaseSettings):
    model_config = SettingsConfigDict(env_prefix="SANDBOX_", extra="ignore")

    database: Path
    smtp_host: str = "127.0.0.1"
    smtp_port: int = 2525
