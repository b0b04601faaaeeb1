"""The meta classifier over any detectors, against scikit-learn by hand, and what it says of its inputs."""

import json

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

import oodbench
from oodbench import registry
from oodbench.cli import cli
from oodbench.comparison.importance import importances
from oodbench.conformance.problem import UNKNOWN, problem
from oodbench.detectors.selection import select
from oodbench.detectors.supervised import CLASSIFIERS, classifier_named, importance
from oodbench.errors import MissingPrerequisiteError, UsageError
from oodbench.registry.isolation import Failure
from oodbench.runs.score_sheet import DetectorScorer, key_of


@pytest.fixture
def scorer():
    return DetectorScorer(problem())


def sheet_of(scorer, spec, exposed=()):
    (selected,) = select([spec])
    sheet = scorer.sheet(selected, exposed)
    assert not isinstance(sheet, Failure), sheet
    return sheet


def evidence_of(scorer, spec, exposed=()):
    (selected,) = select([spec])
    return scorer.evidence(selected, exposed)


# Inputs


def test_inputs_are_the_scores_of_the_detectors_themselves(scorer):
    """Those of a third party and of pytorch-ood too, each fitted on what it declares."""

    @oodbench.detector("length", needs="features")
    def length(features):
        return -features.norm(dim=1)

    trial = problem()
    given = evidence_of(scorer, "meta:inputs=length+knn:k=5+energy:temperature=2+grad-l1")
    for split in trial.scored():
        scores = given.score_evidence[key_of(split)].scores
        assert list(scores) == ["length", "knn:k=5", "energy:temperature=2", "grad-l1"]
        for label, column in scores.items():
            np.testing.assert_array_equal(column, sheet_of(scorer, label).of(split).scores)


def test_inputs_may_be_globs_and_a_semicolon_parts_their_parameters(scorer):
    names = list(evidence_of(scorer, "meta:inputs=entropy+grad-m*+knn:k=5;normalize=false").fit_evidence.scores)
    assert names == ["entropy", "grad-max", "grad-mean", "grad-min", "knn:k=5,normalize=false"]
    everything = list(evidence_of(scorer, "meta:inputs=e*").fit_evidence.scores)
    assert everything == ["energy", "energy-based", "entropy", "entropy-meta", "exgrad"]


def test_supervised_inputs_are_scored_out_of_fold_where_they_are_fitted(scorer):
    """By scikit-learn alone: five fits, each on four fifths, of what `entropy-meta` is."""
    exposed = (UNKNOWN,)
    given = evidence_of(scorer, "meta:inputs=entropy-meta+energy", exposed)
    alone = evidence_of(scorer, "entropy-meta", exposed)
    detector = registry.load("detectors", "entropy-meta")
    found = given.fit_evidence.scores["entropy-meta"].numpy()
    fold = np.arange(len(found)) % 5
    for i in range(5):
        one = detector()
        one.fit(alone.fit_evidence[torch.from_numpy(fold != i)], alone.labels[torch.from_numpy(fold != i)])
        np.testing.assert_allclose(found[fold == i], one.score(alone.fit_evidence[torch.from_numpy(fold == i)]))
    tested = problem().test
    whole = sheet_of(scorer, "entropy-meta", exposed).of(tested).scores
    np.testing.assert_array_equal(given.score_evidence[key_of(tested)].scores["entropy-meta"], whole)


def test_a_detector_in_the_run_is_not_fitted_again_for_the_meta_classifier(scorer):
    fits = []

    @oodbench.detector("counted", needs="logits")
    class Counted:
        def fit(self, evidence, labels):
            fits.append(len(labels))

        def score(self, evidence):
            return -evidence.logits.amax(dim=1)

    sheet_of(scorer, "counted")
    sheet_of(scorer, "meta:inputs=counted+entropy")
    sheet_of(scorer, "meta:inputs=counted+entropy,classifier=mlp")
    assert len(fits) == 1


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        ("meta:inputs=entropi", "no detector is named 'entropi'; did you mean entropy"),
        ("meta:inputs=meta", "the input 'meta' of 'meta' works on scores itself"),
        ("meta:inputs=", "has no inputs"),
        ("meta:inputs=knn:q=1", "'knn' has no parameter 'q'"),
        ("meta:classifier=forest", "no classifier of meta classifiers is named 'forest'; expected one of: logistic, "),
        ("meta:classifier=sklearn.ensemble.Forest", "sklearn.ensemble has no classifier 'Forest'"),
        ("meta:classifier=sklearn.linear_model.Ridge", "is no scikit-learn classifier"),
        ("meta:classifier=sklearn.ensemble.VotingClassifier", "cannot be made without arguments"),
    ],
)
def test_wrong_inputs_and_classifiers_cost_no_time(spec, sentence):
    with pytest.raises(UsageError) as error:
        select([spec])
    assert sentence in str(error.value)


def test_a_package_that_is_not_there_is_a_missing_prerequisite():
    with pytest.raises(MissingPrerequisiteError, match=r"'nobodys\.Classifier' cannot be imported"):
        classifier_named("nobodys.Classifier")


# Classifiers


@pytest.fixture(scope="module")
def samples():
    """Two inputs that tell, and one that does not."""
    generator = np.random.default_rng(0)
    target = generator.random(600) < 0.3
    inputs = generator.normal(size=(600, 3))
    inputs[:, 0] += 2 * target
    inputs[:, 1] += target
    return inputs, target


@pytest.mark.parametrize("name", [*CLASSIFIERS, "sklearn.svm.SVC", "sklearn.ensemble.RandomForestClassifier"])
def test_each_classifier_tells_wrong_from_right_and_repeats_itself(samples, name):
    inputs, target = samples
    make = classifier_named(name)
    one, again = make(inputs[::2], target[::2], 0), make(inputs[::2], target[::2], 0)
    decisions = one.decision(inputs[1::2])
    np.testing.assert_array_equal(decisions, again.decision(inputs[1::2]))
    assert roc_auc_score(target[1::2], decisions) > 0.82
    assert np.isfinite(decisions).all()


@pytest.mark.parametrize("name", [*CLASSIFIERS, "sklearn.ensemble.RandomForestClassifier"])
def test_log_odds_are_those_of_the_share_of_errors(samples, name):
    """The mean probability is the share of wrong samples, also where classes are balanced in fitting."""
    inputs, target = samples
    trained = classifier_named(name)(inputs[::2], target[::2], 0)
    p = 1 / (1 + np.exp(-trained.decision(inputs[1::2])))
    assert trained.states_log_odds
    assert abs(p.mean() - target[1::2].mean()) < 0.06


def test_a_classifier_by_its_dotted_name_is_that_of_scikit_learn(samples):
    inputs, target = samples
    trained = classifier_named("sklearn.ensemble.RandomForestClassifier")(inputs, target, 7)
    p = RandomForestClassifier(random_state=7).fit(inputs, target).predict_proba(inputs)[:, 1].clip(1e-6, 1 - 1e-6)
    np.testing.assert_allclose(trained.decision(inputs), np.log(p / (1 - p)), rtol=1e-9, atol=1e-9)


def test_one_without_probabilities_has_its_own_scale(samples):
    trained = classifier_named("sklearn.svm.LinearSVC")(*samples, 0)
    assert not trained.states_log_odds


def test_importance_is_how_far_the_auroc_falls(samples):
    """Against a plain logistic regression, shuffled by hand; the input without information has none."""
    inputs, target = samples
    found = importance(CLASSIFIERS["logistic"], inputs, target, 0)
    model = LogisticRegression().fit(inputs, target)
    whole = roc_auc_score(target, model.decision_function(inputs))
    generator = np.random.default_rng(1)
    for k in range(3):
        falls = []
        for _ in range(10):
            shuffled = inputs.copy()
            shuffled[:, k] = generator.permutation(shuffled[:, k])
            falls.append(whole - roc_auc_score(target, model.decision_function(shuffled)))
        assert found[k] == pytest.approx(np.mean(falls), abs=0.05)
    assert found[0] > found[1] > 0.01
    assert abs(found[2]) < 0.01


# In a run


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    out = tmp_path_factory.mktemp("meta")
    wanted = ["meta:inputs=entropy+constant+grad-l2", "meta:inputs=entropy+knn:k=5,classifier=hist-gradient-boosting"]
    return oodbench.run("digits", wanted, ["known", "known-unknowns"], [0], out=out), out


def test_records_name_inputs_with_their_versions_and_importance(ran):
    first = ran[0][0]
    assert [(one.name, one.distribution) for one in first.detector.inputs] == [
        ("entropy", "oodbench"),
        ("constant", "oodbench"),
        ("grad-l2", "oodbench"),
    ]
    assert first.detector.params == {"inputs": ["entropy", "constant", "grad-l2"], "classifier": "logistic", "seed": 0}
    assert set(first.detector.learnt["importance"]) == {"entropy", "constant", "grad-l2"}
    assert first.detector.learnt["importance"]["constant"] == 0
    knn = ran[0][-1].detector.inputs[1]
    assert (knn.name, knn.distribution, knn.params["k"]) == ("knn", "pytorch-ood", 5)


def test_the_cell_is_another_one_when_an_input_is(ran):
    ids = {record.cell_id for record in ran[0]}
    assert len(ids) == len(ran[0])


def test_importances_are_one_table_for_each_exposure(ran):
    found = importances(ran[0])
    assert len(found) == 2 * 6
    assert {one.exposed for one in found} >= {(), ("noise",)}
    for one in found:
        falls = [fall for fall, _ in one.inputs.values()]
        assert falls == sorted(falls, reverse=True)


def test_the_command_line_prints_importance_when_asked(tmp_path):
    arguments = ["run", "-d", "meta:inputs=entropy+energy", "-p", "known", "--seed", "0", "--out", str(tmp_path)]
    plain = CliRunner().invoke(cli, arguments, standalone_mode=False)
    asked = CliRunner().invoke(cli, [*arguments, "--importance"], standalone_mode=False)
    assert "importance" not in plain.stdout
    assert "importance" in asked.stdout
    assert "How far the AUROC falls" in asked.stdout
    (record,) = [json.loads(file.read_text()) for file in (tmp_path / "records").iterdir()]
    for name, fall in record["detector"]["learnt"]["importance"].items():
        line = next(line for line in asked.stdout.splitlines() if line.startswith(f"│ {name} "))
        assert f"{fall:+.4f}" in line
