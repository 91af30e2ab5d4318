"""Relay: sends again what no desk and no user has confirmed, and raises the alarm for desks.

The services that commit escalations, cases and questions publish them at once; what becomes of them
then is decided here, on their readers' word (`broker/runtime/outbox_relay.py`).
"""

from broker.runtime import outbox_relay
from broker.runtime.service import Service
from schemas import topics

service = Service("relay", niceness=2)

for confirmed in (topics.DESK_DELIVERED, topics.CITY_DELIVERED, topics.DELIVERED):
    service.on_batch(confirmed)(outbox_relay.take_receipts)
for asked in (topics.DESK_SYNC, topics.CITY_SYNC):
    service.on(asked)(outbox_relay.take_sync)
service.every(0.25)(outbox_relay.relay_due)
service.every(1.0)(outbox_relay.alarm_unattended)
