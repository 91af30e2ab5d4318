"""Questions of the police, each to one reporter."""

from uuid import UUID

import msgspec

from broker.store.kernel.redis_connection import RedisConnection
from broker.store.kernel.timestamps import milliseconds
from broker.store.kernel.transaction import Transaction
from broker.store.receipt_records import RECEIPT_LIFETIME_S
from schemas.messages import Question

_MOST = 50  # questions to one user that a sync may repeat

_ENCODE = msgspec.json.Encoder().encode
decode_question = msgspec.json.Decoder(Question).decode


class Questions:
    """The questions about the incidents of one partition."""

    def __init__(self, redis: RedisConnection) -> None:
        self._redis = redis
        self._keys = redis.keys

    async def get(self, identifier: UUID) -> tuple[str, Question] | None:
        """Return who was asked a question, and the question; None when there is none."""
        row = await self._redis.call("HMGET", self._keys.question(identifier), "user", "question")
        return (row[0].decode(), decode_question(row[1])) if row[0] else None


def add_question(transaction: Transaction, question: Question, user: str) -> None:
    """Add to `transaction` a question of the police to `user`."""
    key = transaction.keys.question(question.id)
    transaction.call("HSET", key, "user", user, "question", _ENCODE(question))
    transaction.call("EXPIRE", key, RECEIPT_LIFETIME_S)
    asked = transaction.keys.asked(user)
    transaction.call("ZADD", asked, milliseconds(question.asked_at), str(question.id))
    transaction.call("ZREMRANGEBYRANK", asked, 0, -1 - _MOST)
    transaction.call("EXPIRE", asked, RECEIPT_LIFETIME_S)
