"""Every key, once. All of a partition carry its tag, so that one script touches one cluster slot.

Every key begins with the tag of its partition, `nabij:{p0}:` of the first. What concerns an
incident is in the partition of the region that its id names, what is filed by place in that of the
place. What lives as its incident is declared `@_lives_as_incident`, and so erased with it.

| key | type | holds | lives |
|---|---|---|---|
| `receipt:{message}` | hash | user, digest, body of the receipt, sequence, cause; or the region to which a report at a border was routed | 7 days |
| `sequence` | string | how many reports were committed whose receipt has a number | forever |
| `sequence-apart` | string | how many others: of incidents without a group | forever |
| `incident:{conversation}` | hash | of a reporter's own conversation about an incident without a group: `of` that incident, `report`, `told`; with `people` and `group` of the same id | as incident |
| `incident:{incident}` | hash | `v` version, `incident` JSON, `active` ms of the last activity, `told` ms of the last group event, `stated` version of the retained state; `conversation:{user}` of a reporter who had a group before schema version 3 | retention after close |
| `open:{cell8}` | hash | incident whose alerts reach in → lat, lon, radius, since ms | while open |
| `join:{kind}:{cell9}` | hash | incident near enough to join → lat, lon; `#` is the latest opened | while open |
| `open-incidents` | zset | incident by opening ms | while open |
| `people:{incident}` | hash | user → Member JSON: alerted, reporter, helper, left | as incident |
| `alerts:{incident}` | hash | user → state (`c` claimed, `s` sent, `r` refused, `x` expired), wave, reason, ms claimed, ms of the state, tries, PUBACK reason code | as incident |
| `delivered:{incident}` | hash | user → ms of the first word of their device that it has the alert | as incident |
| `unconfirmed` | zset | incident with alerts that are neither confirmed nor expired, by when a worker must look (ms) | until all are |
| `history:{incident}` | list | Note JSON: what happened and why, the newest 2,000 | as incident |
| `reports:{incident}` | hash | report → user and Report JSON | as incident |
| `group:{incident}` | list | GroupEvent JSON, the n-th has sequence n | as incident |
| `question:{question}` | hash | user, Question JSON | 7 days |
| `asked:{user}` | zset | the newest 50 questions to a user by ms | 7 days |
| `involved:{user}` | zset | incident by ms | retention |
| `at:{cell9}` | hash | user → child of resolution 10, availability, ms | presence lifetime, a fifth more at most |
| `where:{bucket}` | hash | user → cell9, child, availability, ms, ms received, what the last withdrawal said (ms) | as `at` |
| `home:{bucket}` | hash | user, of those who hash to the partition → the partition in which they are, ms, whether withdrawn, what the last withdrawal said; only with several | as `at` |
| `short-forms` | zset | user who wants short alerts too by ms when they asked, in the first | 30 days |
| `border:{category}` | hash | `token` of the worker that decides on reports at the partition's borders | 3 s |
| `partitions` | string | in how many everything is filed, in the first | forever |
| `schema-version` | string | the version of the layout of all this (`broker.store.migrations`), in the first | forever |
| `migrating` | string | the process that migrates what an older release has stored, in the first | 10 s |
| `events:{service}` | stream | `broker.core.changes` for that service, with its consumer group | until acknowledged |
| `deadlines` | zset | `kind incident` by due ms | until fired |
| `outbox` | zset | message id by ms from when the relay sends it again | until its reader confirms it, or 72 hours and 800 tries |
| `outbox-messages` | hash | message id → topic, payload, ms of its commit, attended | as outbox |
| `outbox-tries` | hash | message id → how often the relay has sent it | as outbox |
| `undelivered:{desk}` | zset | message id by ms of its commit: not confirmed in time | as outbox |
| `undelivered-readers` | hash | desks that have such → nothing | until they have none |
| `attended:{desk}` | zset | message id by ms of its commit: confirmed by the duty desk alone | as outbox |
| `desk-progress` | hash | desk → ms at which the latest that it has confirmed was sent, ms at which it said so, ms it took | forever |
| `unattended` | hash | desk → ms since when the alarm stands, ms when operators were last told; in the first | until all is confirmed |
| `desks-heard` | hash | desk → ms of its last receipt, sync or command; in the first | forever |
| `dropped` | string | how many messages the MQTT broker had dropped when alerts were last resent for it | forever |
| `mqtt-started` | string | when the MQTT broker was started (ms), as known when alerts were last resent for it | forever |
| `restored` | string | last time (ms) at which the MQTT broker was known to have all retained states | forever |
| `restoring` | string | a worker is about to publish all retained states again | 5 s |
| `retained` | string | a worker looks for retained messages | 10 s |
| `dead-letters` | hash | id → DeadLetter, the newest 10,000, 64 MiB at most | until dropped or replayed; 30 days |
| `dead-letter-times` | zset | id by ms | as dead-letters |
| `dead-letters-of:{share}` | zset | id by ms: of one sender at most 200, to one reader 4,000 | 30 days after the last |
| `dead-letter-shares` | hash | id → its share | as dead-letters |
| `dead-letter-bytes` | zset | share by the bytes of its letters | as dead-letters |
| `dead-letter-replay:{token}` | string | the dead letter whose replay carries this secret | until it has worked; 1 day |
| `dead-letter-counts` | hash | `bytes` kept, `dropped` for want of room | forever |
| `workers:{service}` | hash | client id and MQTT broker → WorkerSession JSON, in the first | until its session has ended, and a day more |
| `worker-beats:{service}` | hash | client id and MQTT broker → ms of its last heartbeat | as workers |
| `zones` | hash | zone → name, kind, cells | until the next import |
| `clock-jump` | string | the last jump of the clock that came to count: until when (ms) the time before did, and by how much (ms) it moved | 8 days |
| `probe` | string | when a worker last made sure that this server writes (Unix s) | 60 s |
| `shared-time` | string | what the workers go by (Unix s), and how long they still hold a jump off (s), each second, for those that start | 15 min |
| `zones-version` | string | how often zones were imported | forever |
"""

import binascii
import zlib
from collections.abc import Callable
from uuid import UUID

from broker.core.grid import region_of
from schemas.ids import region_in

_BUCKETS = 0x3FFF  # small hashes stay packed: 16,384 buckets hold a million people at 61 each
_SLOTS = 16_384

_IncidentKey = Callable[["Keys", UUID | str], str]
_OF_INCIDENTS: list[_IncidentKey] = []


def _lives_as_incident(key: _IncidentKey) -> _IncidentKey:
    """Declare that a key is deleted with the incident, or conversation, that it names."""
    _OF_INCIDENTS.append(key)
    return key


class Keys:
    """The keys of one partition of `count`.

    What is filed by place is in the partition of the place's region; an incident, and all that goes
    with it, in that of the region that its id names.
    """

    def __init__(self, partition: int = 0, count: int = 1) -> None:
        self.partition, self.count = partition, count
        tag = f"p{partition}"
        self.slot = binascii.crc_hqx(tag.encode(), 0) % _SLOTS  # Redis Cluster's CRC16
        self.prefix = f"nabij:{{{tag}}}:"
        self.sequence = f"{self.prefix}sequence"
        self.sequence_apart = f"{self.prefix}sequence-apart"
        self.deadlines = f"{self.prefix}deadlines"
        self.outbox = f"{self.prefix}outbox"
        self.outbox_messages = f"{self.prefix}outbox-messages"
        self.outbox_tries = f"{self.prefix}outbox-tries"
        self.desk_progress = f"{self.prefix}desk-progress"
        self.undelivered_readers = f"{self.prefix}undelivered-readers"
        self.unattended = f"{self.prefix}unattended"
        self.desks_heard = f"{self.prefix}desks-heard"
        self.open_incidents = f"{self.prefix}open-incidents"
        self.unconfirmed = f"{self.prefix}unconfirmed"
        self.dropped = f"{self.prefix}dropped"
        self.mqtt_started = f"{self.prefix}mqtt-started"
        self.restored = f"{self.prefix}restored"
        self.restoring = f"{self.prefix}restoring"
        self.retained = f"{self.prefix}retained"
        self.dead_letters = f"{self.prefix}dead-letters"
        self.dead_letter_times = f"{self.prefix}dead-letter-times"
        self.dead_letter_counts = f"{self.prefix}dead-letter-counts"
        self.dead_letter_shares = f"{self.prefix}dead-letter-shares"
        self.dead_letter_bytes = f"{self.prefix}dead-letter-bytes"
        self.short_forms = f"{self.prefix}short-forms"
        self.zones = f"{self.prefix}zones"
        self.partitions = f"{self.prefix}partitions"
        self.schema_version = f"{self.prefix}schema-version"
        self.migrating = f"{self.prefix}migrating"
        self.jump = f"{self.prefix}clock-jump"
        self.probe = f"{self.prefix}probe"
        self.shared_time = f"{self.prefix}shared-time"
        self.zones_version = f"{self.prefix}zones-version"

    def replay(self, token: str) -> str:
        """Return the key of which dead letter is replayed under a token."""
        return f"{self.prefix}dead-letter-replay:{token}"

    def dead_letters_of(self, share: str) -> str:
        """Return the key of which dead letters are of one sender."""
        return f"{self.prefix}dead-letters-of:{share}"

    def owns(self, cell: int) -> bool:
        """Whether what is filed under `cell` is of this partition."""
        return self.count == 1 or partition_of(region_of(cell), self.count) == self.partition

    def number(self, sequence: bytes | int) -> int:
        """Return the number of a commit, which no other partition gives."""
        return int(sequence) * self.count + self.partition

    def workers(self, service: str) -> str:
        """Return the key of the MQTT sessions of a service's workers."""
        return f"{self.prefix}workers:{service}"

    def worker_beats(self, service: str) -> str:
        """Return the key of their last heartbeats."""
        return f"{self.prefix}worker-beats:{service}"

    def events(self, reader: str) -> str:
        """Return the key of the stream that the service `reader` reads."""
        return f"{self.prefix}events:{reader}"

    def undelivered(self, reader: str) -> str:
        """Return the key of what a desk has not confirmed though it was sent to it again."""
        return f"{self.prefix}undelivered:{reader}"

    def attended(self, reader: str) -> str:
        """Return the key of what the duty desk has of another desk that has not confirmed it."""
        return f"{self.prefix}attended:{reader}"

    def receipt(self, message: UUID | str) -> str:
        """Return the key of what became of a device's message."""
        return f"{self.prefix}receipt:{message}"

    @_lives_as_incident
    def incident(self, identifier: UUID | str) -> str:
        """Return the key of an incident."""
        return f"{self.prefix}incident:{identifier}"

    def reaching(self, district: int) -> str:
        """Return the key of the open incidents whose alerts reach into a cell of resolution 8."""
        return f"{self.prefix}open:{district:x}"

    def joinable(self, kind: str, index_cell: int) -> str:
        """Return the key of the open incidents that a report of `kind` in this cell may join."""
        return f"{self.prefix}join:{kind}:{index_cell:x}"

    @_lives_as_incident
    def people(self, identifier: UUID | str) -> str:
        """Return the key of who was alerted to an incident, reported it or helps."""
        return f"{self.prefix}people:{identifier}"

    @_lives_as_incident
    def alerts(self, identifier: UUID | str) -> str:
        """Return the key of each recipient's alert of an incident."""
        return f"{self.prefix}alerts:{identifier}"

    @_lives_as_incident
    def delivered(self, identifier: UUID | str) -> str:
        """Return the key of whose device has confirmed its alert of an incident."""
        return f"{self.prefix}delivered:{identifier}"

    @_lives_as_incident
    def history(self, identifier: UUID | str) -> str:
        """Return the key of what happened to an incident, and why."""
        return f"{self.prefix}history:{identifier}"

    def all_of(self, identifier: UUID) -> list[str]:
        """Return the keys of everything around an incident, which is erased with it."""
        return [key(self, identifier) for key in _OF_INCIDENTS]

    @_lives_as_incident
    def reports(self, identifier: UUID | str) -> str:
        """Return the key of the reports of an incident."""
        return f"{self.prefix}reports:{identifier}"

    @_lives_as_incident
    def group_log(self, identifier: UUID | str) -> str:
        """Return the key of what happened in an incident's group."""
        return f"{self.prefix}group:{identifier}"

    def question(self, identifier: UUID | str) -> str:
        """Return the key of a question of the police."""
        return f"{self.prefix}question:{identifier}"

    def asked(self, user: str) -> str:
        """Return the key of the questions that a user was asked lately."""
        return f"{self.prefix}asked:{user}"

    def involved(self, user: str) -> str:
        """Return the key of the incidents that a user was alerted to or reported."""
        return f"{self.prefix}involved:{user}"

    def at(self, index_cell: int) -> str:
        """Return the key of the people in a cell of resolution 9."""
        return f"{self.prefix}at:{index_cell:x}"

    def border(self, what: str) -> str:
        """Return the key of who decides on `what` at this partition's borders."""
        return f"{self.prefix}border:{what}"

    def home(self, bucket: int) -> str:
        """Return the key of the partitions in which the users of a bucket are."""
        return f"{self.prefix}home:{bucket}"


def partition_of(region: int, count: int) -> int:
    """Return which of `count` partitions a region is of."""
    return region % count


def partition_of_incident(incident: UUID, count: int) -> int:
    """Return which of `count` partitions an incident is of, or a question about it."""
    return partition_of(region_in(incident), count)


def partition_of_user(user: str, count: int) -> int:
    """Return which of `count` partitions knows where a user was last."""
    return zlib.crc32(user.encode()) % count


def where_bucket(user: str) -> int:
    """Return which bucket holds where a user is."""
    return zlib.crc32(user.encode()) & _BUCKETS
