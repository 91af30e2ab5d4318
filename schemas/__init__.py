"""The contract: every payload, every topic, and the categories of what can be reported.

Devices, services and tools share this package and nothing else.
"""
