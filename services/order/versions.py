"""Where entities have the version that their topic shows as the sequence."""

from shared.drift import Versions
from shared.topics import ORDERS

OF_ORDERS = "SELECT order_id AS key, version FROM orders WHERE order_id = ANY($1::uuid[])"

VERSIONS = (Versions(ORDERS, OF_ORDERS),)
