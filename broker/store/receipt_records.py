"""The outcome of each message, kept longer than any device repeats it."""

from collections.abc import Sequence
from typing import NamedTuple
from uuid import UUID

import msgspec

from broker.store.kernel.keys import Keys
from broker.store.kernel.redis_connection import Word
from broker.store.kernel.transaction import CallResult, Transaction
from schemas.messages import Receipt

RECEIPT_LIFETIME_S = 7 * 86_400

_ENCODE = msgspec.json.Encoder().encode
_RECEIPT = msgspec.json.Decoder(Receipt)


class KnownReceipt(NamedTuple):
    """The outcome of an earlier message: its sender, digest, receipt and group event."""

    user: str
    digest: str
    receipt: Receipt
    group_sequence: int | None


class ReceiptRecord(NamedTuple):
    """What is kept of a device's message, so that a repeat gets the same receipt."""

    message: UUID
    user: str
    digest: str
    receipt: Receipt
    group_sequence: int | None = None


def add_receipt(
    transaction: Transaction, filing: ReceiptRecord, *, sequence: CallResult | None = None
) -> None:
    """Add to `transaction` the receipt of a message, which must not have one yet.

    `sequence` is a placeholder for that of the commit.
    """
    key = transaction.keys.receipt(filing.message)
    transaction.require_absent(key)
    body = _ENCODE(filing.receipt)
    words: list[Word] = ["user", filing.user, "digest", filing.digest, "body", body]
    if filing.group_sequence is not None:
        words += ("group", filing.group_sequence)
    if sequence is None:
        transaction.call("HSET", key, *words)
    else:
        transaction.call_with(sequence, "HSET", key, *words, "sequence")
    transaction.call("EXPIRE", key, RECEIPT_LIFETIME_S)


def add_route(transaction: Transaction, message: UUID, region: int) -> None:
    """Add to `transaction` the route of a message to another region, if it has no receipt yet."""
    key = transaction.keys.receipt(message)
    transaction.require_absent(key)
    transaction.call("HSET", key, "region", region)
    transaction.call("EXPIRE", key, RECEIPT_LIFETIME_S)


def routed_in(row: Sequence[bytes]) -> int | None:
    """Return the region to which the fields of a receipt's hash route a message, or None."""
    return int(row[1]) if row and row[0] == b"region" else None


def received_in(row: Sequence[bytes], keys: Keys) -> KnownReceipt | None:
    """Return the receipt in the fields of a receipt's hash, or None."""
    if not row or routed_in(row) is not None:
        return None
    fields = dict(zip(row[::2], row[1::2], strict=True))
    receipt = _RECEIPT.decode(fields[b"body"])
    if b"sequence" in fields:
        receipt = msgspec.structs.replace(receipt, sequence=keys.number(fields[b"sequence"]))
    group = fields.get(b"group")
    return KnownReceipt(
        fields[b"user"].decode(),
        fields[b"digest"].decode(),
        receipt,
        int(group) if group else None,
    )
