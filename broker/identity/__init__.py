"""Who somebody is at the MQTT broker, and what they may do there."""
