"""Benchmarks: how many orders, how soon, with how much; each held against its goal."""
