"""The boards in `leaderboards/` hold what they promise; `leaderboard check` says if they follow from their records."""

from pathlib import Path

import pytest

from oodbench import registry
from oodbench.records.record import Record

PUBLISHED = Path(__file__).parent.parent / "leaderboards"


def built_in(kind):
    return {name for name, entry in registry.entries(kind).items() if entry.distribution == "oodbench"}


@pytest.mark.parametrize("name", ["digits", "emnist"])
def test_published_boards_have_five_seeds_of_all_detectors_and_protocols(name):
    files = sorted((PUBLISHED / name / "records").glob("*.json"))
    records = [Record.model_validate_json(file.read_bytes()) for file in files]
    assert {record.status for record in records} == {"ok"}
    assert {record.suite.limit for record in records} == {None}
    whole = [record for record in records if record.detector.params.get("layer") is None]
    assert len({record.seed for record in whole}) == 5
    assert {record.detector.name for record in whole} == built_in("detectors")
    assert {record.protocol for record in whole} == built_in("protocols")
    assert len(whole) == 5 * 20 * (1 + 1 + 5 + 4)
    assert any(record.detector.params.get("layer") is not None for record in records)
    text = (PUBLISHED / f"{name}.md").read_text(encoding="utf-8")
    assert sum(text.count(f"**{outcome}**") for outcome in ("held", "did not hold", "not separable")) == 4
    assert (PUBLISHED / f"{name}.html").stat().st_size < 500_000
