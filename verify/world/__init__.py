"""Simulated people: how they move, decide and connect."""
