"""``tuned``: what it chooses, by which samples, at which price, and what it says."""

import json
from typing import ClassVar

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

import oodbench
from oodbench.conformance.problem import UNKNOWN, problem, split_of
from oodbench.detectors.selection import select
from oodbench.errors import LeakError, UsageError
from oodbench.evidence.collector import EvidenceCollector
from oodbench.machine.phases import Meter
from oodbench.records.remarks import remarks_on
from oodbench.registry.isolation import Failure
from oodbench.runs.score_sheet import DetectorScorer

SUITE = """
name = "tuning"
version = 1
known = "digits"
seeds = [0]
[input]
size = 8
[sizes]
train = 120
meta = 80
test = 80
[training]
epochs = 2
[unknown]
rendered-letters = { group = "near" }
[validation]
noise = { n = 60 }
patches = {}
"""


@pytest.fixture(scope="module")
def suite(tmp_path_factory):
    file = tmp_path_factory.mktemp("suite") / "tuning.toml"
    file.write_text(SUITE)
    return file


def run(suite, *detectors, **choices):
    return oodbench.run(suite, list(detectors), protocols=["unknown-unknowns"], **choices)


@pytest.fixture(scope="module")
def chosen(suite, tmp_path_factory):
    out = tmp_path_factory.mktemp("out")
    records = run(suite, "tuned:detector=knn:normalize=false", "knn:normalize=false,k=50", "entropy", out=out)
    return {record.detector.name: record for record in records}


def test_candidates_that_cannot_be_fitted_are_told(chosen):
    learnt = chosen["tuned"].detector.learnt
    assert set(learnt["candidates"]) == {f"knn:normalize=false,k={k}" for k in (50, 100)}
    assert learnt["failed"].keys() == {f"knn:normalize=false,k={k}" for k in (200, 500, 1000)}
    assert learnt["chosen"] == max(learnt["candidates"], key=learnt["candidates"].get)
    assert learnt["known"] == 80
    assert learnt["unknown"].keys() == {"noise", "patches"}


def test_its_results_are_those_of_what_it_chose(chosen):
    assert chosen["tuned"].detector.learnt["chosen"] == "knn:normalize=false,k=50"
    assert chosen["tuned"].results == chosen["knn"].results
    assert chosen["tuned"].cell_id != chosen["knn"].cell_id


def test_what_it_chose_by_is_in_its_record_and_in_no_other(chosen):
    validation = {"noise (validation)", "patches (validation)"}
    assert validation <= chosen["tuned"].datasets.keys()
    assert not validation & (chosen["knn"].datasets.keys() | chosen["entropy"].datasets.keys())
    assert {result.dataset for result in chosen["tuned"].results} == {"rendered-letters"}
    assert [one.params["k"] for one in chosen["tuned"].detector.inputs] == [50, 100, 200, 500, 1000]


def test_validation_sets_change_what_is_tuned_and_nothing_else(suite, tmp_path, chosen):
    (tmp_path / "other.toml").write_text(SUITE.replace("n = 60", "n = 61"))
    records = run(tmp_path / "other.toml", "tuned:detector=knn:normalize=false", "entropy", out=tmp_path / "out")
    other = {record.detector.name: record.cell_id for record in records}
    assert other["tuned"] != chosen["tuned"].cell_id
    assert other["entropy"] == chosen["entropy"].cell_id


def test_a_suite_without_validation_sets_skips_it_and_says_so(tiny_suite, tmp_path):
    (record,) = run(tiny_suite, "tuned:detector=ash", out=tmp_path)
    assert record.status == "skipped"
    assert "the suite tiny has no sets in [validation] to choose parameters by" in record.error


# What it may see


@oodbench.detector("xx-either-way", needs="logits", search_space={"sign": [1, -1]})
class EitherWay:
    """Minus the largest logit, or the largest logit; keeps what it was asked to score."""

    seen: ClassVar[list[tuple[int, torch.Tensor]]] = []

    def __init__(self, sign: int = 1):
        self.sign = sign

    def fit(self, evidence, labels):
        """Nothing to learn."""

    def score(self, evidence):
        EitherWay.target.seen.append((self.sign, evidence.logits.clone()))
        return -self.sign * evidence.logits.amax(dim=1)


def fields(made):
    return {name: value for name, value in vars(made).items() if name in type(made).__dataclass_fields__}


@pytest.fixture
def misled():
    """The validation images are brighter than any known ones, so that the largest logit finds them, and not the fog."""
    made = problem()
    collector = EvidenceCollector(
        made.collector.classifier, made.collector._cache, made.test.images[0], made.collector.track
    )
    bright = np.clip(made.meta.images.astype(int) * 4, 0, 255).astype(np.uint8)[:100]
    split = split_of("bright", "validation", bright, np.full(len(bright), -1))
    return type(made)(**{**fields(made), "collector": collector, "validation": {"bright": split}})


def test_no_test_sample_is_looked_at_before_the_choice(misled):
    """A choice by test samples would be the other one, and be seen in what is scored first."""
    EitherWay.target.seen.clear()
    (selected,) = select(["tuned:detector=xx-either-way"])
    sheet = DetectorScorer(misled).sheet(selected, ())
    assert not isinstance(sheet, Failure), sheet
    assert sheet.fitted.learnt["chosen"] == "xx-either-way:sign=-1"
    scores = np.concatenate([sheet.of(misled.test).scores, sheet.of(misled.unknown[UNKNOWN]).scores])
    is_unknown = np.arange(len(scores)) >= len(misled.test.labels)
    assert roc_auc_score(is_unknown, scores) < 0.5
    sizes = [(sign, len(logits)) for sign, logits in EitherWay.target.seen]
    assert sizes[:4] == [(1, 240), (1, 100), (-1, 240), (-1, 100)]
    assert {sign for sign, _ in sizes[4:]} == {-1}
    tested = misled.collector.evidence(misled.unknown[UNKNOWN], ()).logits
    assert not any(torch.equal(logits, tested) for _, logits in EitherWay.target.seen[:4])


def test_an_image_for_choosing_that_is_tested_on_ends_the_run_or_is_taken_from_those_for_choosing(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (40, 8, 8), dtype=np.uint8)
    np.savez(tmp_path / "test.npz", images=pixels[:30])
    np.savez(tmp_path / "validation.npz", images=pixels[27:])
    text = SUITE.replace("rendered-letters = { group", 'own = { adapter = "npz:test.npz", group')
    (tmp_path / "suite.toml").write_text(text.replace("patches = {}", 'val = { adapter = "npz:validation.npz" }'))
    with pytest.raises(LeakError, match=r"\d of the \d+ images of own .* are also among the 13 of val \(validation\)"):
        run(tmp_path / "suite.toml", "tuned:detector=ash", out=tmp_path / "out")
    (record,) = run(tmp_path / "suite.toml", "tuned:detector=ash", drop_shared=True, out=tmp_path / "out")
    assert record.datasets["val (validation)"].n == 10
    assert record.datasets["val (validation)"].left_out == {"images that are in own, too": 3}


# What it costs


@oodbench.detector(
    "xx-counts-fits", needs="logits", search_space={"shift": [0, 1], "power": [1, 2, 3]}, only_in_scoring=["power"]
)
class CountsFits:
    fits: ClassVar[list[int]] = []

    def __init__(self, shift: int = 0, power: float = 1):
        self.shift, self.power = shift, power

    def fit(self, evidence, labels):
        CountsFits.target.fits.append(self.shift)
        self.mean = evidence.logits.mean() + self.shift

    def score(self, evidence):
        return (-(evidence.logits - self.mean).amax(dim=1)).exp() ** self.power


def test_candidates_that_differ_in_scoring_alone_share_a_fit(misled):
    CountsFits.target.fits.clear()
    (selected,) = select(["tuned:detector=xx-counts-fits"])
    sheet = DetectorScorer(misled).sheet(selected, ())
    assert not isinstance(sheet, Failure), sheet
    assert len(sheet.fitted.learnt["candidates"]) == 6
    # One for each shift, and one for what is chosen, whose sheet is that of the detector alone.
    assert CountsFits.target.fits[:2] == [0, 1]
    assert len(CountsFits.target.fits) == 3


@pytest.mark.parametrize("spec", ["relation", "cfood", "nci", "knn", "adascale-l"])
def test_it_chooses_what_an_exhaustive_search_by_hand_chooses(misled, spec):
    """Each candidate by a fit of its own, and the AUROC of scikit-learn."""
    (selected,) = select([f"tuned:detector={spec}"])
    scorer = DetectorScorer(misled)
    learnt = scorer._chosen(selected, ())[1]
    choosing = misled.choosing()
    assert learnt["chosen"] == max(learnt["candidates"], key=learnt["candidates"].get)
    for candidate in selected.candidates[:: max(1, len(selected.candidates) // 4)]:
        alone = DetectorScorer(misled)
        found = [alone._fitted_and_scored(candidate, (), Meter(), [split]) for split in choosing]
        if any(isinstance(sheet, Failure) for sheet in found):
            continue
        known, unknown = (sheet.of(split).scores for sheet, split in zip(found, choosing, strict=True))
        expected = roc_auc_score(np.arange(len(known) + len(unknown)) >= len(known), np.append(known, unknown))
        assert learnt["candidates"][candidate.label] == pytest.approx(expected, abs=1e-9)


# What it says


def test_the_advantage_over_the_second_best_has_its_interval(misled):
    (selected,) = select(["tuned:detector=xx-either-way"])
    learnt = DetectorScorer(misled)._chosen(selected, ())[1]
    preferred = learnt["preferred_to"]
    figures = learnt["candidates"]
    assert preferred["candidate"] == "xx-either-way:sign=1"
    by = preferred["by"]
    assert by["auroc"] == pytest.approx(figures["xx-either-way:sign=-1"] - figures["xx-either-way:sign=1"])
    # One score is the other with its sign turned: the difference is twice an AUROC, and so is its error (DeLong).
    half = (by["ci_high"] - by["ci_low"]) / 2
    n, m, area = 240, 100, figures["xx-either-way:sign=-1"]
    assert half < 1.96 * 2 * np.sqrt(area * (1 - area) / min(n, m)) + 1e-9
    assert half > 0
    json.dumps(learnt)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("tuned", "needs the parameter 'detector'"),
        ("tuned:detector=knn,objective=accuracy", "objective"),
        ("tuned:detector=entropy", r"the detector entropy has no search space \(it declares none\)"),
        ("tuned:detector=ash:percentile=0.5", r"no search space \(all of percentile are given\)"),
        ("tuned:detector=grad-combo", "no search space"),
        ("tuned:detector=meta:inputs=entropy", "works on other detectors"),
        ("tuned:detector=tuned:detector=knn", "works on other detectors"),
        (
            "tuned:detector=ash,fitted_on=meta",
            "fitted_on belongs to the other detector: detector=ash;fitted_on",
        ),
        ("tuned:detector=no-such", "no-such"),
        ("tuned:detector=grad-*", "matches 7|takes one detector"),
    ],
)
def test_what_cannot_be_tuned_is_refused_with_the_reason(spec, message):
    with pytest.raises(UsageError, match=message):
        select([spec])


def test_globs_leave_out_what_has_to_be_told_more():
    names = [one.name for one in select(["t*"])]
    assert "temperature-scaling" in names
    assert "tuned" not in names


def test_openoods_values_replace_the_detectors_own_where_they_differ():
    (own,), (theirs,) = select(["tuned:detector=vim"]), select(["tuned:detector=vim,grid=openood"])
    assert [one.given["d"] for one in own.candidates] == [16, 32, 64, 128, 256, 512]
    assert [one.given["d"] for one in theirs.candidates] == [256, 1000]
    (dice,) = select(["tuned:detector=dice,grid=openood"])
    assert [one.given["p"] for one in dice.candidates] == [0.1, 0.3, 0.5, 0.7, 0.9]


def test_all_candidates_that_fail_end_in_one_sentence(misled):
    @oodbench.detector("never", needs="logits", search_space={"a": [1, 2]})
    class Never:
        def __init__(self, a: int = 0):
            self.a = a

        def fit(self, evidence, labels):
            raise ValueError("out of luck")

        def score(self, evidence):
            return evidence.logits[:, 0]

    (selected,) = select(["tuned:detector=never"])
    failure = DetectorScorer(misled).sheet(selected, ())
    assert failure.status == "failed"
    assert "none of the 2 candidates can be tried; never:a=1: " in failure.error
    assert "out of luck" in failure.error


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ('noise = { n = 60, group = "near" }', "never tested on, so they have no group"),
        ("rendered-letters = {}", "a set that is tested on has this name, too"),
        ("noise = { adapter = 3 }", "the adapter is 3; expected a name"),
    ],
)
def test_mistakes_in_validation_are_named_with_their_key(tmp_path, wrong, message):
    (tmp_path / "suite.toml").write_text(SUITE.replace("noise = { n = 60 }", wrong))
    with pytest.raises(UsageError, match=message):
        run(tmp_path / "suite.toml", "entropy", out=tmp_path / "out")


def test_boards_say_what_was_chosen_and_what_could_not_be_tried(chosen):
    (said,) = [sentence for sentence in remarks_on([chosen["tuned"]]) if "Chosen" in sentence]
    learnt = chosen["tuned"].detector.learnt
    assert said.startswith("Chosen by the validation sets: knn:normalize=false,k=50 (seed 0; by +")
    assert f"AUROC before {learnt['preferred_to']['candidate']}; " in said
    assert f"{len(learnt['failed'])} of 5 could not be tried)." in said
    assert not [sentence for sentence in remarks_on([chosen["knn"]]) if "Chosen" in sentence]
