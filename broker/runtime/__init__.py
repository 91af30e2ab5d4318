"""How services are declared, dispatched, run, acknowledged and measured."""
