"""Where entities have the version that their topic shows as the sequence."""

from shared.drift import Versions
from shared.topics import CUSTOMERS, IDENTIFICATIONS

OF_IDENTIFICATIONS = "SELECT order_id AS key, version FROM identifications WHERE order_id = ANY($1::uuid[])"
OF_CUSTOMERS = "SELECT customer_id AS key, version FROM customers WHERE customer_id = ANY($1::uuid[])"

VERSIONS = (Versions(IDENTIFICATIONS, OF_IDENTIFICATIONS), Versions(CUSTOMERS, OF_CUSTOMERS))
