"""Reads what Nabij sends, also what a later version of it says.

Unknown fields are ignored, and unknown values of an enumeration are read as the contract says. What
they were is logged, as text.
"""

import logging
from typing import TypeVar

from schemas.topics import Topic

T = TypeVar("T")

log = logging.getLogger(__name__)


def read(topic: Topic[T], payload: bytes) -> T:
    """Return what `payload` says.

    Raises:
        schemas.codec.Invalid: a field that is needed cannot be read. The message is not confirmed,
            and Nabij raises its alarm: nobody here can know what it says.
    """
    value, notes = topic.read(payload)
    for note in notes:
        log.info("%s: %s", topic.template, note)
    return value
