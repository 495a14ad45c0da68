"""Where entities have the version that their topic shows as the sequence."""

from shared.drift import Versions
from shared.topics import PRICES, QUOTES

OF_ORDER_PRICES = "SELECT order_id AS key, version FROM order_prices WHERE order_id = ANY($1::uuid[])"
OF_PRICES = "SELECT sku AS key, version FROM price_versions WHERE sku = ANY($1::text[])"

VERSIONS = (Versions(QUOTES, OF_ORDER_PRICES), Versions(PRICES, OF_PRICES, str))
