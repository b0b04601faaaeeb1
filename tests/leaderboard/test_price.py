"""The price of a detector in forward passes, and which nothing cheaper beats."""

import shutil

import pytest
from in_process import command_line
from small import small_suite

import oodbench
from oodbench.leaderboard.assembly import boards, digest
from oodbench.records.verification import read_verified


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("price")
    names = ["entropy", "grad-l2", "grad-combo", "git-style", "random"]
    oodbench.run(small_suite(folder), names, ["unknown-unknowns", "known"], out=folder / "out")
    return folder


@pytest.fixture(scope="module")
def cells(folder):
    scored, rejected = read_verified([folder / "out"], resample=False)
    assert not rejected
    return scored


@pytest.fixture(scope="module")
def table(cells):
    (board,) = boards(cells)
    return next(table for table in board.tables if table.protocol == "unknown-unknowns")


def test_prices_are_costs_in_forward_passes(cells, table):
    by_name = {row.detector: row.price for row in table.rows}
    for scored in cells:
        timing = scored.record.timing
        if scored.record.protocol == "unknown-unknowns":
            cost = timing.evidence_ms_per_sample + timing.score_ms_per_sample
            assert by_name[scored.record.detector.name] == pytest.approx(cost / timing.forward_ms_per_sample, rel=1e-4)
    # A forward pass, a forward and a backward one with its statistics, and five of these.
    assert 1 <= by_name["entropy"] < by_name["grad-l2"] < by_name["git-style"]


def test_the_front_is_what_nothing_cheaper_beats(table):
    column = next(i for i, one in enumerate(table.columns) if one.ranks)
    for row in table.rows:
        better = [
            other.detector
            for other in table.rows
            if other.price < row.price and other.figures[column].value >= row.figures[column].value
        ]
        assert row.on_front == (not better), (row.detector, better)
    cheapest = min(table.rows, key=lambda row: row.price)
    assert cheapest.on_front


@pytest.mark.parametrize("ending", [".md", ".html", ".csv", ".tex", ".json"])
def test_boards_show_it_and_follow_from_their_records(folder, tmp_path, ending):
    shutil.copytree(folder / "out", tmp_path / "out")
    board = f"board{ending}"
    assert command_line("leaderboard", "build", "out", "-o", board, cwd=tmp_path).returncode == 0
    assert command_line("leaderboard", "check", "out", "-o", board, cwd=tmp_path).returncode == 0
    text = (tmp_path / board).read_text()
    if ending in (".md", ".html"):
        assert "× forward" in text
        assert "◆" in text
    if ending == ".csv":
        assert "price" in text.splitlines()[0]


def test_records_without_it_have_no_column_and_keep_their_digest(cells):
    old = [
        scored.__class__(
            scored.record.model_copy(
                update={"timing": scored.record.timing.model_copy(update={"forward_ms_per_sample": None})}
            ),
            scored.file,
            scored.samples,
            scored.known,
        )
        for scored in cells
    ]
    (board,) = boards(old)
    assert all(row.price is None and not row.on_front for table in board.tables for row in table.rows)
    assert "× forward" not in board.model_dump_json()
    lines = [
        record.model_dump_json(exclude={"timing": {"forward_ms_per_sample"}}) for record in (o.record for o in old)
    ]
    assert not any("forward_ms" in line for line in lines)
    assert digest([one.record for one in old]) != digest([one.record for one in cells])
