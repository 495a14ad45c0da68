"""What each process is told: ports, secrets and environment variables. Nothing here starts anything."""

import base64
import os
import random
import secrets
import socket
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

from deploy.local.processes import read_json, write_json

SERVICES = ("order", "inventory", "customer", "pricing", "notify")
WORKERS = {"demand": "services.pricing.demand"}  # modules of processes beside the services', without a database
OUTSIDERS = ("issuer", "payments", "carrier", "mail")  # what stands in for providers of the outside world
HTTP = (*OUTSIDERS, *SERVICES, *WORKERS)

_SHOP = ["orders:write", "orders:read", "prices:read", "items:read", "stock:read"]
_SUPPORT = ["orders:read", "customers:read", "recipients:read"]
_ALL = [
    *("orders:read", "orders:write", "orders:import", "items:read", "items:write", "stock:read", "stock:write"),
    *("customers:read", "customers:write", "recipients:read", "contacts:read"),
    *("prices:read", "prices:write", "care:read", "ledger:read", "holdings:read", "admin"),
]
CLIENTS = {
    "demo": _ALL,
    "shop": _SHOP,
    "support": _SUPPORT,
    "order": ["recipients:read", "holdings:read"],
    "notify": ["contacts:read"],
}
MAIL_FROM = "Isthmus shop <care@shop.example>"
_SECOND_PORTS = {"kafka_controller": "kafka", "mail_smtp": "mail"}  # whose they are


def load_secrets(directory: Path) -> dict[str, str]:
    """Random, made once, readable by their owner only; a secret that a newer version needs is added."""
    path = directory / "secrets.json"
    known: dict[str, str] = read_json(path) or {}
    made = {
        "postgres": secrets.token_urlsafe(24),
        **{f"postgres_{name}": secrets.token_urlsafe(24) for name in SERVICES},
        **{f"client_{name}": secrets.token_urlsafe(24) for name in CLIENTS},
        **{f"{name}_api_key": "sk_local_" + secrets.token_urlsafe(24) for name in ("payments", "carrier")},
        # In the form that Standard Webhooks asks for.
        **{f"{name}_webhook": "whsec_" + _base64_key() for name in ("payments", "carrier")},
        "fingerprint_key": _base64_key(),
        "master_key": _base64_key(),
    } | known
    if made != known:
        write_json(path, made)
    return made


def write_clients(directory: Path, known: Mapping[str, str]) -> None:
    """The OAuth clients that the local issuer knows."""
    clients = [
        {"client_id": name, "client_secret": known[f"client_{name}"], "scopes": scopes}
        for name, scopes in CLIENTS.items()
    ]
    if read_json(directory / "clients.json") != clients:
        write_json(directory / "clients.json", clients)


def _base64_key() -> str:
    return base64.b64encode(secrets.token_bytes(32)).decode()


def choose_ports(known: Mapping[str, int], running: Iterable[str]) -> dict[str, int]:
    """A port for each part: the known one while it is ours or free, else a new one.

    From below the range that the kernel gives to outgoing connections: there, a connection could take the port of a
    part in the moment it restarts.
    """
    ports: dict[str, int] = {}
    for name in ("kafka", "postgres", *_SECOND_PORTS, *HTTP):
        port = known.get(name)
        part = _SECOND_PORTS.get(name, name)
        if port is None or port in ports.values() or not (part in running or _free(port)):
            port = spare_port([*ports.values(), *known.values()])
        ports[name] = port
    return ports


def spare_port(taken: Collection[int] = ()) -> int:
    """A free port of that range, and none of those."""
    while (port := random.randint(20000, 31999)) in taken or not _free(port):
        pass
    return port


def _free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def given_database_url(service: str) -> str | None:
    """ORDER_DATABASE_URL and so on: a database of the caller's wins over the local one."""
    return os.environ.get(f"{service.upper()}_DATABASE_URL")


def given_bootstrap_servers() -> str | None:
    """KAFKA_BOOTSTRAP_SERVERS: a Kafka of the caller's wins over the local one."""
    return os.environ.get("KAFKA_BOOTSTRAP_SERVERS")


def outsider_env(name: str, directory: Path, ports: Mapping[str, int], known: Mapping[str, str]) -> dict[str, str]:
    common = {"ISTHMUS_HTTP_HOST": "127.0.0.1", "ISTHMUS_HTTP_PORT": str(ports[name])}
    if name == "issuer":
        return common | {
            "ISTHMUS_AUTH_ISSUER": f"http://127.0.0.1:{ports['issuer']}",
            "ISTHMUS_AUTH_AUDIENCE": "isthmus",
            "ISSUER_KEY_FILE": str(directory / "issuer.key.json"),
            "ISSUER_CLIENTS": str(directory / "clients.json"),
        }
    common |= {"SANDBOX_DATABASE": str(directory / f"{name}.sqlite")}
    if name == "mail":
        return common | {"SANDBOX_SMTP_PORT": str(ports["mail_smtp"])}
    return common | {
        "SANDBOX_API_KEY": known[f"{name}_api_key"],
        "SANDBOX_WEBHOOK_SECRET": known[f"{name}_webhook"],
        "SANDBOX_WEBHOOK_URL": f"http://127.0.0.1:{ports['order']}/webhooks/{name}",
    }


def worker_env(name: str, ports: Mapping[str, int], bootstrap_servers: str) -> dict[str, str]:
    return {
        "KAFKA_BOOTSTRAP_SERVERS": bootstrap_servers,
        "ISTHMUS_HTTP_HOST": "127.0.0.1",
        "ISTHMUS_HTTP_PORT": str(ports[name]),
        "ISTHMUS_REPLICA": f"{name}-0",
    }


def service_env(
    name: str, ports: Mapping[str, int], known: Mapping[str, str], bootstrap_servers: str, database_url: str
) -> dict[str, str]:
    issuer = f"http://127.0.0.1:{ports['issuer']}"
    env = worker_env(name, ports, bootstrap_servers) | {
        "ISTHMUS_DATABASE_URL": database_url,
        "ISTHMUS_AUTH_ISSUER": issuer,
        "ISTHMUS_AUTH_JWKS_URL": f"{issuer}/.well-known/jwks.json",
        "ISTHMUS_AUTH_AUDIENCE": "isthmus",
    }
    if name in ("order", "notify"):  # they ask the customer service for recipients and contacts
        env |= {
            "ISTHMUS_AUTH_TOKEN_URL": f"{issuer}/token",
            "ISTHMUS_CLIENT_ID": name,
            "ISTHMUS_CLIENT_SECRET": known[f"client_{name}"],
            "ISTHMUS_CUSTOMER_URL": f"http://127.0.0.1:{ports['customer']}",
        }
    if name == "order":
        for holder in ("inventory", "pricing"):
            env |= {f"ISTHMUS_{holder.upper()}_URL": f"http://127.0.0.1:{ports[holder]}"}
        for provider in ("payments", "carrier"):
            env |= {
                f"ISTHMUS_{provider.upper()}_URL": f"http://127.0.0.1:{ports[provider]}",
                f"ISTHMUS_{provider.upper()}_API_KEY": known[f"{provider}_api_key"],
                f"ISTHMUS_{provider.upper()}_WEBHOOK_SECRET": known[f"{provider}_webhook"],
            }
        env |= {"ISTHMUS_FINGERPRINT_KEY": known["fingerprint_key"]}
    if name == "notify":
        env |= {"ISTHMUS_SMTP_URL": f"smtp://127.0.0.1:{ports['mail_smtp']}", "ISTHMUS_MAIL_FROM": MAIL_FROM}
    if name == "customer":
        env |= {"ISTHMUS_MASTER_KEY": known["master_key"]}
    return env
