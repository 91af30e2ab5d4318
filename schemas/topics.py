"""Every topic, once: one row each. `schemas/topic.py` says what the columns mean.

Subscriptions, access rights, receipts, home partitions and documents follow from these rows.
"""

from typing import Any

from schemas import messages
from schemas.roles import Role
from schemas.topic import LEVEL, ROOT, Topic, distinct

__all__ = ["LEVEL", "ROOT", "Topic", "distinct"]  # for those that read the table

_PARTICIPANT, _POLICE_DESK, _CITY_DESK = Role.PARTICIPANT, Role.POLICE_DESK, Role.CITY_DESK
_OPERATOR, _SERVICE = Role.OPERATOR, Role.SERVICE

RECEIPT = Topic("u/{user}/down/receipt", messages.Receipt, _SERVICE, _PARTICIPANT)
COMMAND_RECEIPT = Topic(
    "police/{zone}/receipt", messages.Receipt, _SERVICE, _POLICE_DESK, service="police or relay"
)
CITY_RECEIPT = Topic(
    "city/{municipality}/receipt", messages.Receipt, _SERVICE, _CITY_DESK, service="relay"
)
REPORT = Topic(
    "u/{user}/up/report",
    messages.Report,
    _PARTICIPANT,
    _SERVICE,
    service="intake",
    receipt=RECEIPT,
    partition="location",
)
PRESENCE = Topic(
    "u/{user}/up/presence",
    messages.Presence,
    _PARTICIPANT,
    _SERVICE,
    service="presence",
    receipt=RECEIPT,
)
REPLY = Topic(
    "u/{user}/up/reply",
    messages.Reply,
    _PARTICIPANT,
    _SERVICE,
    service="groups",
    receipt=RECEIPT,
    partition="incident",
)
MESSAGE = Topic(
    "u/{user}/up/message",
    messages.GroupMessage,
    _PARTICIPANT,
    _SERVICE,
    service="groups",
    receipt=RECEIPT,
    partition="incident",
)
ANSWER = Topic(
    "u/{user}/up/answer",
    messages.Answer,
    _PARTICIPANT,
    _SERVICE,
    service="police",
    receipt=RECEIPT,
    partition="question",
)
SYNC = Topic(
    "u/{user}/up/sync", messages.Sync, _PARTICIPANT, _SERVICE, service="groups", receipt=RECEIPT
)
DELIVERED = Topic(
    "u/{user}/up/receipt",
    messages.DeliveryReceipt,
    _PARTICIPANT,
    _SERVICE,
    service="relay",
    receipt=RECEIPT,
)
ALERT = Topic("u/{user}/down/alert", messages.Alert, _SERVICE, _PARTICIPANT, service="alerting")
BRIEF = Topic("u/{user}/down/brief", messages.Brief, _SERVICE, _PARTICIPANT, service="alerting")
GROUP = Topic("u/{user}/down/group", messages.GroupEvent, _SERVICE, _PARTICIPANT, service="groups")
QUESTION = Topic(
    "u/{user}/down/question", messages.Question, _SERVICE, _PARTICIPANT, service="police"
)
ESCALATION = Topic(
    "police/{zone}/escalation/{priority}", messages.Escalation, _SERVICE, _POLICE_DESK
)
INCIDENT = Topic(
    "police/{zone}/incident/{incident}",
    messages.IncidentState,
    _SERVICE,
    _POLICE_DESK,
    service="police",
    retain=True,
)
COMMAND: Topic[Any] = Topic(
    "police/{zone}/command",
    messages.PoliceCommand,  # type: ignore[arg-type]  # a union, not a class
    _POLICE_DESK,
    _SERVICE,
    service="police",
    receipt=COMMAND_RECEIPT,
    partition="incident",
)
DESK_DELIVERED = Topic(
    "police/{zone}/up/receipt",
    messages.DeliveryReceipt,
    _POLICE_DESK,
    _SERVICE,
    service="relay",
    receipt=COMMAND_RECEIPT,
)
DESK_SYNC = Topic(
    "police/{zone}/up/sync",
    messages.DeskSync,
    _POLICE_DESK,
    _SERVICE,
    service="relay",
    receipt=COMMAND_RECEIPT,
)
CASE = Topic("city/{municipality}/case/{category}", messages.Case, _SERVICE, _CITY_DESK)
CITY_DELIVERED = Topic(
    "city/{municipality}/up/receipt",
    messages.DeliveryReceipt,
    _CITY_DESK,
    _SERVICE,
    service="relay",
    receipt=CITY_RECEIPT,
)
CITY_SYNC = Topic(
    "city/{municipality}/up/sync",
    messages.DeskSync,
    _CITY_DESK,
    _SERVICE,
    service="relay",
    receipt=CITY_RECEIPT,
)
UNATTENDED = Topic(
    "ops/unattended/{desk}/{zone}",
    messages.Unattended,
    _SERVICE,
    _OPERATOR,
    service="relay",
    retain=True,
)
SERVICE = Topic(
    "ops/service/{name}/{instance}", messages.ServiceStatus, _SERVICE, _OPERATOR, retain=True
)
PROBE = Topic("ops/probe/{name}/{instance}", messages.Probe, _SERVICE, _SERVICE)
REJECTED = Topic("ops/rejected/{service}", messages.Rejection, _SERVICE, _OPERATOR)


TOPICS: tuple[Topic[Any], ...] = distinct(
    (
        REPORT,
        PRESENCE,
        REPLY,
        MESSAGE,
        ANSWER,
        SYNC,
        DELIVERED,
        RECEIPT,
        ALERT,
        BRIEF,
        GROUP,
        QUESTION,
        ESCALATION,
        INCIDENT,
        COMMAND,
        COMMAND_RECEIPT,
        DESK_DELIVERED,
        DESK_SYNC,
        CASE,
        CITY_RECEIPT,
        CITY_DELIVERED,
        CITY_SYNC,
        UNATTENDED,
        SERVICE,
        PROBE,
        REJECTED,
    )
)


def template_of(topic: str) -> str:
    """Return the template of `topic`, which a log may have since it names no user."""
    return next((one.template for one in TOPICS if one.parse(topic) is not None), "?")
