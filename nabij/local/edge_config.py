"""The file that our own MQTT broker is started with: where it listens, its journal, its accounts.

It has rights and quotas in full: `edge_process` need not import the contract, and starts in half
the time.
"""

import hashlib

import msgspec

from broker.edge.accounts import Grant


class EdgeAccount(msgspec.Struct, frozen=True):
    """An account that may connect. Passwords are long and random, so a fast hash is enough."""

    password_sha256: str
    grant: Grant


class EdgeConfig(msgspec.Struct, frozen=True):
    """What the process is started with; without a directory it keeps all in memory.

    With a certificate (PEM, the chain) and its key it speaks TLS. `/metrics` is served on
    `metrics_port`, if there is one.
    """

    host: str
    port: int
    directory: str | None
    accounts: list[EdgeAccount]
    certificate: str | None = None
    key: str | None = None
    metrics_port: int | None = None


def hashed(password: bytes) -> str:
    """Return what stands in the file in a password's place."""
    return hashlib.sha256(password).hexdigest()
