"""The fault matrix: load, a fault, healing, and what the invariants say afterwards."""
