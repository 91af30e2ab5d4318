"""Reads messages of Nabij, also those of a later version.

Unknown fields are ignored, and unknown values of an enumeration are read as the contract says. Both
are logged as text.
"""

import logging
from typing import TypeVar

from schemas.topics import Topic

T = TypeVar("T")

log = logging.getLogger(__name__)


def read(topic: Topic[T], payload: bytes) -> T:
    """Return the message in `payload`.

    Raises:
        schemas.codec.Invalid: a required field cannot be read. The message is not confirmed, so
            Nabij raises its alarm: this reader cannot know what the message says.
    """
    value, notes = topic.read(payload)
    for note in notes:
        log.info("%s: %s", topic.template, note)
    return value
