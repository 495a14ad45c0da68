"""A consumer that hears some events only hears all of those that its service's decisions speak of."""

from __future__ import annotations

import ast
import importlib
import inspect
from collections.abc import Iterable, Mapping

import pytest

from services.customer import handlers as customer_handlers
from shared.consume import Subscription
from shared.contracts.services import all_parts

# Where what follows from an event is decided: by the classes that a `match` names there.
DECIDED_IN = {
    "hold_stock": "services.inventory.decisions",
    "price_orders": "services.pricing.decisions",
    "identify_buyers": "services.customer.decisions",
    "trigger_care": "services.notify.decisions",
}


@pytest.fixture(scope="module")
def choosy() -> Mapping[str, Subscription]:
    found = {
        one.name: one
        for parts in all_parts().values()
        for one in parts.consumers.subscriptions
        if one.hears is not None
    }
    assert set(found) == set(DECIDED_IN)
    return found


def _named(source: str) -> Iterable[str]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.MatchClass) and isinstance(node.cls, ast.Name):
            yield node.cls.id


@pytest.mark.parametrize("name", DECIDED_IN)
def test_what_is_decided_upon_is_heard(choosy: Mapping[str, Subscription], name: str):
    subscription = choosy[name]
    assert subscription.hears is not None
    source = inspect.getsource(importlib.import_module(DECIDED_IN[name]))
    sources = [source, inspect.getsource(customer_handlers)] if name == "identify_buyers" else [source]
    named = {class_ for one in sources for class_ in _named(one)}
    carried = [(type_, event) for topic in subscription.topics for type_, event in topic.events.items()]
    wanted = {type_ for type_, event in carried if event.__name__ in named}
    assert wanted
    assert wanted <= subscription.hears, f"not heard: {sorted(wanted - subscription.hears)}"
