"""MQTT brokers as processes that a test may kill, each by its own id."""

import signal
import socket
import subprocess
import time
from collections.abc import Callable

from broker.mqtt import Endpoint

_START_TIMEOUT_S = 10.0
ACCOUNT = ("u", "p")


class BrokerProcess:
    """An MQTT broker that a test may kill, stop and start again on the same port."""

    def __init__(self, command: list[str], port: int) -> None:
        self.port = port
        self._command = command
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def endpoint(self) -> Endpoint:
        username, password = ACCOUNT
        return Endpoint(host="127.0.0.1", port=self.port, username=username, password=password)

    def start(self) -> None:
        self._process = subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        give_up_at = time.monotonic() + _START_TIMEOUT_S
        while not self._answers():
            assert self._process.poll() is None, f"{self._command[0]} ended while starting"
            assert time.monotonic() < give_up_at, f"{self._command[0]} does not answer"
            time.sleep(0.01)  # there is no event to wait on before the first connection

    def send(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def kill(self) -> None:
        if self._process is None:
            return
        self._process.kill()
        self._process.wait()
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._process = None

    def _answers(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
        except OSError:
            return False
        return True


StartMosquitto = Callable[..., BrokerProcess]
