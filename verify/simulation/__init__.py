"""The whole system in virtual time: what may go wrong goes wrong, by a seed, and replays.

Real: the handlers of `services`, `broker.runtime.dispatch`, `broker.store`, `broker.core`; in a
second, lower simulation `broker.mqtt.session`. Modelled: the clock, the network, Redis, the MQTT
broker, devices and desk. The checker reads what devices and desk have logged, and nothing of the
broker's.
"""
