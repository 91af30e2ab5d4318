"""The demonstration: what happens in it, and what is shown of it."""
