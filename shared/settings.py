"""What a process is told by its environment; every name starts with ISTHMUS_, except Kafka's."""

from __future__ import annotations

import socket

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """Settings that every service has. A service with more extends this in its own settings.py."""

    model_config = SettingsConfigDict(env_prefix="ISTHMUS_", extra="ignore", populate_by_name=True)

    database_url: str
    kafka_bootstrap_servers: str = Field(validation_alias="KAFKA_BOOTSTRAP_SERVERS")
    http_host: str = "127.0.0.1"
    http_port: int = 8000
    replica: str = Field(default_factory=socket.gethostname, description="stable across restarts: static membership")
    pool_size: int = 12
    inbox_days: int = Field(default=7, ge=1, description="how long a relay's repeat is recognised")
    log_level: str = "INFO"
    drift_seconds: float = Field(default=30, ge=0, description="between comparisons of tables with the log; 0: none")

    auth_issuer: str
    auth_jwks_url: str
    auth_audience: str = "isthmus"
