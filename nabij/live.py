"""What a demonstration shows: a page that changes on a terminal, lines elsewhere."""

from collections import deque
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Self
from uuid import UUID

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from devices.history import HeardCase
from nabij.output import console_err, say
from schemas.messages import Escalation, GroupEvent, IncidentState, Report, Status

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


class View:
    """Shows what it is told, while the `with` lasts."""

    def __init__(self) -> None:
        self._states: dict[UUID, IncidentState] = {}
        self._lines: deque[str] = deque(maxlen=LINES)
        self._summary: Callable[[], Summary] = dict
        self._live = Live(
            get_renderable=self._page,
            console=console_err,
            refresh_per_second=PER_SECOND,
            transient=True,
        )

    def __enter__(self) -> Self:
        if console_err.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._live.stop()

    def follow(self, summary: Callable[[], Summary]) -> None:
        """Show this summary below everything."""
        self._summary = summary

    def reported(self, report: Report, place: str) -> None:
        """A witness has sent a report."""
        self._line(f"report    {report.category} at {place}: {report.text}")

    def escalated(self, escalation: Escalation) -> None:
        """It is at the police's desk."""
        self._line(
            f"police    {escalation.zone} {escalation.priority} {escalation.kind} "
            f"{escalation.category} {_short(escalation.incident)} (report {escalation.reports})"
        )

    def cased(self, case: HeardCase) -> None:
        """It is at the city's desk."""
        self._line(f"city      {case.municipality} {case.category} {_short(case.incident)}")

    def grouped(self, event: GroupEvent) -> None:
        """The reporter hears this of the group around the incident."""
        said = f": {event.text}" if event.text else ""
        self._line(
            f"group     {_short(event.incident)} {event.member} {event.kind} "
            f"({event.members} members){said}"
        )

    def changed(self, state: IncidentState) -> None:
        """The incident's state is another."""
        before = self._states.pop(state.incident, None)
        self._states[state.incident] = state
        if before is None or before.status is not state.status:
            self._line(
                f"incident  {_short(state.incident)} {state.category} {state.status}: "
                f"{state.alerted} alerted, {state.accepted} accepted, {state.on_scene} on scene"
            )

    def _line(self, text: str) -> None:
        if self._live.is_started:
            self._lines.append(text)
        else:
            say(text)

    # The page

    def _page(self) -> RenderableType:
        rows = max(6, console_err.height - FRAME_ROWS)
        latest = list(self._lines)[-(rows - rows // 2) :]
        lines = Text("\n".join(latest), no_wrap=True, overflow="ellipsis")
        summary = Text(_in_words(self._summary()), style="bold")
        return Group(self._incidents(rows // 2), lines, summary)

    def _incidents(self, rows: int) -> Table:
        title = "Nabij: incidents at the police's desks (Ctrl-C ends it)"
        table = Table(title=title, expand=True, box=SIMPLE_HEAD)
        for head in ("incident", "zone", "category", "prio", "status"):
            table.add_column(head)
        for head in ("reports", "alerted", "accepted", "on scene"):
            table.add_column(head, justify="right")
        for state in list(self._states.values())[: -rows - 1 : -1]:
            words = (_short(state.incident), state.zone, state.category, state.priority.value)
            counts = (state.reports, state.alerted, state.accepted, state.on_scene)
            table.add_row(
                *words, state.status.value, *map(str, counts), style=_STYLES[state.status]
            )
        return table


def _in_words(summary: Summary) -> str:
    return "  ".join(f"{name} {value}" for name, value in summary.items() if value is not None)


def _short(incident: UUID) -> str:
    return incident.hex[:6]
