"""Events of a run, for whoever listens to the logger ``oodbench.events``."""

import logging
from contextlib import suppress
from typing import Any, Literal

Event = Literal[
    "run started",
    "data read",
    "workers changed",
    "seed started",
    "seed prepared",
    "seed failed",
    "evidence started",
    "evidence collected",
    "job started",
    "job lost",
    "job ended",
    "record kept",
    "record confirmed",
    "message",
    "run ended",
]

events = logging.getLogger("oodbench.events")
# They are for programs: nobody's terminal is filled with them.
events.propagate = False
events.setLevel(logging.INFO)
events.addHandler(logging.NullHandler())


def tell(event: Event, **facts: Any) -> None:  # noqa: ANN401
    """Tell of an event.

    Args:
        event: What happened; also the message of the log record.
        facts: More of it, as JSON has it; the attribute ``facts`` of the log record.
    """
    record = events.makeRecord(events.name, logging.INFO, "", 0, event, (), None, extra={"facts": facts})
    # Whatever a plugin has done to logging, no result is lost for it.
    with suppress(Exception):
        events.callHandlers(record)
