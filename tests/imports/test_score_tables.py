"""Tables and archives of scores: what they may hold, and one sentence for what they may not."""

import io
import pickle
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pickled import scores

import oodbench
from oodbench.errors import UsageError
from oodbench.imports.openood import read_openood
from oodbench.imports.tables import read_csv, read_npz, read_parquet_table

HEAD = "dataset,label,prediction,score,index,group"
ROWS = ["known,0,0,0.5,1,-", "known,1,0,0.75,0,-", "far-off,-1,2,0.875,7,far", "near-by,-1,-1,0.625,3,near"]


def table(head=HEAD, rows=ROWS):
    return "\n".join([head, *rows, ""]).encode()


def parquet(**changed):
    columns = {
        "dataset": ["known", "known", "far-off"],
        "label": [0, 1, -1],
        "prediction": [0, 0, 2],
        "score": np.array([0.5, 0.75, 0.875], np.float32),
    } | changed
    written = io.BytesIO()
    pq.write_table(pa.table({name: values for name, values in columns.items() if values is not None}), written)
    return written.getvalue()


def archive(**changed):
    arrays = {
        "known/score": np.array([0.5, 0.75], np.float32),
        "known/label": np.array([0, 1]),
        "known/prediction": np.array([0, 0]),
        "far/far-off/score": np.array([0.875], np.float32),
    } | {name.replace("__", "/"): values for name, values in changed.items()}
    written = io.BytesIO()
    np.savez(written, **{name: values for name, values in arrays.items() if values is not None})
    return written.getvalue()


def read(reader, content):
    return reader(content, Path("a_s0"), "known")


def test_a_table_is_read_and_sorted_by_its_index():
    found = read(read_csv, table())
    assert (found.known.name, found.known.group) == ("known", "-")
    assert found.known.indices.tolist() == [0, 1]
    assert found.known.labels.tolist() == [1, 0]
    assert found.known.predictions.tolist() == [0, 0]
    assert found.known.scores.tolist() == [0.75, 0.5]
    assert [(one.name, one.group, one.indices.tolist()) for one in found.unknown] == [
        ("far-off", "far", [7]), ("near-by", "near", [3]),
    ]  # fmt: skip
    assert found.unknown[1].predictions.tolist() == [-1]
    assert found.meta is None


def test_index_and_group_may_be_missing():
    rows = [row.rpartition(",")[0].rpartition(",")[0] for row in ROWS]
    found = read(read_csv, table("dataset,label,prediction,score", rows))
    assert found.known.indices.tolist() == [0, 1]
    assert found.known.scores.tolist() == [0.5, 0.75]
    assert [one.group for one in found.unknown] == ["-", "-"]


@pytest.mark.parametrize(("reader", "content"), [(read_parquet_table, parquet()), (read_npz, archive())])
def test_other_formats_say_the_same_and_keep_their_precision(reader, content):
    found = read(reader, content)
    assert found.known.labels.tolist() == [0, 1]
    assert found.known.scores.tolist() == [0.5, 0.75]
    assert found.known.scores.dtype == np.float32
    assert [(one.name, one.scores.tolist()) for one in found.unknown] == [("far-off", [0.875])]


def test_our_own_files_of_scores_can_be_imported(tiny_suite, tmp_path):
    (record,) = oodbench.run(tiny_suite, ["entropy"], ["unknown-unknowns"], out=tmp_path / "own")
    own = tmp_path / "own" / record.scores.path
    (imported,) = oodbench.import_scores(
        "parquet", [own], "tiny", "entropy", out=tmp_path / "out", seeds=[0], protocols=["unknown-unknowns"]
    )
    assert imported.classifier.accuracy == pytest.approx(record.classifier.accuracy)
    for mine, theirs in zip(imported.results, record.results, strict=True):
        without = {name for name in theirs.metrics if not name.endswith("meta_accuracy")}
        assert {name: mine.metrics[name] for name in without} == {name: theirs.metrics[name] for name in without}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (table(HEAD.replace("prediction", "guess")), "lacks the column 'prediction'; expected dataset, label"),
        (table(HEAD.replace("index", "seed")), "has the column 'seed'; expected .*; a seed has its own file"),
        (table(HEAD.replace("index", "score")), "has the column 'score'; expected .* once each"),
        (table(rows=[]), "has no rows"),
        (table(rows=[*ROWS, "known,0,0,nan,2,-"]), "known has 1 of 3 scores that are NaN or infinite"),
        (table(rows=[*ROWS, "known,0,0,-inf,2,-"]), "known has 1 of 3 scores that are NaN or infinite"),
        (table(rows=[*ROWS, "known,0,0,,2,-"]), "score has 1 gaps"),
        (table(rows=[*ROWS, "known,0,0,high,2,-"]), "is no CSV table of scores: .*'high'"),
        (table(rows=[*ROWS, "known,0.5,0,1,2,-"]), "is no CSV table of scores: .*'0.5'"),
        (table(rows=[*ROWS, "known,0,0"]), "is no CSV table of scores: .*Expected 6 columns, got 3"),
        (table(rows=[*ROWS, ",0,0,1,2,-"]), "a set of the name ''; expected a printable one"),
        (table(rows=[*ROWS, "known,-1,0,1,2,-"]), "known has 1 samples of the label −1 among 3"),
        (table(rows=[*ROWS, "known,-2,0,1,2,-"]), "known has labels from -2 to 1; expected numbers from 0 on"),
        (table(rows=[*ROWS, "known,0,-1,1,2,-"]), "known has predictions from -1 to 0; expected numbers from 0 on"),
        (table(rows=[*ROWS, "far-off,-1,-2,1,2,far"]), "far-off has predictions from -2"),
        (table(rows=[*ROWS, "known,0,0,1,1,-"]), "known has the index 1 twice"),
        (table(rows=[*ROWS, "known,0,0,1,-1,-"]), "known has indices from -1"),
        (table(rows=[*ROWS, "far-off,-1,0,1,8,near"]), "far-off is of the group far, near; expected one of"),
        (table(rows=[*ROWS, "b,-1,0,1,8,middle"]), "b is of the group middle"),
        (table(rows=[*ROWS, "test,0,0,1,2,-"]), r"2 known sets \(known, test\); expected one"),
        (table(rows=ROWS[2:]), r"0 known sets \(none\); expected one, the known test set"),
        (table(rows=ROWS[:2]), "no unknown set; expected at least one beside known"),
        (table(rows=[*ROWS, "set (meta),-1,0,1,8,far"]), r"a set of the name 'set \(meta\)'"),
        (b"", "is no CSV table of scores"),
        (b"\xff\xfe\x00", "a_s0"),
    ],
)
def test_a_table_that_cannot_be_used_is_refused(content, words):
    with pytest.raises(UsageError, match=words):
        read(read_csv, content)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (parquet(label=None), "lacks the column 'label'"),
        (parquet(label=[0.0, 1.0, -1.0]), "labels of shape .* and float64; expected .* whole numbers"),
        (parquet(label=["0", "1", "-1"]), "label is a column of string; expected numbers"),
        (parquet(score=["a", "b", "c"]), "score is a column of string"),
        (parquet(score=[0.5, None, 0.5]), "score has 1 gaps"),
        (parquet(dataset=[1, 2, 3]), "dataset is a column of int64"),
        (parquet(group=[1, 2, 3]), "group is a column of int64"),
        (parquet()[:-20], "is no parquet file"),
        (b"PAR1", "is no parquet file"),
    ],
)
def test_a_parquet_file_that_cannot_be_used_is_refused(content, words):
    with pytest.raises(UsageError, match=words):
        read(read_parquet_table, content)


def bomb(member_bytes, shape):
    header = repr({"descr": "<f4", "fortran_order": False, "shape": shape}).encode()
    header += b" " * (-(len(header) + 11) % 64) + b"\n"
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w", zipfile.ZIP_DEFLATED) as packed, packed.open("a/score.npy", "w") as member:
        member.write(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header)
        for _ in range(member_bytes >> 20):
            member.write(bytes(1 << 20))
    return written.getvalue()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (archive(known__label=None, known__prediction=None), r"0 known sets \(none\)"),
        (archive(known__prediction=None), "known has no array 'prediction'; it has: score, label"),
        (archive(far__b__index=np.arange(3)), "far/b has no array 'score'; it has: index"),
        (archive(far__b__score=np.array([], np.float32)), r"far/b has scores of shape \(0,\)"),
        (archive(far__b__score=np.array([np.nan])), "far/b has 1 of 1 scores that are NaN or infinite"),
        (archive(far__b__score=np.eye(2)), r"the shape \(2, 2\), and \(n,\) is expected"),
        (archive(far__b__score=np.array(["a"])), "far/b/score.npy has values of <U1"),
        (archive(far__b__score=np.array([True])), "far/b has scores of bool; expected floats"),
        (archive(middle__b__score=np.ones(2)), "has the array 'middle/b/score'; expected NAME/score, near/NAME/score"),
        (archive(scores=np.ones(2)), "has the array 'scores'; expected NAME/score"),
        (archive(known__label=np.array([0, -1])), "known has labels from -1 to 0"),
        (archive(known__label=np.array([0, 1, 2])), r"known has labels of shape \(3,\)"),
        (archive(known__label=np.array([0, 2**63], np.uint64)), "known has labels from 0 to 9223372036854775808"),
        (archive(far__b__score=np.array([{}], dtype=object)), r"not a readable numpy archive \(.npz without pickled"),
        (bomb(1 << 20, (1 << 40,)), "has 1,048,576 bytes and the shape"),
        (bomb(1100 << 20, (275 << 20,)), "has 1 arrays of 1,1.* bytes; expected at most"),
        (archive()[:-30], "not a readable numpy archive"),
        (b"", "not a readable numpy archive"),
    ],
)
def test_an_archive_that_cannot_be_used_is_refused(content, words):
    with pytest.raises(UsageError, match=words):
        read(read_npz, content)


def changed(**paths):
    """OpenOOD's scores with some parts replaced, such as ``ood__near``."""
    content = scores(n=20)
    for path, value in paths.items():
        *parents, last = path.split("__")
        place = content
        for name in parents:
            place = place[name] if isinstance(place, dict) else place[int(name)]
        place[int(last) if last.isdigit() else last] = value
    return content


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ([1, 2], r"a.pkl has no dict 'id'; expected \{id: \{test\}"),
        (changed(id=None), "has no dict 'id'"),
        (changed(ood={"near": [1], "far": {}}), "ood has no dict 'near'"),
        (changed(id__test=None), "no scores of the known test set; expected .* as id/test"),
        (changed(ood={"near": None, "far": {}}), "no unknown set"),
        (changed(ood__near={"cifar100": None}, ood__far={"svhn": None}), "no unknown set"),
        (changed(ood__near__cifar100=[1, 2]), r"ood/near/cifar100 has something else than \[pred, conf, gt\]"),
        (changed(ood__near__cifar100__1=None), "ood/near/cifar100: conf is a NoneType, which is not read"),
        (changed(ood__near__cifar100__1=np.full(20, np.nan)), "cifar100 has 20 of 20 scores that are NaN"),
        (changed(ood__near__cifar100__1=np.arange(20)), "cifar100 has conf of int64; expected floats"),
        (changed(ood__near__cifar100__1=np.ones((20, 1))), r"cifar100: conf has the shape \(20, 1\)"),
        (changed(ood__near__cifar100__2=np.full(9, -1)), "cifar100 has 20 scores and 9 labels"),
        (changed(id__test__2=np.full(20, -1)), "id/test has labels from -1 to -1; expected numbers from 0 on"),
        (changed(id__test__0=np.full(9, 1)), r"id/test has predictions of shape \(9,\)"),
        (changed(id__test__0=np.ones(20)), "id/test has predictions of shape .* and float64"),
    ],
)
def test_scores_of_openood_that_cannot_be_used_are_refused(content, words):
    with pytest.raises(UsageError, match=words):
        read_openood(pickle.dumps(content), Path("a.pkl"), "known")


def test_what_is_left_out_is_said():
    content = changed(csid__cifar10c=[1], ood__val=[2], ood__near={"tin": None})
    found = read_openood(pickle.dumps(content), Path("a.pkl"), "known")
    assert found.left_out == [
        "sets of covariate shift are not imported: cifar10c",
        "the validation unknowns ood/val are not imported",
        "there are no scores of ood/near/tin",
    ]
    assert [one.name for one in found.unknown] == ["svhn"]
    assert not read_openood(pickle.dumps(scores()), Path("a.pkl"), "known").left_out


def test_unknown_samples_have_no_label_whatever_the_file_says():
    found = read_openood(pickle.dumps(changed(ood__near__cifar100__2=np.arange(20))), Path("a.pkl"), "known")
    assert set(found.unknown[0].labels) == {-1}


@pytest.mark.parametrize(
    ("extra", "column"),
    [({"seed": [0, 0, 0]}, "seed"), ({"Index": [0, 1, 2]}, "Index"), ({"model": ["a", "b", "c"]}, "model")],
)
def test_no_column_of_a_parquet_file_is_dropped_in_silence(extra, column):
    with pytest.raises(UsageError, match=f"has the column '{column}'; .* a seed has its own file"):
        read(read_parquet_table, parquet(**extra))


def test_a_column_that_is_there_twice_is_refused():
    names = ["dataset", "label", "prediction", "score", "index", "index"]
    columns = [["known", "known", "far"], [0, 1, -1], [0, 0, 2], [0.5, 0.75, 0.875], [0, 1, 0], [1, 0, 0]]
    written = io.BytesIO()
    pq.write_table(pa.table(columns, names=names), written)
    with pytest.raises(UsageError, match=r"has the column 'index'; .* once each"):
        read(read_parquet_table, written.getvalue())


@pytest.mark.parametrize("second", ["far/far-off/score.npy", "far/far-off/score"])
def test_an_array_that_is_there_twice_is_refused(second):
    content = io.BytesIO(archive())
    with warnings.catch_warnings(), zipfile.ZipFile(content, "a") as added:
        warnings.simplefilter("ignore", UserWarning)
        added.writestr(second, added.read("far/far-off/score.npy"))
    with pytest.raises(UsageError, match="has the array 'far/far-off/score' twice"):
        read(read_npz, content.getvalue())
