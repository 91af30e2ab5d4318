"""Rights and quotas of an account at our own MQTT broker, which follow from its role."""

from broker.edge.accounts import Grant, Quotas
from broker.identity.acl import rights
from nabij.local.edge_config import EdgeAccount, hashed
from schemas.roles import Role

# Services share one account: their rights are wide, and their quotas are those of the machine.
_SERVICE_QUOTAS = Quotas(
    connections=10_000,
    subscriptions=100_000,
    retained=1_000_000,
    queued_bytes=256 << 20,
    publishes_per_s=1e6,
    turn_packets=256,
)
_DESK_QUOTAS = Quotas(
    connections=100, retained=1_000, queued_bytes=64 << 20, publishes_per_s=1_000, turn_packets=64
)
_QUOTAS = {Role.SERVICE: _SERVICE_QUOTAS, Role.PARTICIPANT: Quotas()}


def edge_account(username: str, password: str, role: Role, zone: str | None) -> EdgeAccount:
    """Return the account of a user; a police desk has a zone."""
    own = {Role.POLICE_DESK: zone, Role.CITY_DESK: None}.get(role, username)
    rows = [one.split(" ", 1) for one in rights(role, own)]
    grant = Grant(
        name=username,
        reads=tuple(pattern for verb, pattern in rows if verb.startswith("read")),
        writes=tuple(pattern for verb, pattern in rows if verb.endswith("write")),
        is_service=role is Role.SERVICE,
        quotas=_QUOTAS.get(role, _DESK_QUOTAS),
    )
    return EdgeAccount(hashed(password.encode()), grant)
