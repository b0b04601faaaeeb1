"""The boards in `leaderboards/` follow from the records beside them."""

from pathlib import Path

import pytest

from oodbench.leaderboard.markdown import board
from oodbench.records.store import read_records

PUBLISHED = Path(__file__).parent.parent / "leaderboards"


@pytest.mark.parametrize("name", ["digits", "emnist"])
def test_published_boards_follow_from_their_records(name):
    published = PUBLISHED / f"{name}.md"
    note = (PUBLISHED / name / "note.txt").read_text(encoding="utf-8").strip()
    records = read_records([PUBLISHED / name])
    assert board(records, note) == published.read_text(encoding="utf-8")
    assert len({record.seed for record in records}) >= 3
    assert {record.status for record in records} == {"ok"}
