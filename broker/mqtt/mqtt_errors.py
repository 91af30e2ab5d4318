"""What can go wrong between this process and the MQTT broker, named by who must act."""

# ruff: noqa: N818 (errors are named by what happened and who acts, as the design has them)

from collections.abc import Collection

from mqtt5 import ConnAckReasonCode, DisconnectReasonCode

_OF_ACCOUNTS = (
    ConnAckReasonCode.BAD_USER_NAME_OR_PASSWORD,
    ConnAckReasonCode.NOT_AUTHORIZED,
    ConnAckReasonCode.BANNED,
)


class MqttError(Exception):
    """Base of everything that `broker.mqtt` raises on purpose."""


class Unreachable(MqttError):
    """No answer from the endpoint in time: the operator checks address, network and broker."""


class ConnectRefused(MqttError):
    """The MQTT broker refused: the operator checks credentials and rights.

    `reason` is that of the CONNACK. It is None when the connection was accepted but a subscription
    to `filters` was not.
    """

    def __init__(
        self, text: str, reason: ConnAckReasonCode | None = None, *, filters: Collection[str] = ()
    ) -> None:
        super().__init__(text)
        self.reason = reason
        self.filters = filters

    def at(self, where: str) -> "ConnectRefused":
        """Return the same refusal, with the host and port of the MQTT broker in its text."""
        return ConnectRefused(f"{where}: {self}", self.reason, filters=self.filters)

    @property
    def concerns_account(self) -> bool:
        """Whether CONNECT was refused for its account.

        Mosquitto 2.0.11 answers NOT_AUTHORIZED to a wrong password; our own broker also to a will
        that the account may not publish.
        """
        return self.reason in _OF_ACCOUNTS

    @property
    def concerns_rights(self) -> bool:
        """Whether the account may connect, but not subscribe to what was asked for."""
        return bool(self.filters)


class ServerDisconnected(MqttError):
    """The MQTT broker ended the connection with a DISCONNECT (MQTT 5 section 3.14)."""

    def __init__(self, reason: DisconnectReasonCode, text: str | None = None) -> None:
        super().__init__(
            f"the MQTT broker disconnected: {reason.name}{f' ({text})' if text else ''}"
        )
        self.reason = reason


class SessionTakenOver(ServerDisconnected):
    """Another process connected with our client id: to reconnect would start a fight over it."""


class ProtocolError(MqttError):
    """The MQTT broker sent what MQTT 5 forbids; `reason` goes out in our DISCONNECT."""

    def __init__(self, reason: DisconnectReasonCode, text: str) -> None:
        super().__init__(f"{reason.name}: {text}")
        self.reason = reason


class ConnectionLost(MqttError):
    """The network connection ended without a DISCONNECT, or a keep-alive went unanswered."""


class ConnectionClosed(MqttError):
    """The owner closed this connection; the outcome of all that was not acknowledged."""


class Overloaded(MqttError):
    """Too many messages are waiting to be sent: the caller slows down or sheds load."""
