"""Which connections of a stack lead through proxies, and how its processes are told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit, urlunsplit

from deploy.local.environment import SERVICES, WORKERS, spare_port
from deploy.local.stack import Stack

KAFKA = "KAFKA_BOOTSTRAP_SERVERS"
URLS = {  # the proxy: whose address of what leads through it
    **{f"{service}-postgres": (service, "ISTHMUS_DATABASE_URL") for service in SERVICES},
    "order-payments": ("order", "ISTHMUS_PAYMENTS_URL"),
    "order-carrier": ("order", "ISTHMUS_CARRIER_URL"),
    "order-customer": ("order", "ISTHMUS_CUSTOMER_URL"),
    "order-inventory": ("order", "ISTHMUS_INVENTORY_URL"),
    "order-pricing": ("order", "ISTHMUS_PRICING_URL"),
    "notify-customer": ("notify", "ISTHMUS_CUSTOMER_URL"),
    "notify-mail": ("notify", "ISTHMUS_SMTP_URL"),
    "payments-order": ("payments", "SANDBOX_WEBHOOK_URL"),
    "carrier-order": ("carrier", "SANDBOX_WEBHOOK_URL"),
}


@dataclass(frozen=True)
class Links:
    """``env`` is for `Stack.up`; ``ports`` are for `Proxies`, which must run before: each one's own, and its target."""

    env: Mapping[str, Mapping[str, str]]
    ports: Mapping[str, tuple[int, int]]


def links(stack: Stack) -> Links:
    """A proxy for every connection named in URLS, and for each service's and worker's to Kafka (``order-kafka``).

    Kafka tells its clients where to go, so it has a listener for each of them, which names the proxy: it must be
    started after this call. `unlink` takes that back.
    """
    stack.prepare()
    env: dict[str, dict[str, str]] = {}
    ports: dict[str, tuple[int, int]] = {}
    taken = set(stack.ports.values())

    def spare() -> int:
        port = spare_port(taken)
        taken.add(port)
        return port

    for proxy, (name, variable) in URLS.items():
        url = urlsplit(stack.env(name)[variable])
        host, _, target = url.netloc.rpartition(":")
        listen = spare()
        ports[proxy] = (listen, int(target))
        env.setdefault(name, {})[variable] = urlunsplit(url._replace(netloc=f"{host}:{listen}"))
    for name in (*SERVICES, *WORKERS):
        listen = spare()
        ports[f"{name}-kafka"] = (listen, spare())
        env.setdefault(name, {})[KAFKA] = f"127.0.0.1:{listen}"
    stack.prepare({name: (ports[f"{name}-kafka"][1], ports[f"{name}-kafka"][0]) for name in (*SERVICES, *WORKERS)})
    return Links(env, ports)


def unlink(stack: Stack) -> None:
    """From its next `up` on the stack is one without proxies again."""
    stack.prepare({})
