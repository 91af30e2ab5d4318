"""What had to happen, derived again from docs/protocol.md by slow and plain means."""
