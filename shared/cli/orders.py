"""``isthmus order``: an order, and why what happened to it happened."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Annotated, Any
from uuid import UUID

import typer
from rich.console import RenderableType
from rich.table import Table

from shared.cli import timeline
from shared.cli.connection import CliError, Connection, NotFoundError
from shared.cli.output import AsJson, cells, console, duration, moment, show_error, show_json, table
from shared.cli.timeline import Happened, Named
from shared.envelope import Record
from shared.kafka import read_key

app = typer.Typer(no_args_is_help=True)
SKUS_SHOWN = 5  # of a parcel; the lines are shown anyway
EARLIER = timedelta(minutes=10)  # Kafka's clock and the database's may differ by so much

Reference = Annotated[str, typer.Argument(metavar="ORDER", help="Its id, or the external reference.")]


@app.callback()
def group() -> None:
    """Orders: what became of them, when, and why."""


@app.command("show")
def show(
    context: typer.Context, order: Reference,
    channel: Annotated[str | None, typer.Option(help="Whose reference it is, where several channels use it.")] = None,
    kafka: Annotated[bool, typer.Option(help="Look into Kafka for the other services' events.")] = True,
    as_json: AsJson = False,
) -> None:  # fmt: skip
    """An order with its lines, payment, parcels, and its timeline: what happened when, and because of what."""
    connection: Connection = context.obj
    found = find(connection, order, channel)
    order_id = UUID(found["order_id"])
    records = _records(connection, found) if kafka else None
    events = timeline.merged(
        timeline.of_order(order_id, found["timeline"]), timeline.of_kafka(records) if records is not None else []
    )
    names = timeline.causes(order_id, events)
    start = datetime.fromisoformat(found["recorded_at"])
    if as_json:
        show_json({"order": found, "timeline": rows(events, names, start), "kafka": records is not None})
        return
    out = console()
    for part in (*_header(found), lines_table(found), *_payment(found), *parcels_table(found)):
        out.print(part)
    out.print(timeline_table(events, names, start))


def find(connection: Connection, order: str, channel: str | None = None) -> dict[str, Any]:
    """The order with this id or external reference. Raises CliError where there is none, or several."""
    if is_id(order):
        try:
            return connection.get("order", f"/orders/{order}")
        except NotFoundError:  # a channel's reference may look like an id
            pass
    page = connection.get("order", "/orders", external_reference=order, channel=channel, limit=10)["items"]
    if not page:
        raise CliError(f"no order has the id or the external reference {order}" + (f" in {channel}" if channel else ""))
    if len(page) > 1:
        where = ", ".join(f"{one['channel']} {one['order_id']}" for one in page)
        raise CliError(f"several orders have the reference {order}; say --channel, or the id: {where}")
    return connection.get("order", f"/orders/{page[0]['order_id']}")


def is_id(text: str) -> bool:
    """Whether it may be an order's id; a channel's reference may look like one, too."""
    try:
        UUID(text)
    except ValueError:
        return False
    return True


def _records(connection: Connection, order: Mapping[str, Any]) -> Sequence[Record] | None:
    """The order's records in Kafka; None where it cannot be asked, and stderr says why."""
    since = datetime.fromisoformat(order["recorded_at"]) - EARLIER
    try:
        return connection.kafka(lambda address: read_key(address, timeline.OF_ORDERS, order["order_id"], since))
    except CliError as error:
        show_error(f"only the order's own events are shown: {error}")
        return None


def rows(events: Sequence[Happened], names: Mapping[UUID, Named], start: datetime) -> list[dict[str, Any]]:
    """The timeline for programs; times in milliseconds."""
    before = start
    found: list[dict[str, Any]] = []
    for one in events:
        cause = names.get(one.cause) if one.cause is not None else None
        found.append(
            {
                "service": one.service, "type": one.type, "id": one.id, "sequence": one.sequence,
                "recorded_at": one.recorded_at, "after_ms": _milliseconds(one.recorded_at - start),
                "since_previous_ms": _milliseconds(one.recorded_at - before),
                "cause": {
                    "id": one.cause, "type": cause.type if cause else None, "service": cause.service if cause else None
                },
            }
        )  # fmt: skip
        before = one.recorded_at
    return found


def _milliseconds(span: timedelta) -> float:
    return round(span.total_seconds() * 1000, 1)


def timeline_table(events: Sequence[Happened], names: Mapping[UUID, Named], start: datetime) -> Table:
    """Times after the start, and since the event before; causes by name."""
    made = table("after", "took", "event", "service", "because of", right="after took", title="\nTimeline")
    before = start
    why = timeline.reasons(events, names)
    for one in events:
        after, took = duration(one.recorded_at - start), duration(one.recorded_at - before)
        made.add_row(*cells(after, took, one.type, one.service, why[one.id]))
        before = one.recorded_at
    return made


def _header(order: Mapping[str, Any]) -> Sequence[RenderableType]:
    facts: dict[str, Any] = {
        "order": order["order_id"],
        "reference": f"{order['external_reference']} of {order['channel']}",
        "state": ", ".join(str(one) for one in (order["state"], order["reason"], *_under_way(order)) if one),
        "total": None if order["total"] is None else f"{order['total']} {order['currency']}",
        "cancelled": _amount(order["cancelled_amount"], order["currency"]),
        "customer": order["customer_id"],
        "fulfilment": order["fulfilment"],
        "placed": f"{moment(order['placed_at'])} UTC",
        "recorded": f"{moment(order['recorded_at'])} UTC",
        "waits for": ", ".join(order["waiting_for"]),
        "deadline": moment(order["deadline_at"]),
    }
    if facts["recorded"] == facts["placed"]:
        del facts["recorded"]
    made = Table.grid(padding=(0, 2))
    made.add_column(style="dim")
    made.add_column(overflow="fold")
    for name, value in facts.items():
        if value:
            made.add_row(name, *cells(value))
    return (made,)


def _under_way(order: Mapping[str, Any]) -> Sequence[str]:
    """What the state does not tell."""
    return [
        *(["settled"] if order["settled"] else []),
        *(["waits for the carrier to give parcels back"] if order["cancellation_pending"] else []),
    ]


def _amount(amount: str | None, currency: str) -> str | None:
    """An amount with its currency; None for nothing."""
    return None if amount is None or float(amount) == 0 else f"{amount} {currency}"


def lines_table(order: Mapping[str, Any]) -> Table:
    columns = ("line", "sku", "quantity", "cancelled", "unit price", "discount", "total", "tax")
    made = table(*columns, title="\nLines")
    for index in (0, *range(2, len(columns))):
        made.columns[index].justify = "right"
    for line in order["lines"]:
        made.add_row(
            *cells(
                line["line"], line["sku"], line["quantity"], line["cancelled"] or None, line["unit_price"],
                _amount(line["discount"], ""), line["total"], line["tax"],
            )
        )  # fmt: skip
    return made


def _payment(order: Mapping[str, Any]) -> Sequence[RenderableType]:
    payment = order["payment"]
    if payment is None:
        return ()
    made = table("provider", "state", "amount", "captured", "refunded", right="amount captured refunded",
                 title="\nPayment")  # fmt: skip
    amounts = [f"{payment[name]} {order['currency']}" for name in ("amount", "captured", "refunded")]
    made.add_row(*cells(payment["provider"], payment["state"], *amounts))
    return (made,)


def parcels_table(order: Mapping[str, Any]) -> Sequence[RenderableType]:
    """The parcels, where the order has any."""
    if not order["parcels"]:
        return ()
    made = table("no", "warehouse", "carrier", "tracking", "state", "promised (UTC)", "items", title="\nParcels")
    for one in order["parcels"]:
        items = "\n".join(f"{quantity} {sku}" for sku, quantity in sorted(one["items"].items()))
        if len(one["items"]) > SKUS_SHOWN:
            items = f"{sum(one['items'].values())} units of {len(one['items'])} SKUs"
        state = f"{one['state']}, late" if one["late"] else one["state"]
        promised = moment(one["promised_at"])
        made.add_row(*cells(one["number"], one["warehouse"], one["carrier"], one["tracking"], state, promised, items))
    return (made,)
