"""What keeps a process from the MQTT broker, and how to mend it: the same words in each command."""

from broker.core.health import COME_BACK, Cause
from broker.mqtt import ConnectRefused, Endpoint, MqttError, Unreachable

_START_MQTT = "start it, or mend NABIJ_MQTT_URL"


def mqtt_down(where: str) -> Cause:
    """Return the cause for a service that has no connection."""
    return Cause(
        code="mqtt_down",
        what=f"no connection to the MQTT broker at {where}",
        mend=f"{_START_MQTT}; {COME_BACK}",
    )


def account_refused(
    error: ConnectRefused, endpoint: Endpoint, setting: str = "NABIJ_MQTT_URL"
) -> Cause:
    """Return the cause for an account that may not connect; its password is in `setting`."""
    return Cause(
        code="mqtt_refused",
        what=f"the MQTT account {name_of(endpoint)!r} is refused ({error})",
        mend=f"check its name, and its password in {setting}",
    )


def told_of_mqtt(error: MqttError, endpoint: Endpoint) -> str:
    """Return an error's text for who started a command, with how to mend it where that is known."""
    if isinstance(error, ConnectRefused) and error.concerns_account:
        cause = account_refused(error, endpoint)
        return f"{cause.what}: {cause.mend}"
    if isinstance(error, ConnectRefused) and error.concerns_rights:
        return f"the MQTT account {name_of(endpoint)!r} lacks rights: {error}"
    if isinstance(error, Unreachable):
        return f"{error}: {_START_MQTT}"
    return f"MQTT: {error}"


def name_of(endpoint: Endpoint) -> str:
    """Return the account that connects there, as people are told it."""
    return endpoint.username or "(anonymous)"
