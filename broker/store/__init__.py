"""Redis, the truth. The only importer of redis; methods answer the domain's questions.

Every key begins with the tag of its partition, `nabij:{p0}:` of the first. What concerns an incident
is in the partition of the region that its id names, what is filed by place in that of the place.

| key | type | holds | lives |
|---|---|---|---|
| `receipt:{message}` | hash | user, digest, body of the receipt, sequence, cause; or the region to which a report at a border was routed | 7 days |
| `sequence` | string | how many reports were committed whose receipt has a number | for ever |
| `sequence-apart` | string | how many others: of incidents without a group | for ever |
| `incident:{conversation}` | hash | of a reporter's own conversation about an incident without a group: `of` that incident, `report`, `told`; with `people` and `group` of the same id | as incident |
| `incident:{incident}` | hash | `v` version, `incident` JSON, `active` ms of the last activity, `told` ms of the last group event, `stated` version of the retained state; `conversation:{user}` of a reporter who had a group before schema version 3 | retention after close |
| `open:{cell8}` | hash | incident whose alerts reach in → lat, lon, radius, since ms | while open |
| `join:{kind}:{cell9}` | hash | incident near enough to join → lat, lon; `#` is the latest opened | while open |
| `open-incidents` | zset | incident by opening ms | while open |
| `people:{incident}` | hash | user → Member JSON: alerted, reporter, helper, left | as incident |
| `alerts:{incident}` | hash | user → state (`c` claimed, `s` sent, `r` refused, `x` expired), wave, reason, ms claimed, ms of the state, tries, PUBACK reason code | as incident |
| `delivered:{incident}` | hash | user → ms of the first word of their device that it has the alert | as incident |
| `unconfirmed` | zset | incident with alerts that are neither confirmed nor expired, by when somebody must look (ms) | until all are |
| `history:{incident}` | list | Note JSON: what happened and why, the newest 2,000 | as incident |
| `reports:{incident}` | hash | report → user and Report JSON | as incident |
| `group:{incident}` | list | GroupEvent JSON, the n-th has sequence n | as incident |
| `question:{question}` | hash | user, Question JSON | 7 days |
| `asked:{user}` | zset | the newest 50 questions to a user by ms | 7 days |
| `involved:{user}` | zset | incident by ms | retention |
| `at:{cell9}` | hash | user → child of resolution 10, availability, ms | presence lifetime, a fifth more at most |
| `where:{bucket}` | hash | user → cell9, child, availability, ms, ms received, what the last withdrawal said (ms) | as `at` |
| `home:{bucket}` | hash | user, of those whom the partition looks after → the partition in which they are, ms, whether withdrawn, what the last withdrawal said; only with several | as `at` |
| `short-forms` | zset | user who wants short alerts too by ms when they asked, in the first | 30 days |
| `border:{category}` | hash | whoever decides on reports at the partition's borders | 3 s |
| `partitions` | string | in how many everything is filed, in the first | for ever |
| `schema-version` | string | the version of the layout of all this (`broker.store.migrations`), in the first | for ever |
| `migrating` | string | the process that migrates what an older release has stored, in the first | 10 s |
| `events:{service}` | stream | `broker.core.changes` for that service, with its consumer group | until acknowledged |
| `deadlines` | zset | `kind incident` by due ms | until fired |
| `outbox` | zset | message id by ms from when the police service sends it again | until its reader confirms it, 72 hours at most |
| `outbox-messages` | hash | message id → topic, payload, ms of its commit, attended | as outbox |
| `outbox-tries` | hash | message id → how often the police service has sent it | as outbox |
| `undelivered:{desk}` | zset | message id by ms of its commit: sent by the police service, and not confirmed | as outbox |
| `undelivered-readers` | hash | desks that have such → nothing | until they have none |
| `attended:{desk}` | zset | message id by ms of its commit: confirmed by the duty desk alone | as outbox |
| `unattended` | hash | desk → ms since when the alarm stands, ms when operators were last told; in the first | until all is confirmed |
| `desks-heard` | hash | desk → ms of its last receipt, sync or command; in the first | for ever |
| `dropped` | string | how many messages the MQTT broker had dropped when that was healed | for ever |
| `restored` | string | last time (ms) at which the MQTT broker was known to have been given everything anew | for ever |
| `restoring` | string | somebody is about to give it everything anew | 5 s |
| `retained` | string | a worker looks for retained messages | 10 s |
| `dead-letters` | hash | id → DeadLetter, the newest 10,000, 64 MiB at most | until dropped or replayed; 30 days |
| `dead-letter-times` | zset | id by ms | as dead-letters |
| `dead-letters-of:{sender}` | zset | id by ms: of one sender at most 200 | 30 days after the last |
| `dead-letter-replay:{token}` | string | the dead letter whose replay carries this secret | until it has worked; 1 day |
| `dead-letter-counts` | hash | `bytes` kept, `dropped` for want of room | for ever |
| `workers:{service}` | hash | client id and MQTT broker → WorkerSession JSON, in the first | until its session has ended, and a day more |
| `worker-beats:{service}` | hash | client id and MQTT broker → ms of its last sign of life | as workers |
| `zones` | hash | zone → name, kind, cells | until imported anew |
| `clock-jump` | string | the last jump of the clock that came to count: until when (ms) the time before did, and by how much (ms) it moved | 8 days |
| `probe` | string | when a worker last made sure that this server writes (Unix s) | 60 s |
| `zones-version` | string | how often zones were imported | for ever |
"""

from broker.store.alert_states import AlertRecord, Claimed, DeliveryState, confirm
from broker.store.conversations import Conversation
from broker.store.dead_letters import DeadLetter, stream_topic
from broker.store.deadline_queue import Deadline, DeadlineKind, fire, schedule, schedule_no_later
from broker.store.desk_alarms import Alarm
from broker.store.history_notes import log
from broker.store.incident_store import IncidentStore, add_reply
from broker.store.kernel.redis_connection import CorruptError
from broker.store.kernel.streams import StreamEntry, emit
from broker.store.kernel.transaction import Transaction
from broker.store.migrations import SCHEMA_VERSION
from broker.store.outbox import OutboxMessage, Reader, Undelivered, posted
from broker.store.partitions import Partitions, open_partitions
from broker.store.positions import Hit, Update
from broker.store.questions import add_question
from broker.store.receipt_records import KnownReceipt, ReceiptRecord, add_receipt
from broker.store.store import Opening, Store
from broker.store.stored_incident import Neighbourhood, People, StoredIncident, StoredReport
from broker.store.sync_rows import SyncEvents, SyncRow
from broker.store.worker_sessions import Registered, WorkerSession, WorkerState, WorkerStore

__all__ = [
    "SCHEMA_VERSION",
    "Alarm",
    "AlertRecord",
    "Claimed",
    "Conversation",
    "CorruptError",
    "DeadLetter",
    "Deadline",
    "DeadlineKind",
    "DeliveryState",
    "Hit",
    "IncidentStore",
    "KnownReceipt",
    "Neighbourhood",
    "Opening",
    "OutboxMessage",
    "Partitions",
    "People",
    "Reader",
    "ReceiptRecord",
    "Registered",
    "Store",
    "StoredIncident",
    "StoredReport",
    "StreamEntry",
    "SyncEvents",
    "SyncRow",
    "Transaction",
    "Undelivered",
    "Update",
    "WorkerSession",
    "WorkerState",
    "WorkerStore",
    "add_question",
    "add_receipt",
    "add_reply",
    "confirm",
    "emit",
    "fire",
    "log",
    "open_partitions",
    "posted",
    "schedule",
    "schedule_no_later",
    "stream_topic",
]
