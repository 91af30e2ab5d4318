"""Where our own MQTT broker listens for devices on other machines, and whether it can.

What is wrong with a file or a port is told with its setting, before anything is started.
"""

import os
import ssl
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

from broker.errors import ConfigError
from broker.runtime.config import Settings
from nabij.local.edge_config import EdgeListener, tls_context
from nabij.local.managed_process import HOST, lock_directory, try_to_bind

_CERTIFICATE, _KEY = "NABIJ_MQTT_CERTIFICATE", "NABIJ_MQTT_KEY"
# What OpenSSL calls a key of another certificate, and one of another type.
_MISMATCHES = ("KEY_VALUES_MISMATCH", "KEY_TYPE_MISMATCH", "NO_CERTIFICATE_ASSIGNED")


def outside_listener(settings: Settings) -> EdgeListener | None:
    """Return where devices outside connect, if anywhere."""
    if settings.mqtt_listen is None:
        return None
    url = urlsplit(settings.mqtt_listen)
    assert url.hostname is not None
    assert url.port is not None
    if settings.mqtt_certificate is None or settings.mqtt_key is None:
        return EdgeListener(url.hostname, url.port)
    certificate, key = settings.mqtt_certificate.absolute(), settings.mqtt_key.absolute()
    return EdgeListener(url.hostname, url.port, str(certificate), str(key))


def metrics_url(settings: Settings) -> str | None:
    """Return the address of the MQTT broker's own metrics, if it serves them."""
    port = settings.mqtt_metrics_port
    return None if port is None else f"http://{HOST}:{port}/metrics"


def without_listeners(settings: Settings) -> Settings:
    """Return the settings for a demonstration: devices and desks of the city never reach it."""
    return replace(
        settings,
        mqtt_port=None,
        mqtt_listen=None,
        mqtt_certificate=None,
        mqtt_key=None,
        mqtt_metrics_port=None,
    )


def check_certificate(settings: Settings) -> None:
    """Raise ConfigError if the certificate and its key are not what TLS needs."""
    if settings.mqtt_certificate is None or settings.mqtt_key is None:
        return
    if problem := _problem_of(settings.mqtt_certificate, settings.mqtt_key):
        raise ConfigError([problem])


def check_ports(settings: Settings, directory: Path) -> None:
    """Raise ConfigError with each setting whose port cannot be used.

    The embedded MQTT broker in `directory` may have been left by a process that was killed: its end
    is awaited.
    """
    os.close(lock_directory(directory / "mqtt", "mqtt"))
    if problems := [*_problems_of_ports(settings)]:
        raise ConfigError(problems)


def _problem_of(certificate: Path, key: Path) -> str | None:
    for name, path in ((_CERTIFICATE, certificate), (_KEY, key)):
        try:
            path.read_bytes()
        except OSError as error:
            return f"{name}={path}: {error.strerror}"
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_verify_locations(certificate)
    except ssl.SSLError:
        return f"{_CERTIFICATE}={certificate}: has no certificate (PEM)"
    try:
        tls_context(str(certificate), str(key))
    except ssl.SSLError as error:
        if error.reason in _MISMATCHES:
            return f"{_KEY}={key}: is not the key of {_CERTIFICATE}={certificate}"
        return f"{_KEY}={key}: has no private key (PEM) that can be read without a password"
    return None


def _problems_of_ports(settings: Settings) -> Iterator[str]:
    wanted = [
        (f"NABIJ_MQTT_PORT={settings.mqtt_port}", HOST, settings.mqtt_port),
        (f"NABIJ_MQTT_METRICS_PORT={settings.mqtt_metrics_port}", HOST, settings.mqtt_metrics_port),
    ]
    if outside := outside_listener(settings):
        wanted.append((f"NABIJ_MQTT_LISTEN={settings.mqtt_listen}", outside.host, outside.port))
    for setting, host, port in wanted:
        if port is None:
            continue
        try:
            try_to_bind(host, port)
        except OSError as error:
            yield f"{setting}: cannot listen on {host} port {port}: {error.strerror}"
