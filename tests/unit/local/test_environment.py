"""What the processes of the local stack are told."""

import json
import random
from pathlib import Path

import pytest

from deploy.local.environment import (
    CLIENTS,
    HTTP,
    SERVICES,
    choose_ports,
    load_secrets,
    outsider_env,
    service_env,
    write_clients,
)


def test_a_newer_version_adds_the_secrets_it_needs_and_keeps_the_others(tmp_path: Path) -> None:
    first = load_secrets(tmp_path)
    older = {name: secret for name, secret in first.items() if "carrier" not in name and name != "client_order"}
    (tmp_path / "secrets.json").write_text(json.dumps(older))
    newer = load_secrets(tmp_path)
    assert newer.keys() == first.keys()
    assert older.items() <= newer.items()
    assert newer["carrier_api_key"] != first["carrier_api_key"]
    assert load_secrets(tmp_path) == newer


def test_every_part_has_a_port_of_its_own_and_keeps_it() -> None:
    ports = choose_ports({}, [])
    assert set(ports) == {"kafka", "kafka_controller", "postgres", "mail_smtp", *HTTP}
    assert len(set(ports.values())) == len(ports)
    older = {name: port for name, port in ports.items() if name not in ("carrier", "mail_smtp")}
    assert older.items() <= choose_ports(older, ports).items()


def test_a_part_without_a_port_never_gets_the_known_port_of_another(monkeypatch: pytest.MonkeyPatch) -> None:
    ports = choose_ports({}, [])
    older = {name: port for name, port in ports.items() if name != "mail_smtp"}
    drawn = iter([older["payments"], *(port for port in range(20000, 31999) if port not in older.values())])

    def draw(_low: int, _high: int) -> int:
        return next(drawn)

    monkeypatch.setattr(random, "randint", draw)
    assert older.items() <= choose_ports(older, ports).items()


def test_both_sides_of_a_connection_are_told_the_same(tmp_path: Path) -> None:
    secrets, ports = load_secrets(tmp_path), choose_ports({}, [])
    told = {name: service_env(name, ports, secrets, "kafka:9092", f"postgresql://{name}") for name in SERVICES}
    for provider in ("payments", "carrier"):
        sandbox, prefix = outsider_env(provider, tmp_path, ports, secrets), f"ISTHMUS_{provider.upper()}"
        assert told["order"][f"{prefix}_URL"].endswith(f":{sandbox['ISTHMUS_HTTP_PORT']}")
        assert told["order"][f"{prefix}_API_KEY"] == sandbox["SANDBOX_API_KEY"]
        assert told["order"][f"{prefix}_WEBHOOK_SECRET"] == sandbox["SANDBOX_WEBHOOK_SECRET"]
        order = f"http://127.0.0.1:{told['order']['ISTHMUS_HTTP_PORT']}"
        assert sandbox["SANDBOX_WEBHOOK_URL"] == f"{order}/webhooks/{provider}"
    smtp = outsider_env("mail", tmp_path, ports, secrets)["SANDBOX_SMTP_PORT"]
    assert told["notify"]["ISTHMUS_SMTP_URL"] == f"smtp://127.0.0.1:{smtp}"


def test_a_service_that_calls_others_is_a_client_with_their_scopes_only(tmp_path: Path) -> None:
    secrets, ports = load_secrets(tmp_path), choose_ports({}, [])
    write_clients(tmp_path, secrets)
    clients = {client["client_id"]: client for client in json.loads((tmp_path / "clients.json").read_text())}
    assert clients.keys() == CLIENTS.keys()
    for name, scopes in (("order", ["recipients:read", "holdings:read"]), ("notify", ["contacts:read"])):
        env = service_env(name, ports, secrets, "kafka:9092", "postgresql://x")
        assert clients[env["ISTHMUS_CLIENT_ID"]] == {
            "client_id": name,
            "client_secret": env["ISTHMUS_CLIENT_SECRET"],
            "scopes": scopes,
        }
        assert set(scopes) <= set(clients["demo"]["scopes"])
