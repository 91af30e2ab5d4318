"""Where an MQTT broker listens and who we are to it, parsed once from a URL."""

import ssl
from dataclasses import dataclass, field
from typing import Self
from urllib.parse import SplitResult, unquote, urlsplit

_DEFAULT_PORTS = {"mqtt": 1883, "mqtts": 8883}


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """Host, port, credentials and TLS of an MQTT broker; the password never shows in a repr."""

    host: str
    port: int = 1883
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    tls: ssl.SSLContext | None = None

    @classmethod
    def from_url(cls, url: str) -> Self:
        """Parse `mqtt://user:password@host:port` or `mqtts://…`.

        Raises:
            ValueError: saying what is wrong, without repeating the URL, which holds a password.
        """
        parts = _split(url)
        if parts.scheme not in _DEFAULT_PORTS:
            raise ValueError(
                f"an MQTT URL starts with mqtt:// or mqtts://, not with {parts.scheme!r}"
            )
        if not parts.hostname:
            raise ValueError("the MQTT URL names no host")
        if parts.path.strip("/") or parts.query or parts.fragment:
            raise ValueError("an MQTT URL ends after the port: no path, query or fragment")
        return cls(
            host=parts.hostname,
            port=_port(parts),
            username=None if parts.username is None else unquote(parts.username),
            password=None if parts.password is None else unquote(parts.password),
            tls=ssl.create_default_context() if parts.scheme == "mqtts" else None,
        )


def _split(url: str) -> SplitResult:
    try:
        return urlsplit(url)
    except ValueError as error:
        raise ValueError(f"the MQTT URL cannot be parsed: {error}") from None


def _port(parts: SplitResult) -> int:
    try:
        port = parts.port
    except ValueError:
        raise ValueError("the port of the MQTT URL is not a number from 1 to 65535") from None
    if port == 0:
        raise ValueError("the port of the MQTT URL is not a number from 1 to 65535")
    return _DEFAULT_PORTS[parts.scheme] if port is None else port
