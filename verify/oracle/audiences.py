"""Whom a report is for: its effective audience, of the category and its own (docs/protocol.md)."""

from typing import Protocol

from schemas.taxonomy import Audience, Category, PolicyFile


class Addressed(Protocol):
    """A report, as far as its audience goes."""

    @property
    def category(self) -> str:
        """The category's code."""

    @property
    def audience(self) -> Audience:
        """The report's own audience."""


def effective_audience(report: Addressed, category: Category) -> Audience:
    """Return `police` if the category or the report says so."""
    if Audience.POLICE in (report.audience, category.audience):
        return Audience.POLICE
    return Audience.POLICE_AND_NEARBY


def is_for_desk_alone(report: Addressed, policy: PolicyFile) -> bool:
    """Whether no participant may know of it."""
    category = policy.categories.get(report.category)
    return category is not None and effective_audience(report, category) is Audience.POLICE
