"""Boards as JSON, with all their fields."""

from collections.abc import Sequence

from pydantic import TypeAdapter

from oodbench.leaderboard.board import Board


def json(boards: Sequence[Board]) -> str:
    """A list of boards."""
    return TypeAdapter(list[Board]).dump_json(list(boards), indent=1).decode() + "\n"
