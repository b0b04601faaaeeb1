"""Records that were changed by hand are caught, and the message says which and why."""

import json
import shutil

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

import oodbench
from oodbench.errors import MissingPrerequisiteError
from oodbench.records.verification import read_verified


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    oodbench.run("digits", ["entropy", "entropy-meta"], ["known", "unknown-unknowns"], seeds=[0], out=folder)
    return folder


@pytest.fixture
def copied(made, tmp_path):
    return shutil.copytree(made, tmp_path / "copy")


def record_of(folder, protocol="unknown-unknowns", detector="entropy"):
    for file in (folder / "records").glob("*.json"):
        record = json.loads(file.read_text())
        if (record["protocol"], record["detector"]["name"]) == (protocol, detector):
            return file, record
    raise AssertionError


def rejected(folder):
    scored, faults = read_verified([folder])
    assert len(scored) + len(faults) == 4
    return [str(fault) for fault in faults]


def changed(folder, change, **which):
    file, record = record_of(folder, **which)
    change(record)
    file.write_text(json.dumps(record))
    (fault,) = rejected(folder)
    assert str(file) in fault
    return fault


def test_records_as_they_were_made_are_accepted(copied):
    assert rejected(copied) == []


def test_a_changed_score_is_caught(copied):
    file, record = record_of(copied)
    scores = copied / record["scores"]["path"]
    table = pq.read_table(scores)
    raised = pc.add(table["score"], pa.array([0.0] * 7 + [1e-3] + [0.0] * (len(table) - 8), table["score"].type))
    pq.write_table(table.set_column(table.column_names.index("score"), "score", raised), scores)
    faults = rejected(copied)
    assert len(faults) == 2, "both records share the file"
    assert all("the SHA-256 of its scores is not that of the file" in fault for fault in faults)
    assert any(str(file) in fault for fault in faults)


def test_a_changed_score_with_its_hash_is_caught_by_the_metrics(copied):
    import hashlib

    file, record = record_of(copied)
    scores = copied / record["scores"]["path"]
    table = pq.read_table(scores)
    order = pc.sort_indices(table["score"])
    moved = table["score"].to_pylist()
    moved[order[0].as_py()] = moved[order[len(moved) - 1].as_py()] + 1
    moved = pa.array(moved, table["score"].type)
    pq.write_table(table.set_column(table.column_names.index("score"), "score", moved), scores)
    for one in (copied / "records").glob("*.json"):
        text = json.loads(one.read_text())
        if text["scores"]["path"] == record["scores"]["path"]:
            text["scores"]["sha256"] = hashlib.sha256(scores.read_bytes()).hexdigest()
            one.write_text(json.dumps(text))
    faults = [fault for fault in rejected(copied) if str(file) in fault]
    assert faults, "the metrics of the record are not those of the changed scores"
    assert "and its scores give" in faults[0]


@pytest.mark.parametrize("key", ["value", "ci_low", "ci_high"])
@pytest.mark.parametrize("metric", ["auroc", "fpr95_known_positive", "failure_meta_accuracy"])
def test_a_changed_metric_is_caught(copied, metric, key):
    def change(record):
        record["results"][1]["metrics"][metric][key] += 2e-5

    fault = changed(copied, change)
    name = record_of(copied)[1]["results"][1]["dataset"]
    assert f"{name}: {metric}.{key} is" in fault
    assert "its scores give" in fault


@pytest.mark.parametrize("metric", ["aurc", "augrc", "ece", "failure_aupr_known"])
def test_a_changed_metric_of_failure_is_caught(copied, metric):
    def change(record):
        record["results"][0]["metrics"][metric]["value"] *= 1.01

    assert f"{metric}.value is" in changed(copied, change, protocol="known", detector="entropy-meta")


@pytest.mark.parametrize(
    ("what", "change"),
    [
        ("cell_id", lambda record: record["datasets"]["noise"].update(sha256="0" * 64)),
        ("cell_id", lambda record: record["classifier"].update(weights_sha256="0" * 64)),
        ("cell_id", lambda record: record["datasets"]["noise"].update(group="near")),
        ("cell_id", lambda record: record["detector"].update(version="9.9")),
        ("cell_id", lambda record: record.update(seed=5)),
        ("cell_id", lambda record: record.update(exposed=["noise"])),
        ("cell_id", lambda record: record.update(cell_id="0" * 16)),
        ("not that of the file", lambda record: record["scores"].update(sha256="0" * 64)),
        ("not that of the file", lambda record: record["scores"].update(n=5)),
        ("accuracy is 0.99", lambda record: record["classifier"].update(accuracy=0.99)),
        ("n_unknown is 7", lambda record: record["results"][0].update(n_unknown=7)),
        ("group is", lambda record: record["results"][0].update(group="far")),
        ("metric auroc", lambda record: record["results"][0]["metrics"].pop("auroc")),
        ("results; expected", lambda record: record["results"].pop()),
        ("names no scores", lambda record: record.update(scores=None)),
        ("outside its results folder", lambda record: record["scores"].update(path="../../x.parquet")),
        ("is no valid record", lambda record: record["results"][0]["metrics"]["auroc"].update(value=float("nan"))),
        ("is no valid record", lambda record: record["classifier"].update(accuracy=float("nan"))),
        ("it is of a cell that failed, and has results", lambda record: record.update(status="failed")),
        ("which is no path", lambda record: record["scores"].update(path="scores/\0")),
        ("is no valid record: seed", lambda record: record.update(seed="zero")),
        ("is no valid record: extra", lambda record: record.update(extra=1)),
        ("are not there", lambda record: record["scores"].update(path="scores/none.parquet")),
    ],
)
def test_whatever_is_changed_by_hand_is_caught(copied, what, change):
    assert what in changed(copied, change)


def test_a_file_that_is_no_json_is_named(copied):
    file, _ = record_of(copied)
    file.write_text(file.read_text()[:-40])
    (fault,) = rejected(copied)
    assert f"{file}: it is no valid record" in fault


def test_scores_that_are_no_parquet_are_named(copied):
    file, record = record_of(copied)
    (copied / record["scores"]["path"]).write_bytes(b"PAR1 no more")
    assert any(f"{file}: its scores" in fault and "no parquet" in fault for fault in rejected(copied))


def test_a_folder_without_records_is_said_to_be_one(tmp_path):
    with pytest.raises(MissingPrerequisiteError, match="no records"):
        read_verified([tmp_path])


def rewritten(folder, change):
    """The scores of one record after a change, with their hash in all records that share them."""
    import hashlib

    file, record = record_of(folder)
    scores = folder / record["scores"]["path"]
    pq.write_table(change(pq.read_table(scores)), scores)
    for one in (folder / "records").glob("*.json"):
        text = json.loads(one.read_text())
        if text["scores"]["path"] == record["scores"]["path"]:
            text["scores"]["sha256"] = hashlib.sha256(scores.read_bytes()).hexdigest()
            one.write_text(json.dumps(text))
    return [fault for fault in rejected(folder) if str(file) in fault]


@pytest.mark.parametrize("name", ["index", "label", "prediction", "score"])
def test_columns_of_another_type_are_refused(copied, name):
    def as_text(table):
        return table.set_column(table.column_names.index(name), name, table[name].cast(pa.string()))

    (fault,) = rewritten(copied, as_text)
    assert f"the column {name!r} of string; expected" in fault


def test_samples_in_another_order_than_elsewhere_are_refused(copied):
    """All metrics stay the same, but nothing would be paired any more."""

    def turned(table):
        return table.take(pa.array(range(len(table) - 1, -1, -1)))

    rewritten(copied, turned)
    faults = [str(fault) for fault in read_verified([copied], resample=False)[1]]
    assert len(faults) == 2, "the records of one detector, whichever is read second"
    assert all("another order or other labels than those of" in fault for fault in faults)


def test_without_resampling_values_are_still_compared(copied):
    file, record = record_of(copied)
    record["results"][0]["metrics"]["fpr95_known_positive"]["value"] += 0.01
    file.write_text(json.dumps(record))
    _, (fault,) = read_verified([copied], resample=False)
    assert "fpr95_known_positive.value" in str(fault)
    record["results"][0]["metrics"]["fpr95_known_positive"]["value"] -= 0.01
    record["results"][0]["metrics"]["fpr95_known_positive"]["ci_low"] -= 0.01
    file.write_text(json.dumps(record))
    assert read_verified([copied], resample=False)[1] == []
    assert len(read_verified([copied])[1]) == 1


def test_a_record_without_the_version_of_a_package_is_caught(copied):
    file, record = record_of(copied)
    del record["provenance"]["versions"]["scipy"]
    file.write_text(json.dumps(record))
    assert rejected(copied) == [f"{file}: it lacks the version of scipy."]
