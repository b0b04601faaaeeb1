"""Boards as JSON, with all their fields."""

from collections.abc import Sequence

from pydantic import TypeAdapter

from oodbench.leaderboard.board import Board


def json(boards: Sequence[Board]) -> str:
    """A list of boards; those of suites with one classifier say nothing of several."""
    several = any(board.classifier for board in boards)
    unsaid = None if several else {"__all__": {"classifier", "across"}}
    return TypeAdapter(list[Board]).dump_json(list(boards), indent=1, exclude=unsaid).decode() + "\n"
