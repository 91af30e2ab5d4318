"""What reporters of incidents for a desk alone may learn, and what their desk must hear of them.

`owners` says of each incident's id that one reporter alone may know who that is, and their report.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from uuid import UUID

from schemas.ids import is_opened_by
from schemas.messages import Outcome, Receipt
from verify.simulation.simulation_logs import Logs

Owners = Mapping[UUID | None, tuple[str, UUID]]


def told_of_others(
    receipts: Mapping[UUID, Sequence[tuple[float, Receipt]]], owners: Owners
) -> Iterator[str]:
    """A receipt says nothing of other reports, not even by an id."""
    for incident, (_, report) in owners.items():
        receipt = receipts[report][0][1]
        its_own = incident is not None and is_opened_by(incident, report)
        if receipt.outcome is Outcome.ACCEPTED and (
            receipt.merge is not None or receipt.sequence is not None or not its_own
        ):
            yield f"the receipt of report {report} tells of others"


def heard_of_others(logs: Logs, owners: Owners) -> Iterator[str]:
    """What is said or asked reaches the reporter alone, and shows nobody but them and the desk."""
    for user, log in logs.devices.items():
        for _, event in log.events:
            owner = owners.get(event.incident)
            if owner and (owner[0] != user or event.members > 1):
                yield f"{user} heard {event.member} in the conversation of report {owner[1]}"
        for _, question in log.questions:
            if owners.get(question.incident, (user, question.report)) != (user, question.report):
                yield f"{user} was asked about another's report"


def heard_by_desks(logs: Logs, owners: Owners) -> Iterator[str]:
    """What a reporter says, and has a receipt for, is heard once by the desk, of their report."""
    heard: dict[tuple[str, UUID | None], set[UUID]] = defaultdict(set)
    for _, told in logs.desk.escalations:
        heard[told.text, told.report].add(told.id)
    for _, case in logs.desk.cases:
        heard[case.text, case.report].add(case.id)
    for log in logs.devices.values():
        accepted = {receipt.id for _, receipt in log.receipts if receipt.outcome == "accepted"}
        for identifier, message in log.said.items():
            owner = owners.get(message.incident)
            if owner and identifier in accepted:
                found = len(heard[message.text, owner[1]])
                if found != 1:
                    yield f"what was said of report {owner[1]} came {found} times to its desk"
