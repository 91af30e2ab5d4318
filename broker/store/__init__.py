"""Redis, the truth. The only importer of redis; methods answer the domain's questions."""

from broker.store.alert_states import AlertRecord, Claimed, DeliveryState, confirm
from broker.store.conversations import Conversation, desk_spoke, fell_silent, reporter_spoke
from broker.store.dead_letters import DeadLetter, stream_topic
from broker.store.deadline_queue import Deadline, DeadlineKind, fire, schedule, schedule_no_later
from broker.store.desk_alarms import Alarm
from broker.store.history_notes import log
from broker.store.incident_store import IncidentStore, ReportCommit, add_reply
from broker.store.kernel.redis_connection import CorruptError
from broker.store.kernel.streams import StreamEntry, emit
from broker.store.kernel.transaction import Transaction
from broker.store.migrations import SCHEMA_VERSION
from broker.store.outbox_messages import OutboxMessage, Reader, Undelivered, posted
from broker.store.partitions import Partitions, open_partitions
from broker.store.positions import Hit, Update
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
    "ReportCommit",
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
    "add_receipt",
    "add_reply",
    "confirm",
    "desk_spoke",
    "emit",
    "fell_silent",
    "fire",
    "log",
    "open_partitions",
    "posted",
    "reporter_spoke",
    "schedule",
    "schedule_no_later",
    "stream_topic",
]
