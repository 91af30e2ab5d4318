"""Who a client is at the MQTT broker, and what it may do there."""
