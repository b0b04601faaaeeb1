"""Whole runs on the embedded suite, with real plugins that work and that break."""

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from drawing import draw
from sklearn.metrics import average_precision_score, roc_auc_score

import oodbench
from oodbench.errors import LeakError, MissingPrerequisiteError, OodbenchError, UsageError
from oodbench.records.record import Record
from oodbench.records.verification import read_verified


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    return tmp_path_factory.mktemp("run")


@pytest.fixture(scope="module")
def records(out):
    """One seed of every protocol with four detectors."""
    return oodbench.run("digits", ["entropy", "grad-combo", "grad-skewness", "random"], seeds=[0], out=out)


def scores_of(folder, record):
    return pq.read_table(Path(folder) / record.scores.path).to_pydict()


def records_in(folder):
    """The records of a folder, all of which follow from their scores."""
    measured, rejected = read_verified([folder])
    assert not rejected
    return [one.record for one in measured]


def test_every_cell_has_a_record(records):
    assert {record.status for record in records} == {"ok"}
    cells = {(record.protocol, tuple(record.exposed)) for record in records}
    assert len(cells) == 1 + 1 + 5 + 4
    assert len(records) == 4 * len(cells)
    assert len({record.cell_id for record in records}) == len(records)


def test_records_on_disk_are_those_returned(records, out):
    assert sorted(records_in(out), key=lambda r: r.cell_id) == sorted(records, key=lambda r: r.cell_id)


def test_the_json_schema_beside_the_record_is_current():
    import oodbench.records.record as module

    kept = json.loads(Path(module.__file__).with_name("record.v1.schema.json").read_text())
    assert kept == Record.model_json_schema(), "run: python -m oodbench.records.schema"


def test_whoever_has_the_scores_can_recompute_the_metrics(records, out):
    """By scikit-learn, from the parquet file alone."""
    for record in records:
        table = {key: np.array(column) for key, column in scores_of(out, record).items()}
        known = table["label"] >= 0
        wrong = table["label"] != table["prediction"]
        assert record.scores.n == len(known)
        for result in record.results:
            chosen = known | (table["dataset"] == result.dataset)
            score = table["score"][chosen]
            value = {name: metric.value for name, metric in result.metrics.items()}
            assert result.n_known == known.sum()
            assert result.n_wrong == (known & wrong).sum()
            assert value["failure_auroc"] == pytest.approx(roc_auc_score(wrong[chosen], score))
            assert value["failure_aupr_unknown"] == pytest.approx(average_precision_score(wrong[chosen], score))
            if result.role == "unknown":
                assert result.n_unknown == (table["dataset"] == result.dataset).sum()
                assert value["auroc"] == pytest.approx(roc_auc_score(~known[chosen], score))
                assert value["aupr_known"] == pytest.approx(average_precision_score(known[chosen], -score))
            flagged = score >= record.threshold
            rates = flagged[wrong[chosen]].mean(), (~flagged[~wrong[chosen]]).mean()
            assert value["failure_meta_accuracy"] == pytest.approx(sum(rates) / 2)


def test_known_has_the_failure_target_only_and_every_metric_has_an_interval(records):
    for record in records:
        for result in record.results:
            assert all(metric.ci_low <= metric.value <= metric.ci_high for metric in result.metrics.values())
            if record.protocol == "known":
                others = {name for name in result.metrics if not name.startswith("failure_")}
                assert others == {"aurc", "augrc"} | ({"ece"} if record.detector.name == "grad-combo" else set())
                assert result.role == "known"
            else:
                assert len(result.metrics) == 12


def test_a_meta_classifier_says_how_likely_an_error_is(records, out):
    """Its calibration error is that of the log-odds in the file of scores, and it is far below that of a guess."""
    (record,) = [r for r in records if (r.protocol, r.detector.name) == ("known", "grad-combo")]
    table = {key: np.array(column) for key, column in scores_of(out, record).items()}
    known = table["label"] >= 0
    wrong = (table["label"] != table["prediction"])[known]
    probability = 1 / (1 + np.exp(-table["score"][known]))
    bins = np.minimum((15 * probability).astype(int), 14)
    errors = [abs(wrong[bins == b].mean() - probability[bins == b].mean()) * (bins == b).sum() for b in np.unique(bins)]
    assert record.results[0].metrics["ece"].value == pytest.approx(sum(errors) / len(wrong), abs=1e-6)
    assert record.results[0].metrics["ece"].value < 0.1
    assert probability.mean() == pytest.approx(wrong.mean(), abs=0.08)


def test_what_a_detector_costs_is_what_its_evidence_costs(records):
    cost = {r.detector.name: r.timing.evidence_ms_per_sample for r in records if r.protocol == "known"}
    assert 0 < cost["entropy"] < cost["grad-skewness"]
    assert cost["grad-skewness"] == cost["grad-combo"]


def test_records_of_equal_scores_share_a_file(records, out):
    files = {}
    for record in records:
        files.setdefault(record.detector.name, set()).add(record.scores.path)
    assert {name: len(paths) for name, paths in files.items()} == {
        "entropy": 1, "grad-skewness": 1, "random": 1, "grad-combo": 1 + 5 + 4
    }  # fmt: skip
    assert {f"scores/{file.name}" for file in (out / "scores").iterdir()} == {
        p for paths in files.values() for p in paths
    }


def test_the_classifier_makes_mistakes_to_learn_from(records):
    known = next(record for record in records if record.protocol == "known")
    assert known.results[0].n_wrong >= 20
    assert known.classifier.accuracy > 0.85


def test_the_test_half_of_an_unknown_set_is_the_same_under_every_protocol(records, out):
    seen = {}
    for record in records:
        table = scores_of(out, record)
        for name in set(table["dataset"]):
            rows = [i for d, i in zip(table["dataset"], table["index"], strict=True) if d == name]
            assert seen.setdefault(name, rows) == rows
    assert len(seen) == 5


def test_what_is_fitted_on_is_never_tested(records):
    from oodbench.files.folders import data_folder
    from oodbench.suites.reading import read_suite

    suite = read_suite("digits")
    splits = draw(suite, data_folder(None))
    fitted = np.concatenate([s.digests for s in (splits.train, splits.meta, *splits.exposed.values())])
    tested = np.concatenate([s.digests for s in (splits.test, *splits.unknown.values())])
    assert not set(fitted) & set(tested)
    record = next(r for r in records if r.protocol == "known-unknowns" and len(r.exposed) == 4)
    assert record.datasets["noise"].sha256 == splits.unknown["noise"].sha256
    assert record.datasets["noise (exposed)"].sha256 == splits.exposed["noise"].sha256


def test_exposure_helps_the_meta_classifier_on_what_it_was_exposed_to(records):
    """Claim 4 of the paper, on the embedded suite."""

    def auroc(exposed):
        record = next(
            r for r in records
            if r.detector.name == "grad-combo" and r.exposed == exposed and len(r.results) == 4
        )  # fmt: skip
        return {result.dataset: result.metrics["auroc"].value for result in record.results}

    assert auroc(["noise"])["noise"] > auroc([])["noise"] + 0.03
    assert auroc(["patches"])["patches"] > auroc([])["patches"] + 0.03


def test_entropy_does_not_change_with_exposure_and_random_is_near_one_half(records):
    values = {}
    for record in records:
        for result in record.results:
            if result.role == "unknown":
                values.setdefault((record.detector.name, result.dataset), set()).add(result.metrics["auroc"].value)
    for (name, dataset), seen in values.items():
        if name in ("entropy", "random"):
            assert len(seen) == 1, dataset
        if name == "random":
            assert abs(seen.pop() - 0.5) < 0.08


def test_the_learnt_direction_and_strength_are_recorded(records):
    learnt = {record.detector.name: record.detector.learnt for record in records}
    assert learnt["grad-skewness"]["direction"] in (-1.0, 1.0)
    assert learnt["grad-combo"]["C"] > 0
    assert learnt["entropy"] == {}


def test_the_same_run_gives_the_same_bits_from_a_cold_and_a_warm_cache(records, out, tmp_path, monkeypatch):
    again = oodbench.run("digits", ["entropy", "grad-combo"], seeds=[0], out=tmp_path / "warm")
    monkeypatch.setenv("OODBENCH_CACHE", str(tmp_path / "cache"))
    cold = oodbench.run("digits", ["entropy", "grad-combo"], seeds=[0], out=tmp_path / "cold")
    first = {record.cell_id: record for record in records}
    for one, other in zip(again, cold, strict=True):
        assert one.cell_id == other.cell_id
        assert one.scores.sha256 == other.scores.sha256 == first[one.cell_id].scores.sha256
        assert one.results == other.results == first[one.cell_id].results


def test_another_seed_gives_other_scores(records, tmp_path):
    (other,) = oodbench.run("digits", ["entropy"], ["known"], seeds=[1], out=tmp_path)
    one = next(r for r in records if r.protocol == "known" and r.detector.name == "entropy")
    assert other.scores.sha256 != one.scores.sha256
    assert other.classifier.weights_sha256 != one.classifier.weights_sha256
    assert other.datasets == one.datasets


PLUGINS = (Path(__file__).parent / "plugins" / "mine.py").read_text()


@pytest.fixture
def plugin_file(tmp_path):
    from oodbench import registry

    file = tmp_path / "mine.py"
    file.write_text(PLUGINS)
    with registry.scoped():
        yield file


def test_a_local_plugin_runs_and_its_file_is_recorded(plugin_file, tmp_path):
    wanted = ["good-margin", "good-margin:power=2", "good-class"]
    found = oodbench.run("digits", wanted, ["known"], [0], plugins=[plugin_file], out=tmp_path)
    assert [record.status for record in found] == ["ok"] * 3
    assert {record.detector.distribution for record in found} == {"mine.py"}
    assert len(found[0].detector.version) == 12
    assert [record.detector.params for record in found[:2]] == [{"power": 1.0}, {"power": 2.0}]
    assert found[0].results == found[1].results, "the AUROC does not change with the scale"


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("bad-nan", "550 of its 550 scores are NaN or infinite"),
        ("bad-length", "its scores have shape"),
        ("bad-dtype", "its scores have dtype torch.int64; expected float32 or float64"),
        ("bad-list", "its scores are a list; expected a torch.Tensor"),
        ("bad-raise", "it raised ValueError: no luck (mine.py, line 34)"),
        ("bad-lines", "it raised ValueError: no luck on two lines (mine.py, line 39)"),
        ("bad-exit", "it raised SystemExit: 5"),
    ],
)
def test_a_broken_detector_fails_alone_and_says_why(plugin_file, tmp_path, name, sentence):
    found = oodbench.run("digits", [name, "entropy"], ["known"], [0], plugins=[plugin_file], out=tmp_path)
    assert [record.status for record in found] == ["failed", "ok"]
    assert sentence in found[0].error
    assert found[0].results == []
    assert {record.status for record in records_in(tmp_path)} == {"failed", "ok"}


def test_a_detector_that_works_in_place_changes_nobody_elses_evidence(plugin_file, tmp_path):
    arguments = (["known"], [0])
    alone = oodbench.run("digits", ["entropy", "grad-l1"], *arguments, out=tmp_path / "a")
    beside = oodbench.run(
        "digits", ["bad-manners", "entropy", "grad-l1"], *arguments, plugins=[plugin_file], out=tmp_path / "b"
    )
    assert [record.results for record in beside[1:]] == [record.results for record in alone]
    assert beside[0].status == "failed"
    assert "it changed logits of the evidence in place" in beside[0].error


def test_a_plugin_declared_in_this_process_runs_by_name_or_as_an_object(plugin_file, tmp_path):
    @oodbench.detector("here", needs="logits")
    def here(logits):
        return -logits.amax(dim=1)

    by_name = oodbench.run("digits", ["here"], ["known"], [0], out=tmp_path)
    as_object = oodbench.run("digits", [here, "max-logit"], ["known"], [0], out=tmp_path)
    assert by_name[0].results == as_object[0].results == as_object[1].results


def test_a_classifier_without_mistakes_skips_what_learns_from_them(tmp_path):
    random = np.random.default_rng(0)
    labels = np.arange(600) % 2
    images = (random.integers(0, 40, (600, 8, 8)) + labels[:, None, None] * 200).astype(np.uint8)
    np.savez(tmp_path / "easy.npz", images=images, labels=labels)
    suite = tmp_path / "easy.toml"
    suite.write_text(
        'name = "easy"\nversion = 1\nclassifier = "cnn"\nknown = "npz:easy.npz"\nseeds = [0]\n'
        "[unknown]\nnoise = { n = 200 }\n[input]\nsize = 8\n[training]\nepochs = 20\n"
    )
    wanted = ["entropy", "grad-combo", "grad-mean"]
    found = oodbench.run(str(suite), wanted, ["known", "unknown-unknowns"], out=tmp_path / "o")
    status = {(record.detector.name, record.protocol): record for record in found}
    for name in ("grad-combo", "grad-mean"):
        assert status[name, "known"].status == "skipped"
        assert "are wrong" in status[name, "known"].error
    entropy = status["entropy", "unknown-unknowns"]
    assert entropy.status == "ok"
    assert entropy.results[0].metrics["auroc"].value is not None
    assert entropy.results[0].metrics["meta_accuracy"].value is None
    assert {m.value for m in status["entropy", "known"].results[0].metrics.values()} == {None}


def test_a_limited_run_says_so_in_its_records(tmp_path):
    (record,) = oodbench.run("digits", ["entropy"], ["unknown-unknowns"], [0], limit=50, out=tmp_path)
    assert record.suite.limit == 50
    assert {result.n_unknown for result in record.results} == {50}


def test_the_known_set_as_unknown_set_is_a_leak(tmp_path):
    suite = tmp_path / "leak.toml"
    suite.write_text(
        'name = "leak"\nversion = 1\nclassifier = "cnn"\nknown = "digits"\n[unknown]\nsame = { adapter = "digits" }\n'
    )
    with pytest.raises(LeakError, match=r"\d+ of the \d+ images of digits \(\w+\) are also among the .* of same"):
        oodbench.run(str(suite), ["entropy"], out=tmp_path)
    assert not list(tmp_path.glob("records/*"))


def test_a_protocol_that_tests_what_it_is_fitted_on_is_stopped():
    from dataclasses import replace

    from oodbench.files.folders import data_folder
    from oodbench.protocols.case import Case
    from oodbench.protocols.leak_guard import refuse_leaks
    from oodbench.suites.reading import read_suite

    suite = read_suite("digits")
    splits = draw(suite, data_folder(None))
    leaky = replace(splits, exposed=splits.unknown)
    with pytest.raises(LeakError, match=r"500 samples of noise \(unknown\) would be tested on"):
        refuse_leaks(leaky, Case(("noise",), ("noise",)))


def test_nothing_is_computed_when_the_results_cannot_be_written(tmp_path, monkeypatch):
    monkeypatch.setenv("OODBENCH_CACHE", str(tmp_path / "cache"))
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot be written to: Not a directory"):
        oodbench.run("digits", ["entropy"], out=tmp_path / "file" / "results")
    assert not (tmp_path / "cache").exists()


def test_what_was_finished_is_kept_when_the_disk_is_full(tmp_path):
    """A limit on the size of files stands for the full disk: the write fails in the same place."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    finished = oodbench.run("digits", ["entropy"], ["known"], [0], out=tmp_path)
    import signal

    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, hard))
    try:
        with pytest.raises(OodbenchError, match="cannot be written: File too large; what was finished before is kept"):
            oodbench.run("digits", ["energy"], ["known"], [0], out=tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    assert [record.cell_id for record in records_in(tmp_path)] == [finished[0].cell_id]
    assert not list(tmp_path.rglob("*.tmp"))


def test_nothing_is_computed_when_the_cache_cannot_be_written(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("OODBENCH_CACHE", str(tmp_path / "file"))
    with pytest.raises(UsageError, match=r"the cache folder .*/file cannot be written to: .*OODBENCH_CACHE\.$"):
        oodbench.run("digits", ["entropy"], ["known"], [0], out=tmp_path / "o")


def test_one_name_need_not_be_in_a_list_and_the_largest_seed_runs(tmp_path):
    (record,) = oodbench.run("digits", "random", "known", [2**63 - 1], out=tmp_path)
    assert (record.detector.name, record.protocol, record.seed) == ("random", "known", 2**63 - 1)
    assert record.status == "ok"


def test_training_that_diverges_stops_the_run_and_is_named_once(tmp_path):
    file = tmp_path / "hot.toml"
    file.write_text(Path(suite_with(tmp_path)).read_text() + "learning_rate = 1e10\n")
    with pytest.raises(
        OodbenchError, match=r"classifier cnn with seed 0 diverged .*training.learning_rate of the suite"
    ):
        oodbench.run(str(file), ["entropy", "energy"], ["known"], out=tmp_path / "o")
    assert not list((tmp_path / "o" / "records").iterdir())


def test_wrong_classifier_is_told_with_the_suites_line(tmp_path):
    file = suite_with(tmp_path, classifier="cnm")
    with pytest.raises(UsageError, match=r"suite\.toml, line 3, key classifier: no classifier is named 'cnm'"):
        oodbench.run(file, out=tmp_path / "o")


def test_wrong_names_cost_no_time(tmp_path):
    for arguments, sentence in [
        ({"detectors": ["entropi"]}, "did you mean entropy"),
        ({"suite": "digit"}, "did you mean digits"),
        ({"protocols": ["unknown-unknown"]}, "did you mean unknown-unknowns"),
        ({"detectors": ["grad-l2:lair=conv1"]}, "no parameter 'lair'; expected one of: layer"),
        ({"detectors": ["energy:temperature=hot"]}, "'temperature' of 'energy' is 'hot'"),
        ({"replace": {"noise2": "noise"}}, "has no data set 'noise2'"),
        ({"replace": {"noise": "imagefoldr:x"}}, "did you mean imagefolder"),
        ({"seeds": []}, "expected one or more whole numbers"),
        ({"seeds": 0}, "the seeds are 0; expected one or more whole numbers"),
        ({"seeds": ["a"]}, "expected one or more whole numbers"),
        ({"seeds": [2**63]}, "expected one or more whole numbers from 0 to 9223372036854775807"),
        ({"limit": 1}, "the limit is 1; expected a whole number from 2"),
        ({"limit": "all"}, "the limit is 'all'; expected a whole number from 2"),
    ]:
        with pytest.raises(UsageError, match=sentence):
            oodbench.run(**arguments, out=tmp_path / "never")
    with pytest.raises(MissingPrerequisiteError, match=r"none\.py cannot be read"):
        oodbench.run(plugins=["none.py"], out=tmp_path / "never")
    assert not (tmp_path / "never").exists()


def test_evidence_is_collected_once_for_all_detectors(tmp_path, monkeypatch):
    """Thirty detectors cost what one costs: the second run collects nothing at all."""
    import oodbench.evidence.caching as store

    collected = []
    original = store.over_batches

    def counting(*arguments):
        collected.append(arguments[-1])
        return original(*arguments)

    monkeypatch.setattr(store, "over_batches", counting)
    monkeypatch.setenv("OODBENCH_CACHE", str(tmp_path / "cache"))
    oodbench.run("digits", ["*"], ["unknown-unknowns"], [0], limit=40, out=tmp_path)
    # The splits that are scored, and the training split for those that are fitted on it. The logits of the two known
    # ones are collected first, to look at the classifier.
    assert len(set(collected)) == 7
    assert len(collected) == 9
    oodbench.run("digits", ["entropy"], ["unknown-unknowns"], [0], limit=40, out=tmp_path)
    assert len(collected) == 9


@pytest.mark.parametrize("damage", ["cut", "flipped", "emptied"])
@pytest.mark.parametrize("kind", ["weights", "evidence"])
def test_a_damaged_cache_entry_is_named_and_made_anew(tmp_path, monkeypatch, caplog, tiny_suite, kind, damage):
    monkeypatch.setenv("OODBENCH_CACHE", str(tmp_path / "cache"))
    (first,) = oodbench.run(tiny_suite, ["entropy"], ["known"], [0], out=tmp_path / "a")
    for file in (tmp_path / "cache" / kind).iterdir():
        content = bytearray(file.read_bytes())
        content[len(content) * 3 // 4] ^= 0x40
        file.write_bytes({"cut": content[: len(content) // 2], "flipped": content, "emptied": b""}[damage])
    (again,) = oodbench.run(tiny_suite, ["entropy"], ["known"], [0], out=tmp_path / "b")
    assert again.scores.sha256 == first.scores.sha256
    assert "is damaged" in caplog.text


BROKEN_PACKAGE = (Path(__file__).parent / "plugins" / "broken_package.py").read_text()

ENTRY_POINTS = """
[oodbench.classifiers]
maps = broken_package:maps
crash = broken_package:crash
[oodbench.datasets]
floats = broken_package:floats
short = broken_package:short
raises = broken_package:raises
undecorated = broken_package:undecorated
[oodbench.protocols]
martians = broken_package:martians
raising = broken_package:raising
[oodbench.detectors]
broken-raw = broken_package:undecorated
broken-import = broken_package.nowhere:x
entropy = broken_package:undecorated
"""


@pytest.fixture
def broken_package(tmp_path, monkeypatch):
    """An installed distribution of which everything is broken."""
    import sys

    from oodbench import registry

    site = tmp_path / "site"
    info = site / "broken_package-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: broken-package\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(ENTRY_POINTS)
    (site / "broken_package.py").write_text(BROKEN_PACKAGE)
    monkeypatch.syspath_prepend(site)
    registry.refresh()
    yield
    registry.refresh()
    sys.modules.pop("broken_package", None)


def suite_with(tmp_path, classifier="cnn", unknown="noise = { n = 40 }"):
    file = tmp_path / "suite.toml"
    file.write_text(
        f'name = "s"\nversion = 1\nclassifier = "{classifier}"\nknown = "digits"\nseeds = [0]\n[unknown]\n{unknown}\n'
        "[input]\nsize = 8\n[training]\nepochs = 1\n"
    )
    return str(file)


@pytest.mark.parametrize(
    ("suite", "arguments", "sentence"),
    [
        ({"classifier": "maps"}, {}, "classifier maps cannot be used: it returns .* for segmentation; expected logits"),
        ({"classifier": "crash"}, {}, "classifier crash raised ValueError: no luck"),
        ({"unknown": "floats = {}"}, {}, "data set floats of broken-package has images of dtype float64"),
        ({"unknown": "short = {}"}, {}, r"labels of shape \(5,\); expected"),
        ({"unknown": "raises = {}"}, {}, "data set raises of broken-package raised ValueError: no luck"),
        ({"unknown": "undecorated = {}"}, {}, "is not decorated with @oodbench.dataset"),
        ({}, {"protocols": ["martians"]}, "asks for 'martians'; the suite has noise"),
        ({}, {"protocols": ["raising"]}, "protocol raising raised ValueError: no luck"),
        ({}, {"detectors": ["broken-raw"]}, "decorate the function or class at broken_package:undecorated"),
    ],
)
def test_a_broken_plugin_of_any_kind_ends_in_one_sentence(broken_package, tmp_path, suite, arguments, sentence):
    call = {"detectors": ["entropy"], "protocols": ["known", "unknown-unknowns"]} | arguments
    with pytest.raises(UsageError, match=sentence):
        oodbench.run(suite_with(tmp_path, **suite), **call, out=tmp_path / "o")


def test_a_broken_detector_package_hurts_nobody_who_asks_for_all(broken_package, tmp_path):
    """And a built-in name cannot be taken over."""
    wanted = ["broken-*", "entropy"]
    broken, raw, record = oodbench.run("digits", wanted, ["known"], [0], out=tmp_path)
    assert (record.detector.name, record.detector.distribution, record.status) == ("entropy", "oodbench", "ok")
    assert (broken.detector.name, broken.detector.distribution) == ("broken-import", "broken-package")
    assert "broken-package 1.0 could not be loaded from broken_package.nowhere:x" in broken.error
    assert "ModuleNotFoundError" in broken.traceback
    assert (raw.detector.name, raw.status) == ("broken-raw", "failed")
    assert "decorate the function or class at broken_package:undecorated" in raw.error
    with pytest.raises(MissingPrerequisiteError, match="could not be loaded"):
        oodbench.run("digits", ["broken-import"], out=tmp_path)


def test_a_detector_is_fitted_on_what_it_declares_and_once_for_each_exposure_it_learns_from(tmp_path):
    lessons = {"training": [], "meta": [], "exposed": []}

    def declared(fitted_on):
        @oodbench.detector(f"on-{fitted_on}", needs="logits", fitted_on=fitted_on)
        class Observing:
            def fit(self, evidence, labels):
                assert len(evidence) == len(labels)
                lessons[fitted_on].append((len(labels), int((labels < 0).sum())))

            def score(self, evidence):
                return -evidence.logits.amax(dim=1)

        return Observing

    plugins = [declared(fitted_on) for fitted_on in lessons]
    found = oodbench.run("digits", plugins, ["*"], [0], out=tmp_path)
    sizes = {name.rpartition("(")[2]: part.n for name, part in found[0].datasets.items()}
    train, meta = sizes["train)"], sizes["meta)"]
    assert lessons["training"] == [(train, 0)]
    assert lessons["meta"] == [(meta, 0)]
    # Nothing exposed; each of four sets alone; all of them; all but one.
    assert len(lessons["exposed"]) == 1 + 4 + 1 + 4
    assert lessons["exposed"][0] == (meta, 0)
    assert all(unknown == n - meta > 0 for n, unknown in lessons["exposed"][1:])
    # Their scores are the same, but thresholds are chosen on what each case exposes.
    aurocs = {tuple(r.metrics["failure_auroc"].value for r in one.results) for one in found if one.protocol == "known"}
    assert len(aurocs) == 1
    thresholds = {tuple(one.exposed): one.threshold for one in found if one.detector.name == "on-meta"}
    assert len(set(thresholds.values())) > 1
