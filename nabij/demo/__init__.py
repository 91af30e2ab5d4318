"""The demonstration: its scenario and its display."""
