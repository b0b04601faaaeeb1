"""Imported scores give the figures that they gave elsewhere, in records that work as those of a run."""

import csv
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
from in_process import command_line
from pickled import scores, write
from sklearn.metrics import roc_auc_score, roc_curve

import oodbench
from oodbench.cli.import_ import command
from oodbench.comparison.pairs import compare
from oodbench.comparison.usable import read_usable
from oodbench.errors import UsageError
from oodbench.evaluation.metrics import best_threshold, metrics
from oodbench.imports.importing import FORMATS
from oodbench.imports.openood import read_openood
from oodbench.leaderboard.assembly import LATER, boards, digest
from oodbench.records.files import parse_record
from oodbench.records.record import identity
from oodbench.records.verification import read_verified

PUBLISHED = {
    "cifar100": (81.27, 81.78), "tin": (83.84, 79.14), "mnist": (90.58, 48.68), "svhn": (84.63, 70.54),
    "texture": (83.94, 80.39), "places365": (86.41, 70.51),
}  # fmt: skip
"""AUROC and FPR95 with unknown as positive of SCALE on CIFAR-10, in OpenOOD's table, mean over three seeds."""


def test_published_figures_come_back(real_data):
    figures = {name: [] for name in PUBLISHED}
    for seed in range(3):
        file = real_data / "cifar" / "openood_scores" / f"scale_s{seed}.pkl"
        read = read_openood(file.read_bytes(), file, "known")
        assert [one.group for one in read.unknown] == ["near"] * 2 + ["far"] * 4
        for one in read.unknown:
            both = np.concatenate([read.known.scores, one.scores])
            figures[one.name].append(metrics(both, np.arange(len(both)) >= len(read.known.scores), None))

    def mean(name, metric):
        return round(100 * np.mean([figure[metric] for figure in figures[name]]), 2)

    assert {name: (mean(name, "auroc"), mean(name, "fpr95_unknown_positive")) for name in PUBLISHED} == PUBLISHED
    assert mean("cifar100", "fpr95_known_positive") == 54.18
    assert round(100 * np.std([figure["auroc"] for figure in figures["cifar100"]]), 2) == 0.74


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Scores of two seeds by OpenOOD, and the same with noise as CSV."""
    folder = tmp_path_factory.mktemp("files")
    for seed in (0, 1):
        content = scores(seed, val=True)
        write(folder / f"good_s{seed}.pkl", content)
        write_csv(folder / f"noisy_s{seed}.csv", content, noise=2.0)
    return folder


def write_csv(file, content, noise=0.0):
    rng = np.random.default_rng(7)
    sets = {("known", "-"): content["id"]["test"]} | {
        (name, group): found for group in ("near", "far") for name, found in content["ood"][group].items()
    }
    with file.open("w", newline="") as opened:
        table = csv.writer(opened)
        table.writerow(["dataset", "group", "label", "prediction", "score"])
        for (name, group), (pred, conf, gt) in sets.items():
            shaken = -conf + noise * rng.normal(size=len(conf))
            table.writerows(zip([name] * len(pred), [group] * len(pred), gt, pred, shaken, strict=True))


@pytest.fixture(scope="module")
def folder(files, tmp_path_factory):
    out = tmp_path_factory.mktemp("results")
    oodbench.import_scores("openood", sorted(files.glob("*.pkl")), "bench", "good:power=2", out=out)
    oodbench.import_scores("csv", sorted(files.glob("*.csv")), "bench", "noisy", out=out)
    return out


def test_a_record_has_what_the_file_says_and_nothing_else(files, folder):
    records = {(one.detector.name, one.protocol, one.seed): one for one in oodbench.read_results(folder).records}
    assert len(records) == 8
    record = records["good", "unknown-unknowns", 1]
    pred, conf, gt = scores(1, val=True)["id"]["test"]
    assert record.classifier.accuracy == pytest.approx((pred == gt).mean())
    assert (record.classifier.weights_sha256, record.classifier.name) == ("", "")
    assert {dataset.sha256 for dataset in record.datasets.values()} == {""}
    assert (record.provenance.versions, record.provenance.git, record.timing) == ({}, None, None)
    assert (record.suite.name, record.suite.version, record.detector.params) == ("bench", 0, {"power": "2"})
    assert record.imported.file == "good_s1.pkl"
    assert record.imported.convention == "larger = more known in the file, sign turned"
    assert [(one.dataset, one.group) for one in record.results] == [("cifar100", "near"), ("svhn", "far")]
    (result, _) = record.results
    unknown = scores(1, val=True)["ood"]["near"]["cifar100"][1]
    expected = roc_auc_score([0] * len(conf) + [1] * len(unknown), -np.concatenate([conf, unknown]))
    assert result.metrics["auroc"].value == pytest.approx(expected)
    assert result.metrics["auroc"].ci_low < expected < result.metrics["auroc"].ci_high
    known = records["good", "known", 1]
    assert known.results[0].metrics["failure_auroc"].value == pytest.approx(roc_auc_score(pred != gt, -conf))


def test_a_threshold_is_chosen_on_other_known_samples_or_not_at_all(folder):
    by_name = {one.detector.name: one for one in oodbench.read_results(folder).records if one.seed == 0}
    pred, conf, gt = scores(0, val=True)["id"]["val"]
    assert by_name["good"].threshold == best_threshold(-conf, pred != gt)
    assert by_name["good"].datasets["known (meta)"].n == 60
    assert by_name["noisy"].threshold is None
    assert all(
        metric.value is None
        for result in by_name["noisy"].results
        for name, metric in result.metrics.items()
        if name.endswith("meta_accuracy")
    )


def test_records_follow_from_their_scores(folder):
    records, rejected = read_verified([folder])
    assert not rejected
    assert all(one.record.cell_id == identity(one.record) for one in records)


def test_scores_of_an_unknown_set_without_predictions_are_wrong_all_the_same(tmp_path):
    file = tmp_path / "a_s0.npz"
    rng = np.random.default_rng(0)
    known = {"score": rng.normal(size=40), "label": rng.integers(0, 3, 40), "prediction": rng.integers(0, 3, 40)}
    np.savez(file, **{f"known/{name}": values for name, values in known.items()}, **{"far/b/score": rng.normal(size=9)})
    oodbench.import_scores("npz", [file], "bench", "a", out=tmp_path)
    records, rejected = read_verified([tmp_path])
    assert not rejected
    assert all(one.samples["b"].wrong.all() for one in records if "b" in one.samples)


def test_importing_again_changes_and_computes_nothing(files, folder, tmp_path, monkeypatch):
    monkeypatch.setattr("oodbench.imports.importing.results", lambda *arguments: pytest.fail("it was computed"))
    before = {file: file.read_bytes() for file in folder.rglob("*.*")}
    moved = tmp_path / "other-name_s0.pkl"
    moved.write_bytes((files / "good_s0.pkl").read_bytes())
    again = oodbench.import_scores("openood", [moved], "bench", "good:power=2", out=folder)
    assert {file: file.read_bytes() for file in folder.rglob("*.*")} == before
    assert {record.imported.file for record in again} == {"good_s0.pkl"}


def test_another_file_of_the_same_detector_and_seed_is_refused(files, folder):
    before = sorted(folder.rglob("*"))
    with pytest.raises(UsageError, match=r"already, imported from another file than good_s1.pkl .*; give another"):
        oodbench.import_scores("openood", [files / "good_s1.pkl"], "bench", "good:power=2", out=folder, seeds=[0])
    assert sorted(folder.rglob("*")) == before


def test_imported_methods_are_compared_in_pairs(folder):
    pairs = {pair.dataset: pair for pair in compare(read_usable([folder]).records, "good:power=2", "noisy")}
    assert pairs.keys() == {"known", "cifar100", "svhn"}
    assert all(pair.difference is not None for pair in pairs.values())
    assert pairs["svhn"].outcome == "better"
    done = command_line("compare", "good:power=2", "noisy", folder)
    assert done.returncode == 0
    shown = " ".join(done.stdout.split())
    assert "Assumed: imported sets of the same name, labels and order are taken for the same samples." in shown


def turned(content):
    """The same scores with the known samples in another order."""
    return {**content, "id": {"test": [values[::-1].copy() for values in content["id"]["test"]]}}


def test_another_order_is_of_other_samples(files, tmp_path):
    other = write(tmp_path / "turned_s0.pkl", turned(scores(0)))
    for out, name, file in (("a", "good", files / "good_s0.pkl"), ("b", "turned", other)):
        oodbench.import_scores("openood", [file], "bench", name, out=tmp_path / out)
    what = "another number, order or other labels of samples of known"
    usable = read_usable([tmp_path / "a", tmp_path / "b"])
    assert [f"it is of {what}" in rejected.reason for rejected in usable.rejected] == [True, True]
    both = [one for part in "ab" for one in read_verified([tmp_path / part])[0]]
    pairs = compare(both, "good", "turned")
    assert {pair.reason for pair in pairs} == {f"other data: they have {what}"}
    with pytest.raises(UsageError, match=f"turned_s0.pkl has {what} than good_s0.pkl"):
        oodbench.import_scores("openood", [other], "bench", "turned", out=tmp_path / "a")
    with pytest.raises(UsageError, match=f"turned_s0.pkl has {what} than good_s1.pkl"):
        oodbench.import_scores("openood", [files / "good_s1.pkl", other], "bench", "both", out=tmp_path / "c")
    assert not (tmp_path / "c").exists()


def test_other_sets_beside_the_compared_one_do_not_matter(files, tmp_path):
    content = scores(0)
    content["ood"]["far"] = {"mnist": content["ood"]["far"]["svhn"]}
    few = write(tmp_path / "few_s0.pkl", content)
    for name, file in (("good", files / "good_s0.pkl"), ("few", few)):
        oodbench.import_scores("openood", [file], "bench", name, out=tmp_path)
    pairs = {pair.dataset: pair for pair in compare(read_usable([tmp_path]).records, "good", "few")}
    assert {name for name, pair in pairs.items() if pair.difference is not None} == {"known", "cifar100"}
    assert pairs["mnist"].reason == "good was not run on it under unknown-unknowns"


def test_imported_scores_are_never_paired_with_those_of_a_run(folder, tiny_suite, tmp_path):
    oodbench.run(tiny_suite, ["entropy"], ["unknown-unknowns"], out=tmp_path)
    pred, conf, gt = scores(3)["id"]["test"]
    content = {"id": {"test": [pred, conf, gt]}, "ood": {"far": {"noise": scores(3)["ood"]["near"]["cifar100"]}}}
    file = write(tmp_path / "x_s0.pkl", content)
    oodbench.import_scores("openood", [file], "tiny", "elsewhere", out=tmp_path, known="digits")
    usable = read_usable([tmp_path])
    assert not usable.rejected
    (pair,) = [pair for pair in compare(usable.records, "entropy", "elsewhere") if pair.suite == "tiny 1"]
    assert pair.difference is None
    assert pair.reason == "elsewhere is imported, and whether it is of the same samples is not known"
    assert [(board.suite, board.version) for board in boards(usable.records)] == [("tiny", 0), ("tiny", 1)]


@pytest.mark.parametrize("ending", [".md", ".html", ".csv", ".tex", ".json"])
def test_a_board_says_what_was_imported_and_is_checked(folder, tmp_path, ending):
    board = tmp_path / f"board{ending}"
    assert command_line("leaderboard", "build", str(folder), "-o", str(board)).returncode == 0
    assert command_line("leaderboard", "check", str(folder), "-o", str(board)).returncode == 0
    text = board.read_text()
    if ending in (".md", ".html", ".json"):
        assert "Imported, not computed here: good from openood (larger = more known in the file, sign turned)" in text
        assert "good_s0.pkl (seed 0), good_s1.pkl (seed 1)" in text
    assert "Run with ." not in text
    assert "``" not in text.replace("```", "")


def test_an_order_that_is_not_that_of_the_scores_is_rejected(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "out")
    file = sorted((tmp_path / "out" / "records").glob("*.json"))[0]
    record = parse_record(file)
    orders = {**record.imported.orders, "known": "0" * 64}
    changed = record.model_copy(update={"imported": record.imported.model_copy(update={"orders": orders})})
    file.write_text(changed.model_dump_json())
    _, (rejected,) = read_verified([tmp_path / "out"], resample=False)
    assert "so one of them was changed" in rejected.reason
    file.unlink()
    renamed = changed.model_copy(update={"cell_id": identity(changed)})
    file.with_stem(renamed.cell_id).write_text(renamed.model_dump_json())
    _, (rejected,) = read_verified([tmp_path / "out"], resample=False)
    assert rejected.reason == "its samples of known have another order or other labels than it says"


def test_records_that_are_not_imported_keep_their_digest(tiny_suite, tmp_path):
    records = oodbench.run(tiny_suite, ["entropy"], ["known"], out=tmp_path)
    assert "imported" in LATER
    assert digest(records) == digest([record.model_copy(update={"imported": None}) for record in records])


def test_the_command_prints_tables_and_has_all_formats(files, tmp_path):
    out = tmp_path / "out"
    arguments = ["import", "openood", *sorted(files.glob("*.pkl")), "--suite", "bench", "--detector", "good"]
    done = command_line(*arguments, "--out", out, "--classifier", "resnet18")
    assert done.returncode == 0
    assert "bench 0: unknown-unknowns" in done.stdout
    assert "Imported, not computed here" in done.stdout
    assert "(resnet18, seed 1)" in done.stdout
    assert f"4 records in {out}, imported." in done.stderr
    assert "NAME/score" in command_line("import", "--help").stdout
    assert set(command.params[0].type.choices) == set(FORMATS)


def test_one_file_is_not_taken_for_several_seeds(tmp_path):
    for seed in (0, 1):
        write(tmp_path / f"a_s{seed}.pkl", scores(0, n=20))
    with pytest.raises(UsageError, match=r"same content: a_s0.pkl \(seed 0\), a_s1.pkl \(seed 1\); expected another"):
        oodbench.import_scores("openood", sorted(tmp_path.glob("*.pkl")), "x", "y", out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("names", "seeds", "expected"),
    [
        (["a_s0.pkl", "b-s12.pkl"], (), [0, 12]),
        (["s3/scores/a.pkl", "s1/a.pkl"], (), [3, 1]),
        (["s3/a_s4.pkl"], (), [4]),
        (["a.pkl", "b_s1.pkl"], (7, 8), [7, 8]),
    ],
)
def test_a_seed_is_that_of_the_name_or_given(names, seeds, expected, tmp_path):
    for number, name in enumerate(names):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        write(tmp_path / name, scores(number, n=20))
    paths = [tmp_path / name for name in names]
    records = oodbench.import_scores("openood", paths, "x", "y", out=tmp_path, seeds=seeds, protocols=["known"])
    assert [record.seed for record in records] == expected


@pytest.mark.parametrize(
    ("names", "options", "words"),
    [
        (["a.pkl"], {}, r"the seed of \S*a.pkl is not to be seen"),
        (["bass0.pkl"], {}, "is not to be seen"),
        (["a_s0.pkl", "b_s0.pkl"], {}, "the seed 0 is that of .*a_s0.pkl, .*b_s0.pkl"),
        (["a_s0.pkl", "b_s1.pkl"], {"seeds": [3, 3]}, "the seed 3 is that of"),
        (["a_s0.pkl", "b_s1.pkl"], {"seeds": [3]}, "there are 1 seeds for 2 files"),
        (["a_s0.pkl"], {"seeds": [-1]}, "is -1; expected one from 0"),
        ([], {}, "there is no file"),
        (["a_s0.pkl"], {"suite": "no name"}, "the suite is 'no name'"),
        (["a_s0.pkl"], {"detector": "a b"}, "the detector is 'a b'"),
        (["a_s0.pkl"], {"protocols": ["known-unknowns"]}, "the protocol is 'known-unknowns'"),
        (["a_s0.pkl"], {"form": "xlsx"}, "the format is 'xlsx'; expected one of: openood, npz, csv, parquet"),
        (["a_s0.pkl"], {"known": "svhn"}, "two sets of the name 'svhn'"),
        (["a_s0.pkl"], {"known": ""}, "set of the name ''"),
        (["missing_s9.pkl"], {}, "cannot be read: No such file"),
    ],
)
def test_a_request_that_makes_no_sense_is_one_sentence(names, options, words, tmp_path):
    for name in names:
        if "missing" not in name:
            write(tmp_path / name, scores(n=20))
    given = {"form": "openood", "suite": "x", "detector": "y", "out": tmp_path / "out", **options}
    with pytest.raises(UsageError, match=words) as error:
        oodbench.import_scores(files=[tmp_path / name for name in names], **given)
    assert str(error.value).endswith(".")
    assert not (tmp_path / "out").exists()


def test_a_mistake_ends_with_status_2(tmp_path):
    (tmp_path / "a_s0.pkl").write_bytes(pickle.dumps(Path("x")))
    arguments = ["import", "openood", str(tmp_path / "a_s0.pkl"), "--suite", "x", "--detector", "y"]
    done = command_line(*arguments, "--out", tmp_path / "out")
    assert done.returncode == 2
    assert "a_s0.pkl names pathlib" in done.stderr
    assert "Traceback" not in done.stderr


def test_fpr95_is_that_of_scikit_learn(folder):
    record = next(one for one in oodbench.read_results(folder).records if one.results[0].role == "unknown")
    table = oodbench.read_results(folder).scores(record).to_pandas()
    chosen = table[table.dataset.isin(["known", "svhn"])]
    fpr, tpr, _ = roc_curve(chosen.label < 0, chosen.score, drop_intermediate=False)
    result = next(one for one in record.results if one.dataset == "svhn")
    assert result.metrics["fpr95_unknown_positive"].value == pytest.approx(fpr[tpr >= 0.95][0])


def test_parts_that_are_not_imported_are_told(tmp_path, caplog):
    content = scores(0)
    content["ood"]["mid"] = content["ood"]["near"]
    content["id"]["train"] = content["id"]["test"]
    content["foo"] = 1
    content["csid"] = [1]
    file = write(tmp_path / "x_s0.pkl", content)
    found = read_openood(file.read_bytes(), file, "known")
    assert found.left_out == ["parts that OpenOOD does not write are not imported: id/train, ood/mid, foo, csid"]


def test_labels_of_known_classes_in_unknown_sets_are_told(tmp_path):
    content = scores(0)
    pred, conf, gt = content["ood"]["far"]["svhn"]
    content["ood"]["far"]["svhn"] = [pred, conf, np.zeros_like(gt)]
    file = write(tmp_path / "x_s0.pkl", content)
    said = read_openood(file.read_bytes(), file, "known").left_out
    assert said == ["labels from 0 on in ood/far/svhn are not taken: its samples are unknown"]


@pytest.mark.parametrize("place", ["ood", "csid", "id"])
def test_a_number_of_thousands_of_digits_as_a_name_is_one_sentence(tmp_path, place):
    content = scores(0)
    if place == "ood":
        content["ood"]["near"][10**5000] = content["ood"]["near"]["cifar100"]
        file = write(tmp_path / "x_s0.pkl", content)
        with pytest.raises(UsageError, match="has a set whose name is a int; expected a text"):
            read_openood(file.read_bytes(), file, "known")
        return
    content.setdefault(place, {})[10**5000] = content["id"]["test"]
    file = write(tmp_path / "x_s0.pkl", content)
    assert "a int" in " ".join(read_openood(file.read_bytes(), file, "known").left_out)


def test_a_packed_folder_has_its_imported_records(files, folder, tmp_path):
    """Another file of the same detector and seed is refused there, too."""
    assert command_line("leaderboard", "pack", folder, "-o", tmp_path).returncode == 0
    with pytest.raises(UsageError, match="already, imported from another file"):
        oodbench.import_scores("openood", [files / "good_s1.pkl"], "bench", "good:power=2", out=tmp_path, seeds=[0])
