"""How a device connects and how long it waits, with defaults that suit most devices."""

from dataclasses import dataclass

from devices.device_connection import SESSION_EXPIRY_S, Identity, client_id


@dataclass(frozen=True, kw_only=True, slots=True)
class DeviceOptions:
    """How a device or desk connects.

    `device` tells the devices of one account apart (None: its only one). `session_expiry_s` is how
    long the MQTT broker keeps messages while the device is away. A message without a receipt after
    `receipt_timeout_s` counts as not confirmed. Entering waits at most `connect_timeout_s`.
    """

    device: str | None = None
    session_expiry_s: int = SESSION_EXPIRY_S
    receipt_timeout_s: float = 10.0
    connect_timeout_s: float = 10.0

    def identity(self, username: str, password: str | None, *, usual: str) -> Identity:
        """Return the account and client id; `usual` is the name of a device that has none."""
        name = client_id(username, self.device or usual, password)
        return Identity(username, password, name, self.session_expiry_s)


DEFAULTS = DeviceOptions()
