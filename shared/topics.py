"""Every topic of the platform: who owns it, what it says, and which key orders it."""

from shared.events.customer import CustomerEvent, IdentificationEvent, SealingKeyEvent
from shared.events.inventory import HoldEvent, ItemEvent, StockEvent
from shared.events.notify import CareEvent
from shared.events.order import BuyerSealed, OrderEvent, SealingKeyRetired
from shared.events.pricing import DemandEvent, LineDemanded, PriceEvent, QuoteEvent
from shared.messages import DAY_MS, Event, Topic

LARGE = 4 * 1_048_576  # bytes: an order of 2,000 lines, priced or spread over warehouses, is more than the usual 1 MiB

ORDERS: Topic[OrderEvent] = Topic(
    "isthmus.order.order.v1", owner="order", key="order_id", union=OrderEvent,
    max_message_bytes=LARGE,
    about="The life of every order, from placed to closed: answers, payment, parcels, its end.",
)  # fmt: skip
INTAKE: Topic[BuyerSealed] = Topic(
    "isthmus.order.intake.v1", owner="order", key="order_id", union=BuyerSealed, retention_ms=7 * DAY_MS, public=False,
    about="Buyers and recipients of new orders, sealed for the customer service; kept for a week only.",
)  # fmt: skip
RETIRED_KEYS: Topic[SealingKeyRetired] = Topic(
    "isthmus.order.retired-key.v1", owner="order", key="key_id", union=SealingKeyRetired, partitions=1, public=False,
    about="Sealing keys that nothing waits for any more.",
)  # fmt: skip

HOLDS: Topic[HoldEvent] = Topic(
    "isthmus.inventory.hold.v1", owner="inventory", key="order_id", union=HoldEvent,
    max_message_bytes=LARGE,
    about="What stock every order got, gave back, and what left the warehouse for it.",
)  # fmt: skip
STOCK: Topic[StockEvent] = Topic(
    "isthmus.inventory.stock.v1", owner="inventory", key="sku", union=StockEvent,
    about="Stock levels per SKU, in absolute values.",
)  # fmt: skip
ITEMS: Topic[ItemEvent] = Topic(
    "isthmus.inventory.item.v1", owner="inventory", key="sku", union=ItemEvent,
    about="The product master.",
)  # fmt: skip

IDENTIFICATIONS: Topic[IdentificationEvent] = Topic(
    "isthmus.customer.identification.v1", owner="customer", key="order_id", union=IdentificationEvent,
    about="Who placed every order, and the points it took and earned.",
)  # fmt: skip
CUSTOMERS: Topic[CustomerEvent] = Topic(
    "isthmus.customer.customer.v1", owner="customer", key="customer_id", union=CustomerEvent,
    about="Customers, their tiers and consents; no personal data.",
)  # fmt: skip
SEALING_KEYS: Topic[SealingKeyEvent] = Topic(
    "isthmus.customer.sealing-key.v1", owner="customer", key="key_id", union=SealingKeyEvent, partitions=1,
    public=False, about="Public keys with which new orders' personal data is sealed.",
)  # fmt: skip

QUOTES: Topic[QuoteEvent] = Topic(
    "isthmus.pricing.quote.v1", owner="pricing", key="order_id", union=QuoteEvent,
    max_message_bytes=LARGE,
    about="What every order costs.",
)  # fmt: skip
PRICES: Topic[PriceEvent] = Topic(
    "isthmus.pricing.price.v1", owner="pricing", key="sku", union=PriceEvent,
    about="Changes of the price lists.",
)  # fmt: skip

CARE: Topic[CareEvent] = Topic(
    "isthmus.notify.care.v1", owner="notify", key="order_id", union=CareEvent,
    about="Care that was triggered for customers, and what became of it.",
)  # fmt: skip

# Signals: derived, rebuildable, written by the demand process without an outbox; their sequence says nothing.
DEMAND_LINES: Topic[LineDemanded] = Topic(
    "isthmus.pricing.demand-line.v1", owner="pricing", key="sku", union=LineDemanded, retention_ms=7 * DAY_MS,
    public=False, about="Lines of orders by SKU: the demand process counts them.",
)  # fmt: skip
DEMAND: Topic[DemandEvent] = Topic(
    "isthmus.pricing.demand.v1", owner="pricing", key="sku", union=DemandEvent, retention_ms=30 * DAY_MS,
    about="Units asked for per SKU and window of time.",
)  # fmt: skip


def dead_letters(service: str) -> Topic[Event]:
    """Where a service puts aside what it cannot read: one partition, and room for more than any source's largest."""
    return Topic(
        f"isthmus.{service}.dead-letter.v1", owner=service, key="", union=(), partitions=1, public=False,
        max_message_bytes=LARGE + 2 * 1_048_576, about=f"Messages that {service} could not apply, byte for byte.",
    )  # fmt: skip


SERVICES = ("order", "inventory", "customer", "pricing", "notify")
DOMAIN_TOPICS = (
    ORDERS, INTAKE, RETIRED_KEYS, HOLDS, STOCK, ITEMS, IDENTIFICATIONS, CUSTOMERS, SEALING_KEYS, QUOTES, PRICES, CARE,
)  # fmt: skip
SIGNALS = (DEMAND_LINES, DEMAND)
TOPICS = (*DOMAIN_TOPICS, *SIGNALS)
ALL_TOPICS = (*TOPICS, *(dead_letters(service) for service in SERVICES))
