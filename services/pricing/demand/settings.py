"""What the demand process is told by its environment: ISTHMUS_…, and Kafka's address."""

from __future__ import annotations

import socket

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class DemandSettings(BaseSettings):
    """It has no database and asks for no tokens: health and metrics are all that it answers."""

    model_config = SettingsConfigDict(env_prefix="ISTHMUS_", extra="ignore", populate_by_name=True)

    kafka_bootstrap_servers: str = Field(validation_alias="KAFKA_BOOTSTRAP_SERVERS")
    http_host: str = "127.0.0.1"
    http_port: int = 8000
    replica: str = Field(default_factory=socket.gethostname, description="names it to the broker")
    log_level: str = "INFO"

    demand_window_seconds: int = Field(
        default=300, ge=1, le=86_400, description="length of a window of business time; raise the generation with it"
    )
    demand_generation: int = Field(default=1, ge=1, description="raise it to count again from the start of the log")
    demand_replication_factor: int = Field(default=1, ge=1, description="copies of what the process keeps in Kafka")
