"""Errors, by who must act: the sender, the operator, or the person who started the process."""

from schemas.codec import Code, Invalid


class Rejected(Invalid):
    """The sender's fault: answered by a receipt with code, field and reason, and acknowledged."""


class UnavailableError(Exception):
    """Our fault: Redis or an MQTT broker cannot serve now. Not acknowledged, and tried again."""


class ConfigError(Exception):
    """The person who started the process must fix the settings: all problems are listed."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


__all__ = ["Code", "ConfigError", "Rejected", "UnavailableError"]
