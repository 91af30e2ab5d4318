"""The display of a demonstration: a live page on a terminal, lines elsewhere."""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Self
from uuid import UUID

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from nabij.output import console_err, counted, say
from schemas.messages import Escalation, GroupEvent, IncidentState, Mode, Report, Status
from verify.oracle.observations import CaseSeen

LINES = 40
FRAME_ROWS = 9  # around the incidents and the lines: title, heads, borders, the summary
PER_SECOND = 4

Summary = Mapping[str, int | float | None]

_STYLES = {
    Status.OPEN: "bold red",
    Status.ACKNOWLEDGED: "yellow",
    Status.ASSIGNED: "yellow",
    Status.ON_SCENE: "cyan",
    Status.CLOSED: "dim",
}
# The content of each column, and the terminal's width from which it is shown.
_COLUMNS: Sequence[tuple[str, int, Callable[[IncidentState], object]]] = (
    ("incident", 0, lambda state: short(state.incident)),
    ("zone", 76, lambda state: state.zone),
    ("category", 0, lambda state: state.category),
    ("prio", 96, lambda state: state.priority.value),
    ("status", 0, lambda state: state.status.value.replace("_", " ")),
    ("reports", 76, lambda state: state.reports),
    ("alerted", 0, lambda state: state.alerted),
    ("accepted", 0, lambda state: state.accepted),
    ("on scene", 96, lambda state: state.on_scene),
)
_COUNTS = ("reports", "alerted", "accepted", "on scene")


class View:
    """Shows events while the `with` lasts, with `summary` below; drills are not shown."""

    def __init__(self, summary: Callable[[], Summary]) -> None:
        self._states: dict[UUID, IncidentState] = {}
        self._lines: deque[str] = deque(maxlen=LINES)
        self._summary = summary
        self._shows = False
        self._live: Live | None = None

    def __enter__(self) -> Self:
        self._shows = True
        if console_err.is_terminal:
            self._live = Live(
                get_renderable=self._page,
                console=console_err,
                refresh_per_second=PER_SECOND,
                transient=True,
            )
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._shows = False
        if self._live:
            self._live.stop()

    def reported(self, report: Report, place: str) -> None:
        """A witness has sent a report."""
        self._line(f"report    {report.category} at {place}: {report.text}")

    def escalated(self, escalation: Escalation) -> None:
        """It is at the police's desk."""
        if escalation.mode is Mode.DRILL:
            return
        self._line(
            f"police    {escalation.zone} {escalation.priority} {escalation.kind} "
            f"{escalation.category} {short(escalation.incident)} (report {escalation.reports})"
        )

    def cased(self, case: CaseSeen) -> None:
        """It is at the city's desk."""
        self._line(f"city      {case.municipality} {case.category} {short(case.incident)}")

    def grouped(self, event: GroupEvent) -> None:
        """The reporter got this group event."""
        said = f": {event.text}" if event.text else ""
        self._line(
            f"group     {short(event.incident)} {event.member} {event.kind}"
            f" ({counted(event.members, 'member')}){said}"
        )

    def changed(self, state: IncidentState) -> None:
        """The incident's state has changed."""
        if state.mode is Mode.DRILL or not self._shows:
            return
        before = self._states.pop(state.incident, None)
        self._states[state.incident] = state
        if before is None or before.status is not state.status:
            self._line(
                f"incident  {short(state.incident)} {state.category} {state.status}: "
                f"{state.alerted} alerted, {state.accepted} accepted, {state.on_scene} on scene"
            )

    def _line(self, text: str) -> None:
        if self._live:
            self._lines.append(text)
        elif self._shows:
            say(text)

    # The page

    def _page(self) -> RenderableType:
        rows = max(6, console_err.height - FRAME_ROWS)
        latest = list(self._lines)[-(rows - rows // 2) :]
        lines = Text("\n".join(latest), no_wrap=True, overflow="ellipsis")
        summary = Text("\n".join(in_words(self._summary())), style="bold")
        return Group(self._incidents(rows // 2), lines, summary)

    def _incidents(self, rows: int) -> Table:
        columns = [column for column in _COLUMNS if column[1] <= console_err.width]
        title = "Incidents at the police's desks (Ctrl-C ends it)"
        table = Table(title=title, expand=True, box=SIMPLE_HEAD)
        for head, _, _ in columns:
            right = head in _COUNTS
            table.add_column(head, justify="right" if right else "left", no_wrap=True)
        for state in list(self._states.values())[: -rows - 1 : -1]:
            cells = (str(shown(state)) for _, _, shown in columns)
            table.add_row(*cells, style=_STYLES[state.status])
        return table


def in_words(summary: Summary) -> list[str]:
    """Return a summary as two lines for people."""
    said = {name: value for name, value in summary.items() if value is not None}
    city = int(said["city_incidents"])
    first = [
        counted(int(said["reports"]), "report"),
        f"{counted(int(said['incidents']) - city, 'incident')} and {city} for the city",
        counted(int(said["alerts"]), "alert"),
    ]
    others = [f"{said[name]:.0f} {name}" for name in ("accepted", "groups", "closed")]
    times = [
        f"{what} {said[f'{name}_p50_ms']:.0f} ms"
        for name, what in (("receipt", "receipt"), ("police", "police"), ("alert", "neighbours"))
        if f"{name}_p50_ms" in said
    ]
    counts = ", ".join([*first, *others])
    return [counts, f"median times: {', '.join(times)}"] if times else [counts]


def short(incident: UUID) -> str:
    """Return the beginning of an id that tells incidents apart; `nabij explain` accepts it."""
    return incident.hex[:6]
