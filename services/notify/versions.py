"""Where entities have the version that their topic shows as the sequence."""

from shared.drift import Versions
from shared.topics import CARE

OF_CARE = "SELECT order_id AS key, version FROM care_orders WHERE order_id = ANY($1::uuid[])"

VERSIONS = (Versions(CARE, OF_CARE),)
