"""Errors by who must act: the sender, the operator, or the person who started the process."""

from schemas.codec import Code, Invalid


class Rejected(Invalid):
    """The sender's fault: goes back as a receipt with code, field and reason, and is acknowledged."""


class UnavailableError(Exception):
    """Ours: a store or MQTT broker cannot serve now. Not acknowledged, and tried again."""


class ConfigError(Exception):
    """The person who started the process must fix the settings: lists all that is wrong."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


__all__ = ["Code", "ConfigError", "Rejected", "UnavailableError"]
