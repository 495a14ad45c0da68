"""What the notify service is told beyond the common settings."""

from __future__ import annotations

from datetime import timedelta
from email.headerregistry import Address
from email.utils import parseaddr
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import SettingsConfigDict

from services.notify.decisions import Rules
from shared.clients import CallerSettings


class NotifySettings(CallerSettings):
    """``smtp_url`` is ``smtp://[user:password@]host[:port]``, or ``smtps://`` for TLS from the first byte.

    With ``mail`` off, care is triggered and published, but no message is queued; what was triggered meanwhile is
    never sent.
    """

    model_config = SettingsConfigDict(hide_input_in_errors=True)  # the URL may hold a password

    mail: bool = True
    smtp_url: SecretStr = SecretStr("smtp://localhost:25")
    mail_from: str = Field(default="Customer care <care@localhost>", description="name and address of the sender")
    mail_timeout: float = Field(default=10.0, gt=0, description="seconds, per answer of the mail server")
    stale_days: float = Field(default=7, gt=0, description="what became known so long after it occurred is not told")
    silent_channels: tuple[str, ...] = Field(default=(), description="channels whose buyers must not be written to")
    give_up_hours: float = Field(default=24, gt=0, description="how long an undelivered message is tried again")

    @field_validator("smtp_url")
    @classmethod
    def _names_a_server(cls, value: SecretStr) -> SecretStr:
        url = urlsplit(value.get_secret_value())
        if url.scheme not in ("smtp", "smtps") or not url.hostname:
            raise ValueError("not smtp://host or smtps://host")
        return value

    @field_validator("mail_from")
    @classmethod
    def _is_a_sender(cls, value: str) -> str:
        name, address = parseaddr(value)
        if not Address(display_name=name, addr_spec=address).domain:
            raise ValueError("an e-mail address is needed, as in 'Care <care@shop.example>'")
        return value

    @property
    def rules(self) -> Rules:
        return Rules(timedelta(days=self.stale_days), frozenset(self.silent_channels), self.mail)
