"""The whole system in virtual time: what may go wrong goes wrong, by a seed, and replays.

Real: whole workers down to the bytes that they send, and our MQTT broker's state machine with its
recovery. Modelled: the clock, the network, Redis, disks, devices and desks. The checker reads what
devices and desks have logged and what went over the wire, and nothing of the broker's.
"""
