"""Values of plugins as JSON has them: parameters and what a detector learnt."""

import json
from typing import Any

from pydantic_core import to_json

from oodbench.errors import OodbenchError, one_line

# Bytes; records are read by people, and all at once by boards.
LARGEST = 1_000_000
PYDANTIC = "Error serializing to JSON: "


def plain(value: object, what: str) -> Any:  # noqa: ANN401
    """The value in numbers, texts, lists and mappings of its own, so that no later change of it shows.

    Tensors and arrays become lists, and infinity and NaN, which JSON lacks, the texts ``Infinity`` and ``NaN``.

    Args:
        value: The value.
        what: What it is, for the message.

    Raises:
        OodbenchError: It holds something else, itself, more levels than JSON readers take, or too much.
    """
    try:
        text = to_json(value, inf_nan_mode="strings", fallback=_numbers)
        if len(text) <= LARGEST:
            return json.loads(text)
    except Exception as cause:
        raise OodbenchError(
            f"{what} cannot be recorded: {one_line(cause).removeprefix(PYDANTIC)}; expected numbers, texts, and lists "
            "and mappings of them"
        ) from cause
    raise OodbenchError(f"{what} cannot be recorded: it takes {len(text):,} bytes; expected at most {LARGEST:,}")


def _numbers(value: Any) -> Any:  # noqa: ANN401
    """Of a tensor, an array or a number of numpy's."""
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"there is a {type(value).__name__} in it")
