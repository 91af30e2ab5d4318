"""A small MQTT broker for one machine, which keeps its word: MQTT 5 and 3.1.1 on one port.

The state machine knows no socket, clock or dice: `EdgeBroker` takes bytes and the time, and gives
bytes and journal records. `server` runs it on sockets, `journal` keeps what a PUBACK has promised.
Section numbers are those of MQTT Version 5.0 (OASIS, 2019).
"""
