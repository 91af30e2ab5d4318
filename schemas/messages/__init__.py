"""Every payload on the wire, as frozen, validated Structs. JSON, UTF-8, at most 16 KiB.

Times are RFC 3339 with an offset. Coordinates are WGS 84 degrees. Ids are UUIDs: version 7 where a
device makes them, version 5 where the broker derives them, so that repeating a step repeats the id.
See `schemas/topics.py` for who sends which payload where. Each module has what one side sends to
the other; other rooms import what its `__all__` names from here.
"""

from schemas.messages.fields import *
from schemas.messages.from_desks import *
from schemas.messages.from_participants import *
from schemas.messages.operations import *
from schemas.messages.receipts import *
from schemas.messages.to_desks import *
from schemas.messages.to_participants import *
