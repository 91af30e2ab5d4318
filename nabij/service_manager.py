"""What systemd is told: ready, stopping, and each while that the event loop turns (sd_notify(3))."""

import asyncio
import socket

import structlog

from broker.runtime.config import ServiceManager

_log = structlog.get_logger()

_FOR_EVER_S = 3_600.0


async def keep_told(manager: ServiceManager) -> None:
    """Say that all is ready, then that we live, until cancelled. Without systemd only wait."""
    every_s = manager.watchdog_s / 3 if manager.watchdog_s else _FOR_EVER_S
    _tell(manager.socket, "READY=1")
    try:
        while True:
            await asyncio.sleep(every_s)
            if manager.watchdog_s:
                _tell(manager.socket, "WATCHDOG=1")
    finally:
        _tell(manager.socket, "STOPPING=1")


def _tell(address: str | None, text: str) -> None:
    if address is None:
        return
    if address.startswith("@"):  # of the abstract namespace
        address = "\0" + address[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
            channel.sendto(text.encode(), address)
    except OSError as error:
        _log.warning("systemd cannot be told", what=text, why=str(error))
