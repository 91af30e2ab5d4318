"""What the sender of a message is told when it is refused."""

import re
from collections.abc import Mapping
from datetime import datetime

from msgspec import Struct

from broker.core.policy import Policy
from broker.mqtt import Message
from schemas import messages, topics
from schemas.codec import Glance, encode, glance
from schemas.messages import Outcome, Receipt
from schemas.taxonomy import Language, Urgency
from schemas.topics import Topic
from schemas.validation_errors import Code, Invalid


def refusal_of(
    message: Message,
    topic: Topic[object],
    error: Invalid,
    *,
    policy: Policy,
    broker_index: int,
    now: datetime,
) -> Message | None:
    """Return the receipt of a message on `topic` that is refused; None: it has no sender to tell.

    A report's says to call 112, in its language, as far as either can be read.
    """
    if topic.receipt is None or topic.subject is None:
        return None
    seen = glance(message.payload)
    receipt = Receipt(
        subject=topic.subject,
        outcome=Outcome.REJECTED,
        at=now,
        id=seen.id,
        advice=_advice(seen, policy) if topic is topics.REPORT else None,
        code=error.code,
        field=error.field,
        reason=error.reason,
        notes=_notes(message.payload, topic),
    )
    levels = topic.parse(message.topic)
    if levels is None:
        return _on_own_topic(message, topic, receipt, broker_index)
    return Message(
        topic.receipt.topic(**{name: levels[name] for name in topic.receipt.levels}),
        encode(receipt),
        correlation=message.correlation,
        broker_index=broker_index if "user" in levels else None,
    )


def _advice(seen: Glance, policy: Policy) -> str | None:
    category = policy.category(seen.category) if seen.category else None
    if category is not None and category.urgency is Urgency.ROUTINE:
        return None
    return policy.advice.in_language(seen.language or Language.NL)


def _notes(payload: bytes, topic: Topic[object]) -> tuple[str, ...]:
    try:
        return topic.read(payload)[1]
    except Invalid as error:
        return error.notes


# -- names that are not ours ----------------------------------------------------------------------


def _on_own_topic(
    message: Message, topic: Topic[object], receipt: Receipt, broker_index: int
) -> Message | None:
    """Return the receipt to an account or zone whose name is no valid topic level, such as `Ann`.

    The ACL lets them read their own topics, whatever the name. Nothing of ours listens on them, so
    this cannot loop.
    """
    levels = topic.parse_filtered(message.topic) or {}
    if topic.receipt is None or not all(levels.get(name) for name in topic.receipt.levels):
        return None
    answer = f"{topics.ROOT}/{topic.receipt.template.format(**levels)}"
    return Message(
        answer, encode(receipt), correlation=message.correlation, broker_index=broker_index
    )


def levels_of(topic: Topic[object], message: Message) -> Mapping[str, str]:
    """Return the levels of a message's topic.

    Raises:
        Invalid: one of them is not a valid name.
    """
    levels = topic.parse(message.topic)
    if levels is None:
        raise Invalid(
            Code.BAD_TOPIC,
            "$",
            "The name of the account or zone in the topic is not one of ours: it has 1 to 40 "
            "characters of a-z, 0-9 and -. Nothing reaches it: have it renamed.",
        )
    return levels


_FIELDS = {
    name
    for kind in vars(messages).values()
    if isinstance(kind, type) and issubclass(kind, Struct)
    for name in kind.__struct_fields__
}
_KNOWN = re.compile(r"\$|\d+|\.\.\.")


def known_path(field: str) -> str:
    """Return a JSON path for a log: every key in it that is none of the contract's as `?`.

    A path may hold keys that the sender made up, up to 16 KiB of anything.
    """
    parts = re.split(r"([.\[\]])", field) if len(field) <= 200 else ["$", ".", "…"]
    return "".join(
        part if part in _FIELDS or part in ("", ".", "[", "]") or _KNOWN.fullmatch(part) else "?"
        for part in parts
    )


def shape_of(topic: str) -> str:
    """Return the topic with the shape of its name ("Aaa.9?" for "Ann.1é"): a log names nobody."""
    before, _, rest = topic.removeprefix(f"{topics.ROOT}/").partition("/")
    name, _, after = rest.partition("/")
    for pattern, one in (("[a-z]", "a"), ("[A-Z]", "A"), ("[0-9]", "9"), (r"[^aA9._@ -]", "?")):
        name = re.sub(pattern, one, name)
    return f"{before}/{name if len(name) <= 44 else f'{name[:44]}…'}/{after}"
