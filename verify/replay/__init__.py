"""Real streams replayed against the whole of Nabij, and judged."""
