"""Where our broker differs from RabbitMQ on purpose: scenario -> why, and what ours is seen to do.

Both halves are tests: the transcripts must differ, and ours must be the one written here. `CONFORMANCE.md` names
these for readers.
"""

from typing import NamedTuple


class Departure(NamedTuple):
    reason: str
    ours: list


DEPARTURES = {}
