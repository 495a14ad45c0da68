"""A paid order is confirmed, everybody who should knows it, and nobody else knows the person."""

from __future__ import annotations

from bench.platform import SERVICES
from shared.kafka import read_all
from shared.topics import ALL_TOPICS, ORDERS
from tests.flows.market import Market, steps, until


async def test_a_paid_order_is_confirmed_and_tells_how_it_came_about(market: Market):
    lamp, cup = await market.lamps_and_cups()
    order = await market.buy((lamp, 1), (cup, 2), expected_total="37.90")
    assert (order["state"], order["total"], order["waiting_for"]) == ("confirmed", "37.90", [])
    assert steps(order) == ["OrderPlaced", "PaymentRequested", "PaymentCaptured", "OrderConfirmed"]
    assert [step["sequence"] for step in order["timeline"] if step["sequence"]][:4] == [1, 2, 3, 4]
    assert (order["payment"]["captured"], order["payment"]["refunded"]) == ("37.90", "0.00")
    assert await market.available(lamp) == 99
    assert await market.available(cup) == 98


async def test_every_event_of_an_order_names_its_cause_back_to_the_order_itself(market: Market):
    lamp, _ = await market.lamps_and_cups()
    order = await market.buy((lamp, 1))
    order_id = order["order_id"]
    caused: dict[str, tuple[str, str]] = {}  # event id: its type and its cause
    for record in await read_all(market.platform.stack.bootstrap_servers, ALL_TOPICS):
        headers = {name: value.decode() for name, value in record.headers}
        if headers["ce_correlationid"] == order_id:
            caused[headers["ce_id"]] = (headers["ce_type"].split(".")[-2], headers["ce_causationid"])
    told = {type_ for type_, _ in caused.values()}
    assert {"OrderPlaced", "BuyerSealed", "BuyerIdentified", "OrderPriced", "StockHeld", "OrderConfirmed"} <= told

    def origins(event: str) -> list[str]:
        type_, cause = caused[event]
        return [type_, *origins(cause)] if cause in caused else [type_, cause]

    chains = {origins(event)[0]: origins(event)[1:] for event in caused}
    assert chains["OrderPlaced"] == [order_id]
    assert chains["StockHeld"] == chains["OrderPriced"] == ["OrderPlaced", order_id]
    last_answer = chains["PaymentRequested"][0]
    assert last_answer in ("StockHeld", "OrderPriced", "BuyerIdentified")
    assert chains["PaymentRequested"][-1] == order_id
    placed = next(step for step in order["timeline"] if step["type"] == "PaymentRequested")
    assert caused[placed["cause"]][0] == last_answer


async def test_the_customer_has_the_order_and_its_recipient(market: Market):
    lamp, _ = await market.lamps_and_cups()
    order = await market.buy((lamp, 1))
    orders = (await market.ask("customer", "GET", f"/customers/{order['customer_id']}/orders")).json()["items"]
    assert [one["order_id"] for one in orders] == [order["order_id"]]
    recipient = (await market.ask("customer", "GET", f"/recipients/{order['recipient_id']}")).json()
    assert (recipient["name"], recipient["street"], recipient["city"]) == ("Bob", "1 High Street", "Leeds")

    async def cared_for() -> bool:
        path = f"/care?order_id={order['order_id']}"
        return bool((await market.ask("notify", "GET", path)).json()["items"])

    await until("the customer is to hear of it", cared_for)


async def test_what_is_personal_is_found_with_the_customer_service_alone_and_never_in_clear(market: Market):
    lamp, _ = await market.lamps_and_cups()
    mark = market.name("Zyx").replace("-", "")
    person = {
        "name": f"{mark}name", "street": f"{mark}street 7", "city": f"{mark}city", "region": f"{mark}region",
        "postal_code": f"ZQ9 {mark}", "country": "GB", "phone": f"+44 {mark}",
    }  # fmt: skip
    buyer = {"name": f"{mark}buyer", "email": f"{mark}@example.org", "phone": "070", "channel_id": f"{mark}id"}
    order = market.order((lamp, 1), buyer=buyer, recipient=person, note=f"{mark}: leave it with the neighbour")
    declined = market.order((lamp, 1), token="tok_declined", buyer=buyer, recipient=person, note=f"{mark} again")
    bought = await market.outcome(await market.place(order, key=market.name("key")))
    refused = await market.outcome(await market.place(declined))
    assert (bought["state"], refused["state"]) == ("confirmed", "rejected")
    readable = (await market.ask("customer", "GET", f"/recipients/{bought['recipient_id']}")).json()
    assert (readable["name"], readable["street"]) == (person["name"], person["street"])
    assert readable["note"] == order["note"]

    # Somebody has trouble with the order: what was sent must not be repeated in answers and logs either.
    for broken in ({**order, "note": f"{mark} other"}, {**order, "buyer": {"email": mark}}, {**order, "street": mark}):
        answer = await market.ask("order", "POST", "/orders", json=broken)
        assert answer.status_code in (409, 422)
        assert mark not in answer.text
    await market.ask("customer", "GET", "/customers", params={"email": buyer["email"]})

    assert await found_in_tables(market, mark) == []
    for record in await read_all(market.platform.stack.bootstrap_servers, ALL_TOPICS):
        whole = b"".join([record.key or b"", record.value or b"", *(value for _, value in record.headers)])
        assert mark.lower().encode() not in whole.lower(), f"in {record.topic}"
    files = [*market.platform.stack.directory.glob("logs/*"), *market.platform.stack.directory.glob("payments.sqlite*")]
    assert len(files) > 8
    assert [file.name for file in files if mark.lower().encode() in file.read_bytes().lower()] == []


async def found_in_tables(market: Market, mark: str) -> list[str]:
    """Tables with a row that holds ``mark`` in any column, as text or as bytes, in any case."""
    found: list[str] = []
    signs = [mark.lower(), *{part.encode().hex() for part in (mark, mark.lower(), mark.upper())}]
    for service in SERVICES:
        names = await market.rows(
            service, "SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace"
        )
        assert names
        for name in (row["relname"] for row in names):
            query = f'SELECT FROM "{name}" AS t WHERE lower(t::text) LIKE ANY($1) LIMIT 1'
            if await market.rows(service, query, [f"%{sign}%" for sign in signs]):
                found.append(f"{service}.{name}")
    return found


async def test_the_search_for_personal_data_would_find_it(market: Market):
    lamp, _ = await market.lamps_and_cups()
    order = await market.buy((lamp, 1))
    assert set(await found_in_tables(market, order["external_reference"])) >= {"order.orders"}
    placed = await read_all(market.platform.stack.bootstrap_servers, [ORDERS])
    assert any(order["external_reference"].encode() in (record.value or b"") for record in placed)
