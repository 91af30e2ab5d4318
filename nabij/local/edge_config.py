"""The file that our own MQTT broker is started with: where it listens, its journal, its accounts.

It has rights and quotas in full: `edge_process` need not import the contract, and starts in half
the time.
"""

import hashlib
import ssl

import msgspec

from broker.edge.accounts import Grant


class EdgeAccount(msgspec.Struct, frozen=True):
    """An account that may connect. Passwords are long and random, so a fast hash is enough."""

    password_sha256: str
    grant: Grant


class EdgeListener(msgspec.Struct, frozen=True):
    """Where clients connect. With a certificate (PEM, the chain) and its key it speaks TLS alone."""

    host: str
    port: int
    certificate: str | None = None
    key: str | None = None


class EdgeConfig(msgspec.Struct, frozen=True):
    """What the process is started with; without a directory it keeps all in memory.

    `/metrics` is served on `metrics_port` of the loopback interface, if there is one.
    """

    listeners: list[EdgeListener]
    directory: str | None
    accounts: list[EdgeAccount]
    metrics_port: int | None = None


def tls_context(certificate: str, key: str) -> ssl.SSLContext:
    """Return what speaks TLS with this certificate.

    Raises:
        OSError: of which ssl.SSLError is one: the files are not what they should be.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    # The password of a key: nobody is there who could be asked for one.
    context.load_cert_chain(certificate, key, password=lambda: b"")
    return context


def hashed(password: bytes) -> str:
    """Return what stands in the file in a password's place."""
    return hashlib.sha256(password).hexdigest()
