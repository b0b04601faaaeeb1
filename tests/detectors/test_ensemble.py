"""``ensemble``: means over the networks of a suite's seeds, against closed forms and through whole runs."""

import json
import shutil

import numpy as np
import pytest
import torch
from in_process import command_line
from torch import nn

import oodbench
from oodbench.detectors.ensemble import mean_logits, mean_probabilities
from oodbench.detectors.selection import select
from oodbench.errors import UsageError
from oodbench.records.remarks import remarks_on

SUITE = """
name = "several"
version = 1
known = "digits"
seeds = [0, 1, 2]
[input]
size = 8
[sizes]
train = 400
meta = 80
test = 80
[training]
epochs = 6
batch_size = 32
[unknown]
rendered-letters = { group = "near" }
"""


@pytest.fixture(scope="module")
def suite(tmp_path_factory):
    file = tmp_path_factory.mktemp("suite") / "several.toml"
    file.write_text(SUITE)
    return file


def run(suite, *detectors, **choices):
    return oodbench.run(suite, list(detectors), protocols=["unknown-unknowns"], **choices)


# The means


@pytest.fixture
def members():
    generator = torch.Generator().manual_seed(0)
    return [5 * torch.randn(5000, 4, generator=generator) for _ in range(3)]


def test_the_softmax_of_the_mean_is_the_mean_of_the_softmax(members):
    found = mean_probabilities(members).double().softmax(dim=1)
    expected = np.mean([np.exp(z) / np.exp(z).sum(1, keepdims=True) for z in (m.double().numpy() for m in members)], 0)
    assert np.allclose(found, expected, atol=1e-6)
    assert mean_probabilities(members).dtype == torch.float32


def test_its_energy_is_the_mean_of_the_energies(members):
    expected = np.mean([np.log(np.exp(m.double().numpy()).sum(1)) for m in members], 0)
    assert np.allclose(mean_probabilities(members).double().logsumexp(1), expected, atol=1e-5)


def test_small_probabilities_of_sure_members_are_kept_apart():
    sure = [torch.tensor([[60.0, 0.0], [70.0, 0.0]]), torch.tensor([[62.0, 0.0], [72.0, 0.0]])]
    mean = mean_probabilities(sure).double()
    expected = np.log((np.exp([-60.0, -70.0]) + np.exp([-62.0, -72.0])) / 2)
    assert np.allclose(mean[:, 1] - mean[:, 0], expected, atol=1e-4)


@pytest.mark.parametrize("mean", [mean_probabilities, mean_logits])
def test_equal_members_give_their_own_logits(mean, members):
    assert torch.allclose(mean([members[0]] * 3), members[0], atol=1e-5)


# Whole runs


@pytest.fixture(scope="module")
def records(suite, tmp_path_factory):
    out = tmp_path_factory.mktemp("out")
    names = ["ensemble:detector=max-softmax", "ensemble:detector=max-logit,combine=logits", "max-softmax", "max-logit"]
    run(suite, *names, out=out)
    return oodbench.read_results(out)


def of(records, name, seed, **params):
    (found,) = [
        record
        for record in records.records
        if record.detector.name == name and record.seed == seed and params.items() <= record.detector.params.items()
    ]
    return records.scores(found).to_pandas()


def test_scores_are_those_of_the_mean_over_the_seeds(records):
    own = np.stack([of(records, "max-logit", seed)["score"] for seed in range(3)])
    for seed in range(3):
        found = of(records, "ensemble", seed, combine="logits")
        # The mean's largest logit is at most the mean of the largest ones; equal where all predict the same class.
        predicted = np.stack([of(records, "max-logit", one)["prediction"] for one in range(3)])
        agree = (predicted == predicted[0]).all(axis=0)
        assert agree.mean() > 0.3
        assert np.allclose(found["score"][agree], own.mean(axis=0)[agree], atol=1e-5)
        assert (found["score"] >= own.mean(axis=0) - 1e-5).all()


def test_probabilities_are_averaged(records):
    own = np.stack([1 - of(records, "max-softmax", seed)["score"] for seed in range(3)])
    predicted = np.stack([of(records, "max-softmax", seed)["prediction"] for seed in range(3)])
    agree = (predicted == predicted[0]).all(axis=0)
    assert agree.mean() > 0.3
    found = 1 - of(records, "ensemble", 1, combine="probabilities")["score"]
    assert np.allclose(found[agree], own.mean(axis=0)[agree], atol=1e-6)
    assert (found <= own.mean(axis=0) + 1e-6).all()


def test_predictions_are_those_of_the_network_of_the_cells_own_seed(records):
    for seed in range(3):
        single = of(records, "max-softmax", seed)
        found = of(records, "ensemble", seed, combine="probabilities")
        assert (found["prediction"] == single["prediction"]).all()


def test_records_name_the_weights_of_all_members_and_the_detector(records):
    weights = {str(one.seed): one.classifier.weights_sha256 for one in records.records}
    assert len(set(weights.values())) == 3
    ensembles = [one for one in records.records if one.detector.name == "ensemble"]
    assert len(ensembles) == 6
    for record in ensembles:
        assert record.classifier.members == weights
        assert [one.name for one in record.detector.inputs] in (["max-softmax"], ["max-logit"])
    cost = {(one.detector.name, one.seed): one.timing.evidence_ms_per_sample for one in records.records}
    assert cost["ensemble", 0] == pytest.approx(3 * cost["max-softmax", 0])


def test_boards_say_that_there_is_one_ensemble(records):
    said = [sentence for sentence in remarks_on(records.records) if "ensemble" in sentence]
    assert len(said) == 1
    assert "seeds 0, 1, 2" in said[0]
    assert not any("ensemble" in one for one in remarks_on([r for r in records.records if not r.detector.inputs]))


def test_a_run_of_one_seed_has_the_ensemble_of_all(suite, records, tmp_path):
    (alone,) = run(suite, "ensemble:detector=max-softmax", seeds=[1], out=tmp_path)
    others = [one.cell_id for one in records.records if one.detector.name == "ensemble" and one.seed == 1]
    assert alone.cell_id in others


def test_other_weights_of_another_seed_make_another_cell(tmp_path):
    """Only the weights of seed 1 change: the ensemble's cell of seed 0 has to be computed again."""
    (tmp_path / "net.py").write_text(
        "from torch import nn\n\ndef net(channels, size, classes):\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(channels * size * size, classes))\n"
    )
    text = SUITE.replace(
        'known = "digits"',
        'known = { adapter = "digits", split = "test" }\nclassifier = "net.py:net"\nweights = "s{seed}.pt"',
    )
    (tmp_path / "several.toml").write_text(text)
    for seed in range(3):
        save(tmp_path / f"s{seed}.pt", seed)
    choices = {"seeds": [0], "out": tmp_path / "out", "trust_model": True}
    before = run(tmp_path / "several.toml", "ensemble:detector=entropy", "entropy", **choices)
    save(tmp_path / "s1.pt", 7)
    after = run(tmp_path / "several.toml", "ensemble:detector=entropy", "entropy", **choices)
    changed = {one.detector.name for one in after} - {
        one.detector.name for one in after if one.cell_id in {old.cell_id for old in before}
    }
    assert changed == {"ensemble"}


def save(file, seed):
    torch.manual_seed(seed)
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    torch.save(network.state_dict(), file)


def test_third_parties_get_the_logits_by_seed(suite, tmp_path):
    @oodbench.detector("xx-disagreement", needs="member_logits")
    def disagreement(member_logits):
        """Share of the members whose prediction is another than the first one's."""
        first, *others = [logits.argmax(dim=1) for logits in member_logits.values()]
        assert list(member_logits) == ["0", "1", "2"]
        return torch.stack([(other != first).float() for other in others]).mean(dim=0)

    (record,) = run(suite, disagreement, seeds=[2], out=tmp_path)
    assert record.status == "ok", record.error
    assert set(record.classifier.members) == {"0", "1", "2"}
    assert remarks_on([record]) == [one for one in remarks_on([record]) if "ensemble" not in one]


def test_processes_have_the_same_ensemble(suite, records, tmp_path):
    run(suite, "ensemble:detector=max-softmax", out=tmp_path, executor="dask", workers=2)
    theirs = oodbench.read_results(tmp_path)
    for seed in range(3):
        ours = of(records, "ensemble", seed, combine="probabilities")
        assert (of(theirs, "ensemble", seed)["score"] == ours["score"]).all()


# What cannot be


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("ensemble", "needs the parameter 'detector'"),
        ("ensemble:detector=knn", "needs the logits alone, and knn needs features"),
        ("ensemble:detector=meta:inputs=entropy", "works on other detectors"),
        ("ensemble:detector=ensemble:detector=entropy", "works on other detectors"),
        ("ensemble:detector=e*", "takes one detector"),
        ("ensemble:detector=no-such", "no-such"),
        ("ensemble:detector=entropy,combine=votes", "combine"),
        ("ensemble:detector=temperature-scaling,fitted_on=meta", "fitted_on belongs to the other detector"),
    ],
)
def test_what_cannot_be_an_ensemble_is_refused_with_the_reason(spec, message):
    with pytest.raises(UsageError, match=message):
        select([spec])


def test_one_training_is_no_ensemble(tmp_path):
    (tmp_path / "one.toml").write_text(SUITE.replace("[0, 1, 2]", "[4]"))
    result = command_line("run", "-s", str(tmp_path / "one.toml"), "-d", "ensemble:detector=entropy")
    assert result.returncode == 2
    assert "all seeds of the suite, and several has the seed 4 only" in result.stderr


def test_what_the_record_says_is_plain_json(records):
    for record in records.records:
        json.loads(record.model_dump_json())


def with_weights(folder, *seeds):
    """A suite with weights by seed, and a network of one layer."""
    (folder / "net.py").write_text(
        "from torch import nn\n\ndef net(channels, size, classes):\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(channels * size * size, classes))\n"
    )
    known = 'known = { adapter = "digits", split = "test" }\nclassifier = "net.py:net"\nweights = "s{seed}.pt"'
    (folder / "several.toml").write_text(SUITE.replace('known = "digits"', known))
    for seed, drawn in enumerate(seeds):
        if drawn is not None:
            save(folder / f"s{seed}.pt", drawn)
    return folder / "several.toml"


def test_a_member_that_cannot_be_had_costs_the_cells_of_the_ensemble_alone(tmp_path):
    suite = with_weights(tmp_path, 0, 1, None)
    names = ["ensemble:detector=entropy", "entropy"]
    records = run(suite, *names, seeds=[0], out=tmp_path / "out", trust_model=True)
    by_name = {record.detector.name: record for record in records}
    assert by_name["entropy"].status == "ok"
    assert by_name["ensemble"].status == "failed"
    assert "the network of seed 2, a member of the ensemble, cannot be had: " in by_name["ensemble"].error
    save(tmp_path / "s2.pt", 2)
    records = run(suite, *names, seeds=[0], out=tmp_path / "out", trust_model=True)
    assert {record.status for record in records} == {"ok"}


def test_equal_weights_are_no_several_trainings(tmp_path):
    suite = with_weights(tmp_path, 0, 1)
    shutil.copy(tmp_path / "s1.pt", tmp_path / "s2.pt")
    with pytest.raises(UsageError, match=r"the weights .*s1\.pt and .*s2\.pt are equal, so their seeds are one train"):
        run(suite, "entropy", out=tmp_path / "out", trust_model=True)
    (record,) = run(suite, "ensemble:detector=entropy", seeds=[0], out=tmp_path / "out", trust_model=True)
    assert "the networks of the seeds 1 and 2, its members, have equal weights" in record.error


def test_boards_over_classifiers_have_the_ensembles_of_each(tmp_path):
    suite = with_weights(tmp_path, 0, 1, 2)
    for seed in range(3):
        save(tmp_path / f"b{seed}.pt", 10 + seed)
    for weights in ("s{seed}.pt", "b{seed}.pt"):
        run(suite, "ensemble:detector=entropy", "entropy", out=tmp_path / "out", trust_model=True,
            weights=str(tmp_path / weights))  # fmt: skip
    done = command_line("leaderboard", "build", tmp_path / "out", "-o", tmp_path / "two.md")
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "two.md").read_text()
    assert "ensemble" in text
    assert "some classifier has no figure of it" not in text


def test_a_detector_that_learns_from_errors_is_refused():
    with pytest.raises(UsageError, match="does not learn from errors, and entropy-meta does"):
        select(["ensemble:detector=entropy-meta"])


def test_what_the_inner_detector_learnt_is_told(suite, tmp_path):
    (record,) = run(suite, "ensemble:detector=temperature-scaling", seeds=[0], out=tmp_path)
    (alone,) = run(suite, "temperature-scaling", seeds=[0], out=tmp_path)
    assert record.detector.learnt.keys() == alone.detector.learnt.keys()


def test_a_random_detector_is_the_same_in_all_seeds(suite, tmp_path):
    run(suite, "ensemble:detector=random", out=tmp_path)
    found = oodbench.read_results(tmp_path)
    first, *others = [of(found, "ensemble", seed)["score"] for seed in range(3)]
    assert all((other == first).all() for other in others)
