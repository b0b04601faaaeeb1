"""Boards are pure functions of records."""

import os
import subprocess
import sys

import pytest

import oodbench
from oodbench.errors import MissingPrerequisiteError, UsageError
from oodbench.leaderboard.markdown import board
from oodbench.leaderboard.tables import tables
from oodbench.records.record import Metric
from oodbench.records.store import read_records


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    folder = tmp_path_factory.mktemp("board")
    oodbench.run(
        "digits", ["entropy", "grad-all", "constant", "grad-l2:layer=conv1", "grad-l2"], seeds=[0, 1], out=folder
    )
    return folder


@pytest.fixture(scope="module")
def records(out):
    return read_records([out])


def table_of(records, protocol):
    return next(table for table in tables(records) if table.title == protocol)


def row_of(table, *label):
    (row,) = [row for row in table.rows if tuple(row[: len(label)]) == label]
    return dict(zip(table.header, row, strict=True))


def test_figures_are_means_and_sample_deviations_over_seeds(records):
    values = [
        next(r for r in record.results if r.dataset == "noise").metrics["auroc"].value
        for record in records
        if record.protocol == "unknown-unknowns" and record.detector.name == "entropy"
    ]
    mean, deviation = sum(values) / 2, abs(values[0] - values[1]) / 2**0.5
    assert row_of(table_of(records, "unknown-unknowns"), "entropy")["noise"] == f"{mean:.4f} ± {deviation:.4f}"


def test_a_single_seed_has_no_spread(records):
    single = [record for record in records if record.seed == 0]
    assert not any("±" in text for table in tables(single) for row in table.rows for text in row)


def test_the_matrix_marks_what_was_exposed_and_joins_what_exposure_does_not_change(records):
    table = table_of(records, "known-unknowns")
    exposed = row_of(table, "grad-all", "noise")
    assert exposed["noise"].endswith(" *")
    assert not exposed["patches"].endswith(" *")
    assert all(row_of(table, "grad-all", "all")[name].endswith(" *") for name in ("noise", "patches", "digits-7-9"))
    assert row_of(table, "entropy", "(no effect)")["noise"]
    assert len([row for row in table.rows if row[0] == "grad-all"]) == 5


def test_rows_are_ranked_by_the_data_sets_and_group_means_are_means(records):
    for table in tables(records):
        ranking = (
            ["failure AUROC"] if table.title == "known" else ["digits-7-9", "rendered-letters", "patches", "noise"]
        )
        columns = [table.header.index(name) for name in ranking]
        means = [sum(float(row[column].split()[0]) for column in columns) for row in table.rows]
        assert means == sorted(means, reverse=True)
    row = row_of(table_of(records, "leave-one-out"), "entropy")
    far = (float(row["patches"].split()[0]) + float(row["noise"].split()[0])) / 2
    assert float(row["far mean"].split()[0]) == pytest.approx(far, abs=1e-4)


def test_detectors_with_several_parameters_are_told_apart(records):
    labels = {row[0] for row in table_of(records, "known").rows}
    assert {"grad-l2", "grad-l2:layer=conv1", "grad-all"} <= labels


def without(records, protocol, detector, seed):
    return [r for r in records if (r.protocol, r.detector.name, r.seed) != (protocol, detector, seed)]


def test_nothing_is_averaged_over_missing_cells(records):
    """A detector that lacks a seed stands below the complete ones, with a dash and without a figure."""
    table = table_of(without(records, "unknown-unknowns", "grad-all", 1), "unknown-unknowns")
    assert table.rows[-1][0] == "grad-all"
    assert set(table.rows[-1][1:]) == {"—"}


def test_a_missing_value_takes_its_group_mean_along(records):
    changed = []
    for record in records:
        if record.protocol == "unknown-unknowns" and record.detector.name == "entropy":
            results = [
                r.model_copy(update={"metrics": r.metrics | {"auroc": Metric(value=None)}})
                if r.dataset == "noise"
                else r
                for r in record.results
            ]
            changed.append(record.model_copy(update={"results": results}))
        else:
            changed.append(record)
    row = row_of(table_of(changed, "unknown-unknowns"), "entropy")
    assert row["noise"] == row["far mean"] == "—"
    assert row["near mean"] != "—"


def test_failed_and_skipped_cells_are_named(records):
    failed = [
        record.model_copy(update={"status": "failed", "error": "it raised | [x](y)", "results": []})
        if record.detector.name == "constant" else record
        for record in records
    ]  # fmt: skip
    text = board(failed)
    assert "constant, seed 0: failed: it raised \\| \\[x\\](y)" in text
    assert table_of(failed, "known").rows[-1][1:] == ["—"] * 4


def test_a_table_of_failures_only_has_no_columns_of_figures(records):
    failed = [r.model_copy(update={"status": "failed", "error": "no", "results": []}) for r in records]
    table = table_of(failed, "known")
    assert table.header == ["detector"]
    assert table.caption == "No cell has a result"
    assert len(table.notes) == len([r for r in records if r.protocol == "known"])


def test_the_same_records_give_the_same_bytes_in_any_order(records):
    assert board(records) == board(list(reversed(records)))


def test_a_board_states_counts_hashes_seeds_and_accuracy(records):
    text = board(records, "A remark.")
    record = records[0]
    assert "A remark." in text
    assert f"`{record.datasets['digits-0-6 (train)'].sha256[:16]}`" in text
    assert f"{record.classifier.accuracy:.4f}" in text
    assert "seeds 0, 1" in text
    assert "subset" not in text, "the embedded suite uses what there is"


def test_a_subset_of_the_official_data_is_called_one(records):
    changed = []
    for record in records:
        parts = {
            name: part.model_copy(update={"available": 10, "official": 20, "adapter": "mnist", "split": "test"})
            for name, part in record.datasets.items()
        }
        changed.append(record.model_copy(update={"datasets": parts}))
    assert "**Made on a subset of the data.** Found of the official samples: mnist (test): 10 of 20." in board(changed)


def test_limited_runs_never_reach_a_board(tmp_path):
    oodbench.run("digits", ["entropy"], ["known"], [0], limit=30, out=tmp_path)
    command = [sys.executable, "-m", "oodbench", "leaderboard", "build", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ, check=False)
    assert done.returncode == 2
    assert "runs with --limit" in done.stderr


def test_the_command_line_writes_the_same_board(out, records, tmp_path):
    command = [sys.executable, "-m", "oodbench", "leaderboard", "build", str(out), "-o", str(tmp_path / "b.md")]
    assert subprocess.run(command, env=os.environ, check=False).returncode == 0
    assert (tmp_path / "b.md").read_text(encoding="utf-8") == board(records)


def test_a_damaged_record_is_named(out, tmp_path):
    (tmp_path / "records").mkdir()
    kept = next((out / "records").glob("*.json"))
    (tmp_path / "records" / "x.json").write_text(kept.read_text()[:-40])
    with pytest.raises(UsageError, match=r"x\.json is no valid record"):
        read_records([tmp_path])
    with pytest.raises(MissingPrerequisiteError, match="no records"):
        read_records([tmp_path / "other"])


def test_tables_come_in_the_order_of_the_protocols_and_columns_in_that_of_the_suite(records):
    for order in (records, list(reversed(records))):
        found = tables(order)
        assert [t.title for t in found] == ["known", "unknown-unknowns", "known-unknowns", "leave-one-out"]
        for table in found[1:]:
            columns = [name for name in table.header if name in ("digits-7-9", "rendered-letters", "patches", "noise")]
            assert columns == ["digits-7-9", "rendered-letters", "patches", "noise"]


def test_two_records_of_one_cell_under_other_conditions_are_refused(records):
    twin = records[0].model_copy(update={"cell_id": "0" * 16})
    with pytest.raises(UsageError, match=f"{records[0].cell_id} and 0{{16}} are both of"):
        board([*records, twin])
