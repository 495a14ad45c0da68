"""A sandbox payment provider with the manners of a real one: slow, late, duplicate, lost, and truthful when asked."""
