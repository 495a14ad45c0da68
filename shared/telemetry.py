"""Metrics (Prometheus) and logs (structured, with trace ids) of every process."""

from __future__ import annotations

import logging
import sys
from collections.abc import MutableMapping
from typing import Any

import structlog
from prometheus_client import Counter, Gauge, Histogram

from shared.tracing import current_trace

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)

BATCH_SIZE = Histogram(
    "isthmus_batch_messages", "Messages per batch", ["consumer"], buckets=(1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
)
HANDLER_SECONDS = Histogram("isthmus_handler_seconds", "Time in the handler, per batch", ["consumer"], buckets=_SECONDS)
BATCH_SECONDS = Histogram(
    "isthmus_batch_seconds", "Time from poll to commit, per batch", ["consumer"], buckets=_SECONDS
)
MESSAGES = Counter(
    "isthmus_messages", "Consumed messages by what became of them", ["consumer", "outcome"]
)  # applied, duplicate, skipped, dead_lettered
REDRIVEN = Counter(
    "isthmus_dead_letters_redriven", "Dead letters that an operator tried again", ["consumer", "outcome"]
)  # applied, already_applied, refused
LAG = Gauge("isthmus_consumer_lag_messages", "Messages not yet consumed", ["consumer", "topic"])
EVENT_AGE_SECONDS = Histogram(
    "isthmus_event_age_seconds",
    "From recorded to applied, of each batch's oldest event",
    ["consumer"],
    buckets=_SECONDS,
)
SEQUENCE_GAPS = Counter(
    "isthmus_sequence_gaps", "Events that came before their predecessor: look into it", ["consumer"]
)
RETRIES = Counter("isthmus_retries", "Work tried again after an infrastructure error", ["part"])
BRAKED = Gauge("isthmus_consumer_braked", "1 while too many dead letters hold a consumer still", ["consumer"])
OUTBOX_ROWS = Gauge("isthmus_outbox_rows", "Events waiting for the relay")
OUTBOX_AGE_SECONDS = Gauge("isthmus_outbox_age_seconds", "Age of the oldest event waiting for the relay")
RELAYED = Counter("isthmus_relayed_events", "Events acknowledged by Kafka")
RELAY_ACTIVE = Gauge("isthmus_relay_active", "1 where this process is the relay of its database")
RELAY_BLOCKED = Gauge("isthmus_relay_blocked_keys", "Keys whose next event Kafka does not take: see the log")
HTTP_SECONDS = Histogram(
    "isthmus_http_request_seconds", "HTTP requests by route template", ["method", "route", "status"], buckets=_SECONDS
)
PROCESS_STATES = Gauge("isthmus_process_states", "Entities by state, as last counted", ["entity", "state"])
SHED = Counter("isthmus_requests_shed", "Requests refused because there was too much to do", ["reason"])
IN_FLIGHT = Gauge("isthmus_requests_in_flight", "Requests with new work that were let in and have not done it")
GATE_OPEN = Gauge("isthmus_gate_open", "1 while new work is taken", ["work"])
GATE_BACKLOG = Gauge("isthmus_gate_backlog", "Work that was taken and is not done, over all replicas", ["work"])
GATE_LIMIT = Gauge("isthmus_gate_limit", "Backlog at which the gate closes", ["work"])
GATE_PACE = Gauge("isthmus_gate_pace", "Work done per second, as seen when there was much to do", ["work"])
DRIFT = Gauge("isthmus_drift", "Differences between parties that were seen twice and are not mended", ["kind"])
DRIFT_REPAIRED = Counter("isthmus_drift_repaired", "Differences that are gone after something was done", ["kind"])
RECONCILED = Counter("isthmus_reconciled", "Entities compared with what others have of them", ["kind"])
RECONCILED_AT = Gauge(
    "isthmus_reconciled_timestamp_seconds", "End of the last whole pass, in seconds of 1970", ["walk"]
)


def _add_trace(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    trace = current_trace.get()
    if trace is not None:
        event["trace_id"], event["span_id"] = trace.trace_id, trace.span_id
    return event


def configure_logging(service: str, level: str = "INFO") -> None:
    """JSON lines on standard error, those of libraries included."""
    processors: list[Any] = [
        structlog.contextvars.merge_contextvars,
        _add_trace,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    structlog.configure(
        processors=[*processors, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=processors,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.JSONRenderer(),
            ],
        )
    )
    logging.basicConfig(handlers=[handler], level=level, force=True)
    logging.getLogger("aiokafka").setLevel(
        logging.CRITICAL
    )  # it calls a broker's restart an error; we say what matters
    logging.getLogger("httpx2").setLevel(logging.WARNING)
    structlog.contextvars.bind_contextvars(service=service)


log: Any = structlog.stdlib.get_logger("isthmus")
