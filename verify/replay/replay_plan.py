"""What to replay, where and how: the files behind it, read and checked."""

import enum
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import msgspec

from schemas.taxonomy import PolicyFile, default_policy_text
from verify.datasets.mappings import Mapping as StreamMapping
from verify.datasets.report_stream import (
    Stream,
    StreamError,
    StreamReport,
    load_mapping,
    read_stream,
)
from verify.datasets.rows import OnBytes
from verify.datasets.timestamps import Window, window_of
from verify.oracle.geofence import Kind
from verify.oracle.oracle import Oracle
from verify.replay.zone_files import read_geofence

LONGEST_PAUSE_S = 60.0


class Schedule(NamedTuple):
    """When each report of a timed replay is due, in seconds from its beginning.

    A pause longer than `LONGEST_PAUSE_S` is cut to that, so that one report of years before all
    others, or a quiet winter, keeps nobody waiting; `cut` says how many were.
    """

    due_s: tuple[float, ...]
    cut: int

    @classmethod
    def of(cls, reports: Sequence[StreamReport], speed: float) -> "Schedule":
        """Return when to send reports, which are sorted by time, `speed` times faster."""
        due_s = [0.0] if reports else []
        cut = 0
        for before, after in itertools.pairwise(reports):
            pause_s = (after.at - before.at).total_seconds() / speed
            cut += pause_s > LONGEST_PAUSE_S
            due_s.append(due_s[-1] + min(pause_s, LONGEST_PAUSE_S))
        return cls(tuple(due_s), cut)


class Verify(enum.Enum):
    """Whether the oracle judges what was heard."""

    NO = "no"
    YES = "yes"


@dataclass(frozen=True, kw_only=True)
class ReplayPlan:
    """What to replay, where and how.

    `origin` is (lat, lon), `speed` how many times faster than it was (None: as fast as it goes).
    `zones` are the GeoJSON files of the police zones that the broker uses too, `municipalities`
    those of the municipalities (None: the same files), `id_property` the property with their ids;
    without any, every report is outside every zone. `between` are ISO times that narrow the
    mapping's window. `acceptance` is the range of everybody's probability of accepting an alert,
    `settle_s` how long to wait at most for the last of what is due.
    """

    stream: Path
    mapping: str | Path
    origin: tuple[float, float]
    participants: int
    tracks: Path | None = None
    speed: float | None = None
    limit: int | None = None
    between: tuple[str | None, str | None] = (None, None)
    seed: int = 0
    zones: tuple[Path, ...] = ()
    id_property: str = "id"
    municipalities: tuple[Path, ...] | None = None
    verify: Verify = Verify.YES
    policy_text: str = field(default_factory=default_policy_text)
    acceptance: tuple[float, float] = (0.17, 0.47)
    settle_s: float = 60.0

    def policy(self) -> PolicyFile:
        """Return the policy that the broker uses too."""
        return msgspec.toml.decode(self.policy_text, type=PolicyFile)

    def oracle(self) -> Oracle:
        """Return who judges.

        Raises:
            GeofenceError: a file of zones cannot be used.
        """
        municipalities = self.zones if self.municipalities is None else self.municipalities
        return Oracle(
            self.policy(),
            zones=read_geofence(self.zones, Kind.POLICE, self.id_property),
            municipalities=read_geofence(municipalities, Kind.MUNICIPALITY, self.id_property),
        )

    def read(self, on_bytes: OnBytes | None = None) -> Stream:
        """Return the stream, around the origin.

        Raises:
            StreamError: it cannot be read, or the mapping names a category that the policy lacks.
        """
        mapping = self._mapping()
        stream = read_stream(self.stream, mapping, limit=self.limit, on_bytes=on_bytes)
        if not stream.reports:
            what = f"none of its {stream.rows:,} rows can be used" if stream.rows else "has no rows"
            losses = "".join(f"\n  {each}" for each in stream.losses())
            raise StreamError(f"{self.stream}: {what}{':' if losses else ''}{losses}")
        return stream.around(self.origin)

    def _mapping(self) -> StreamMapping:
        mapping = load_mapping(self.mapping)
        known = self.policy().categories.keys()
        if unknown := sorted(mapping.categories - known):
            raise StreamError(
                f"mapping {self.mapping}: the policy has no category {', '.join(unknown)}; "
                f"it has {', '.join(sorted(known))}"
            )
        try:
            since, until = self.between
            window = window_of(since, until, mapping.zone)
        except ValueError as error:
            raise StreamError(f"--since, --until: {error}") from None
        return replace(
            mapping,
            window=Window(
                window.since or mapping.window.since, window.until or mapping.window.until
            ),
        )
