"""Chaos: real processes killed at random moments, and a judge who trusts nobody but the devices."""
