"""Converts values of plugins, such as parameters and what a detector learnt, to plain JSON values."""

import json
from typing import Any

from pydantic_core import to_json

from oodbench.errors import OodbenchError, one_line

# Maximum size in bytes, since people read records, and leaderboards read all of them at once.
LARGEST = 1_000_000
PYDANTIC = "Error serializing to JSON: "


def plain(value: object, what: str) -> Any:  # noqa: ANN401
    """Copy a value into numbers, texts, lists and mappings.

    Tensors and arrays become lists. Infinity and NaN, which JSON lacks, become the texts ``Infinity`` and ``NaN``.

    Args:
        value: The value.
        what: What the value is, for the message.

    Raises:
        OodbenchError: The value contains other objects or itself, is nested too deeply, or is too large.
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
    """The numbers in a tensor, an array or a NumPy scalar."""
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"there is a {type(value).__name__} in it")
