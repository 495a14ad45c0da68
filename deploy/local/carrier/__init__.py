"""A sandbox carrier with the manners of a real one: its parcels move by themselves, come late, and get lost."""
