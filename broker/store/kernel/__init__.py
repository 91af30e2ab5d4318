"""What every question to Redis stands on: connection, keys, transaction, streams, scripts."""
