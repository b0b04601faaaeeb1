"""Events of a run, sent to the logger ``oodbench.events``."""

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
    "images done",
    "job started",
    "job lost",
    "job ended",
    "record kept",
    "record confirmed",
    "message",
    "run ended",
]

events = logging.getLogger("oodbench.events")
# Events are for programs; they are not shown on a terminal.
events.propagate = False
events.setLevel(logging.INFO)
events.addHandler(logging.NullHandler())


def tell(event: Event, **facts: Any) -> None:  # noqa: ANN401
    """Send an event to the handlers of the logger.

    Args:
        event: What happened; it is the message of the log record.
        facts: Details as JSON values; they are the attribute ``facts`` of the log record.
    """
    record = events.makeRecord(events.name, logging.INFO, "", 0, event, (), None, extra={"facts": facts})
    # No result is lost if a plugin has broken logging.
    with suppress(Exception):
        events.callHandlers(record)
