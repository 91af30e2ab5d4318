"""The other end of the wire: devices, a police desk, a crowd, and replay with its oracle."""
