"""Who is told to go through which proxy."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

from bench.faults.wiring import links
from deploy.local import kafka
from deploy.local.stack import Stack


def test_each_process_is_told_the_proxy_and_the_proxy_its_target(tmp_path: Path):
    stack = Stack(tmp_path)
    wired = links(stack)
    ours = [listen for listen, _ in wired.ports.values()]
    assert len({*ours, *stack.ports.values()}) == len(ours) + len(stack.ports)
    for proxy, of in {"order-postgres": "postgres", "notify-mail": "mail_smtp", "carrier-order": "order"}.items():
        assert wired.ports[proxy][1] == stack.ports[of]
    before, told = urlsplit(stack.env("order")["ISTHMUS_DATABASE_URL"]), wired.env["order"]["ISTHMUS_DATABASE_URL"]
    assert urlsplit(told).port == wired.ports["order-postgres"][0]
    assert told.replace(str(urlsplit(told).port), str(before.port)) == before.geturl()
    assert wired.env["payments"]["SANDBOX_WEBHOOK_URL"].endswith("/webhooks/payments")
    for name, env in wired.env.items():
        assert env.keys() <= stack.env(name).keys()


def test_kafka_sends_the_clients_of_a_link_to_its_proxy():
    lines = kafka._settings(Path("/data"), 1, 2, {"order": (3, 4)}).splitlines()
    assert "listeners=BROKER://127.0.0.1:1,CONTROLLER://127.0.0.1:2,ORDER://127.0.0.1:3" in lines
    assert "advertised.listeners=BROKER://127.0.0.1:1,ORDER://127.0.0.1:4" in lines
    assert "listener.security.protocol.map=BROKER:PLAINTEXT,CONTROLLER:PLAINTEXT,ORDER:PLAINTEXT" in lines


def test_without_links_kafka_knows_of_none():
    assert "advertised.listeners=BROKER://127.0.0.1:1\n" in kafka._settings(Path("/data"), 1, 2, {})
