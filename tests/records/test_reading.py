"""The door to results: records, their scores on demand, and tables of all that they say."""

import builtins
import json
import shutil

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

import oodbench
from oodbench.errors import MissingPrerequisiteError, UsageError
from oodbench.records.verification import read_verified


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A results folder with cells that are ok and cells that are skipped."""
    out = tmp_path_factory.mktemp("results")
    detectors = ["entropy", "knn:k=3", "mcm"]
    oodbench.run("digits", detectors, ["known", "unknown-unknowns"], [0], limit=60, out=out)
    return out


def test_a_table_has_a_row_for_each_record_data_set_and_metric(folder):
    results = oodbench.read_results(folder)
    table = results.to_arrow()
    rows = {(row["cell_id"], row["dataset"], row["metric"]): row for row in table.to_pylist()}
    assert len(rows) == table.num_rows
    expected = {
        (record.cell_id, result.dataset, name): metric
        for record in results.records
        for result in record.results
        for name, metric in result.metrics.items()
    }
    assert rows.keys() == expected.keys()
    assert all(row["value"] == expected[key].value for key, row in rows.items())
    assert all(
        (row["ci_low"], row["ci_high"]) == (expected[key].ci_low, expected[key].ci_high) for key, row in rows.items()
    )


def test_a_row_says_what_its_record_says(folder):
    results = oodbench.read_results(folder)
    row = next(row for row in results.to_arrow().to_pylist() if row["detector"] == "knn" and row["role"] == "unknown")
    record = next(record for record in results.records if record.cell_id == row["cell_id"])
    assert json.loads(row["parameters"]) == record.detector.params
    assert row["parameters"].count('"k": 3') == 1
    assert (row["protocol"], row["exposed"], row["seed"]) == ("unknown-unknowns", [], 0)
    assert (row["suite"], row["suite_version"], row["limit"]) == ("digits", 1, 60)
    assert (row["classifier"], row["accuracy"]) == ("cnn", record.classifier.accuracy)


def test_cells_without_results_are_among_the_records_and_have_no_rows(folder):
    results = oodbench.read_results(folder)
    skipped = {record.cell_id for record in results.records if record.status == "skipped"}
    assert len(skipped) == 2
    assert skipped.isdisjoint(results.to_arrow()["cell_id"].to_pylist())


def test_a_data_frame_is_the_same_table(folder):
    results = oodbench.read_results(folder)
    frame = results.to_dataframe()
    assert list(frame.columns) == results.to_arrow().column_names
    assert frame.value.tolist() == results.to_arrow()["value"].to_pylist()


def test_without_pandas_a_data_frame_is_one_sentence(folder, monkeypatch):
    imported = builtins.__import__

    def refuse(name, *rest):
        if name.partition(".")[0] == "pandas":
            raise ModuleNotFoundError("No module named 'pandas'", name="pandas")
        return imported(name, *rest)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(MissingPrerequisiteError, match=r"oodbench\[dataframe\]"):
        oodbench.read_results(folder).to_dataframe()


def test_the_figures_follow_from_the_scores(folder):
    results = oodbench.read_results(folder)
    for row in results.to_arrow().to_pylist():
        if row["metric"] == "auroc" and row["role"] == "unknown":
            record = next(record for record in results.records if record.cell_id == row["cell_id"])
            scores = results.scores(record).to_pylist()
            known = [one["score"] for one in scores if one["label"] >= 0]
            unknown = [one["score"] for one in scores if one["dataset"] == row["dataset"]]
            assert (len(known), len(unknown)) == (row["n_known"], row["n_unknown"])
            area = roc_auc_score([0] * len(known) + [1] * len(unknown), known + unknown)
            assert row["value"] == pytest.approx(area, abs=1e-6)


def test_scores_are_those_of_the_records_own_test_sets(folder):
    results = oodbench.read_results(folder)
    known = next(record for record in results.records if record.protocol == "known" and record.status == "ok")
    assert set(results.scores(known)["dataset"].to_pylist()) == {"digits-0-6"}


def test_scores_that_are_not_there_or_were_changed_are_one_sentence(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "copy")
    results = oodbench.read_results(tmp_path / "copy")
    skipped = next(record for record in results.records if record.status == "skipped")
    with pytest.raises(UsageError, match="has no scores"):
        results.scores(skipped)
    entropy = next(record for record in results.records if record.detector.name == "entropy")
    other = next(record for record in results.records if record.detector.name == "knn")
    shutil.copy(tmp_path / "copy" / other.scores.path, tmp_path / "copy" / entropy.scores.path)
    with pytest.raises(UsageError, match="they were changed"):
        results.scores(entropy)
    (tmp_path / "copy" / other.scores.path).unlink()
    with pytest.raises(UsageError, match="are not there"):
        results.scores(other)


def test_damaged_records_are_named_and_the_others_read(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "copy")
    first, second, *rest = sorted((tmp_path / "copy" / "records").glob("*.json"))
    first.write_text(first.read_text()[:100])
    second.rename(second.with_stem("0" * 16))
    results = oodbench.read_results(tmp_path / "copy")
    assert len(results.records) == len(rest)
    assert {rejected.file.name for rejected in results.rejected} == {first.name, "0" * 16 + ".json"}


def test_a_cell_that_several_folders_have_is_read_once_and_told_where_its_scores_differ(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "copy")
    same = oodbench.read_results(folder, tmp_path / "copy")
    assert len(same.records) == len(oodbench.read_results(folder).records)
    assert not same.rejected
    file = next(file for file in (tmp_path / "copy" / "records").glob("*.json") if '"status": "ok"' in file.read_text())
    record = json.loads(file.read_text())
    record["scores"]["sha256"] = "0" * 64
    file.write_text(json.dumps(record))
    differing = oodbench.read_results(folder, tmp_path / "copy")
    assert [rejected.file for rejected in differing.rejected] == [file]
    assert "with other scores" in differing.rejected[0].reason


def test_a_cell_of_two_requests_has_the_same_scores_in_other_files(folder, tmp_path):
    """The file of scores holds all test sets of a run, so that its hash differs with what else was asked for."""
    oodbench.run("digits", ["entropy"], ["known"], [0], limit=60, out=tmp_path / "fewer")
    results = oodbench.read_results(folder, tmp_path / "fewer")
    assert not results.rejected
    assert len(results.records) == len(oodbench.read_results(folder).records)
    verified, rejected = read_verified([folder, tmp_path / "fewer"], resample=False)
    assert not rejected
    assert len(verified) == len(results.records)


def test_a_finished_record_stands_before_a_failed_one_of_its_cell(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "copy")
    file = next(file for file in (tmp_path / "copy" / "records").glob("*.json") if '"status": "ok"' in file.read_text())
    failed = json.loads(file.read_text()) | {"status": "failed", "error": "e", "scores": None, "results": []}
    file.write_text(json.dumps(failed))
    for folders in ((folder, tmp_path / "copy"), (tmp_path / "copy", folder)):
        results = oodbench.read_results(*folders)
        (record,) = [record for record in results.records if record.cell_id == file.stem]
        assert record.status == "ok"
        assert results.scores(record).num_rows


def test_what_is_no_folder_or_no_record_is_one_sentence(folder):
    with pytest.raises(UsageError, match="several as arguments of their own"):
        oodbench.read_results([folder, folder])
    with pytest.raises(UsageError, match="one of these results' records"):
        oodbench.read_results(folder).scores("entropy")
    assert len(repr(oodbench.read_results(folder))) < 80


def test_a_folder_without_records_is_one_sentence(tmp_path):
    with pytest.raises(MissingPrerequisiteError, match="no records in"):
        oodbench.read_results(tmp_path)


def test_evidence_and_records_are_public_names():
    import torch

    evidence = oodbench.Evidence(torch.zeros(3, 2))
    assert np.array_equal(evidence.predictions, [0, 0, 0])
    assert "cell_id" in oodbench.Record.model_fields
