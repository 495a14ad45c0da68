"""Where entities have the version that their topic shows as the sequence."""

from shared.drift import Versions
from shared.topics import HOLDS, ITEMS, STOCK

OF_HOLDS = "SELECT order_id AS key, version FROM holds WHERE order_id = ANY($1::uuid[])"
OF_STOCK = "SELECT sku AS key, stock_version AS version FROM items WHERE sku = ANY($1::text[])"
OF_ITEMS = "SELECT sku AS key, version FROM items WHERE sku = ANY($1::text[])"

VERSIONS = (Versions(HOLDS, OF_HOLDS), Versions(STOCK, OF_STOCK, str), Versions(ITEMS, OF_ITEMS, str))
