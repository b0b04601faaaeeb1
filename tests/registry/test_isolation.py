"""What a plugin may not do to others, in this process."""

import os
import random
import sys
import threading
import time
from contextlib import suppress

import numpy as np
import pytest
import torch
from torch import nn

import oodbench
from oodbench.errors import OodbenchError, UsageError
from oodbench.evidence import Evidence
from oodbench.evidence.evidence import UndeclaredPartError
from oodbench.registry.isolation import Failure, TimeLimit, TimeoutExceededError, attempt, isolated, time_limit
from oodbench.runs.fitting import fit, refuse_changed_network, refuse_changes, score, state_of


@pytest.fixture
def evidence():
    return Evidence(
        torch.tensor([[1.0, 2.0], [float("nan"), 0.0]]),
        gradients={"l1": torch.ones(2), "l1@fc": torch.zeros(2)},
    )


# Time


def spin():
    """Python without end, which keeps every Exception to itself."""
    while True:
        with suppress(Exception):
            sum(range(1000))


@pytest.mark.parametrize("wait", [lambda: time.sleep(60), lambda: threading.Event().wait(60), spin])
def test_what_takes_too_long_is_ended(wait):
    start = time.monotonic()
    with pytest.raises(TimeoutExceededError, match=r"longer than 0\.2 seconds"), time_limit(TimeLimit(0.2)):
        wait()
    assert time.monotonic() - start < 5


def test_what_catches_everything_is_told_again():
    caught = []

    def stubborn():
        while len(caught) < 3:
            try:
                time.sleep(10)
            except BaseException as error:
                caught.append(error)
        time.sleep(10)

    start = time.monotonic()
    with pytest.raises(TimeoutExceededError), time_limit(TimeLimit(0.1)):
        stubborn()
    assert caught, "it was asked first"
    assert time.monotonic() - start < 5


def test_a_loop_that_catches_everything_is_ended():
    def retry():
        while True:
            try:  # noqa: SIM105 - what people write
                time.sleep(0.05)
            except:  # noqa: E722
                pass

    before = sys.gettrace()
    with pytest.raises(TimeoutExceededError), time_limit(TimeLimit(0.1)):
        retry()
    assert sys.gettrace() is before


def test_what_is_in_time_is_left_alone_and_the_alarm_is_gone():
    with time_limit(TimeLimit(0.2)):
        pass
    time.sleep(0.4)


def test_a_time_limit_outside_the_main_thread_is_refused():
    found = []

    def elsewhere():
        try:
            with time_limit(TimeLimit(1)):
                pass
        except UsageError as error:
            found.append(str(error))

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert "needs the main thread" in found[0]


# State of the process


def test_random_numbers_are_seeded_inside_and_put_back_outside():
    def draws():
        return torch.rand(1).item(), float(np.random.rand()), random.random()

    states = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()
    with isolated(3):
        first = draws()
    with isolated(3):
        again = draws()
    with isolated(4):
        other = draws()
    assert first == again != other
    assert torch.equal(torch.get_rng_state(), states[0])
    assert np.random.get_state()[1].tolist() == states[1]
    assert random.getstate() == states[2]


def test_what_was_changed_is_put_back_also_when_it_raises(tmp_path):
    before = torch.get_default_dtype(), torch.get_num_threads(), torch.is_grad_enabled(), os.getcwd()

    def untidy():
        with isolated(0):
            torch.set_default_dtype(torch.float64)
            torch.set_num_threads(before[1] + 1)
            torch.set_grad_enabled(False)
            os.chdir(tmp_path)
            raise ValueError("no luck")

    with pytest.raises(ValueError, match="no luck"):
        untidy()
    assert (torch.get_default_dtype(), torch.get_num_threads(), torch.is_grad_enabled(), os.getcwd()) == before


# Failures


def test_a_failure_has_a_sentence_and_a_traceback():
    def raises():
        raise ValueError("no\nluck")

    failure = attempt("fit", raises)
    assert failure.status == "failed"
    assert failure.error.startswith("it raised ValueError: no luck (test_isolation.py, line ")
    assert 'raise ValueError("no\\nluck")' in failure.traceback


def test_a_skipped_one_is_no_failure_and_an_interrupt_is_the_users():
    def skips():
        raise oodbench.CellSkippedError("too few")

    def interrupts():
        raise KeyboardInterrupt

    assert attempt("score", skips) == Failure("score", "skipped", "too few")
    with pytest.raises(KeyboardInterrupt):
        attempt("fit", interrupts)


# Evidence and classifier

CHANGES = {
    "logits": lambda e: e.logits.zero_(),
    "gradients['l1']": lambda e: e.gradients["l1"].numpy().fill(3),
    "gradients['new']": lambda e: e.gradients.update(new=torch.ones(2)),
    "gradients['l1@fc']": lambda e: e.gradients.pop("l1@fc"),
}


@pytest.mark.parametrize(("what", "change"), CHANGES.items(), ids=CHANGES)
def test_a_change_of_the_evidence_is_named_and_does_not_reach_the_original(evidence, what, change):
    given = evidence.copy()
    refuse_changes(evidence, given)
    change(given)
    with pytest.raises(OodbenchError) as error:
        refuse_changes(evidence, given)
    assert f"it changed {what} of the evidence" in str(error.value)
    assert evidence.logits[0].tolist() == [1, 2]
    assert list(evidence.gradients) == ["l1", "l1@fc"]


def test_a_part_that_is_not_declared_is_named(evidence):
    with pytest.raises(UndeclaredPartError, match="it reads 'features', which it does not declare: add it to `needs`"):
        _ = evidence.features
    with pytest.raises(AttributeError, match="no part 'feature'"):
        _ = evidence.feature
    with pytest.raises(TypeError, match="'feature' is no part"):
        Evidence(evidence.logits, feature=evidence.logits)
    assert not hasattr(evidence, "features")


NETWORK_CHANGES = {
    "0.weight": lambda n: n[0].weight.data.mul_(2),
    "training mode": lambda n: n.train(),
    "requires_grad": lambda n: n.requires_grad_(False),
    "extra": lambda n: n.register_buffer("extra", torch.ones(1)),
}


@pytest.mark.parametrize(("what", "change"), NETWORK_CHANGES.items(), ids=NETWORK_CHANGES)
def test_a_change_of_the_classifier_is_named(what, change):
    network = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3)).eval()
    before = state_of(network)
    network(torch.ones(2, 3))
    refuse_changed_network(before, network)
    change(network)
    with pytest.raises(OodbenchError) as error:
        refuse_changed_network(before, network)
    assert f"it changed {what} of the classifier" in str(error.value)


def test_running_statistics_count_as_weights():
    network = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3)).eval()
    before = state_of(network)
    network.train()(torch.randn(4, 3))
    network.eval()
    with pytest.raises(OodbenchError, match=r"it changed 1\.running_mean"):
        refuse_changed_network(before, network)


def test_a_detector_gets_copies_of_its_own(evidence):
    kept = []

    @oodbench.detector("keeps", needs="logits", fitted_on="meta")
    class Keeps:
        def fit(self, evidence, labels):
            kept.append(evidence.logits)

        def score(self, evidence):
            kept.append(evidence.logits)
            return evidence.logits[:, 1]

    fitted = fit(Keeps, {}, evidence, torch.zeros(2, dtype=torch.int64))
    score(fitted.detector, evidence)
    assert kept[0].data_ptr() != kept[1].data_ptr() != evidence.logits.data_ptr()


# What a decorator refuses, before anything is run

WRONG = {
    "no such part": (lambda: oodbench.detector("x", needs="logit")(lambda logit: logit), "needs 'logit'; expected"),
    "no needs": (lambda: oodbench.detector("x")(lambda logits: logits), "says not what it needs"),
    "too few arguments": (
        lambda: oodbench.detector("x", needs=("logits", "features"))(lambda logits: logits),
        "cannot be called with its needs (logits, features)",
    ),
    "fitted function": (
        lambda: oodbench.detector("x", needs="logits", fitted_on="meta")(lambda logits: logits),
        "is a function, which learns nothing",
    ),
    "no fit": (lambda: oodbench.detector("x", needs="logits")(type("X", (), {"score": 1})), "needs methods fit and"),
    "fit without labels": (
        lambda: oodbench.detector("x")(type("X", (), {"fit": lambda s, e: 1, "score": lambda s, e: 1})),
        "cannot be called as fit(evidence, labels)",
    ),
    "fitted on the test": (
        lambda: oodbench.detector("x", fitted_on="test")(
            type("X", (), {"fit": lambda s, e, y: 1, "score": lambda s, e: 1})
        ),
        "is fitted on 'test'; expected one of: training, meta, exposed",
    ),
    "meta without inputs": (
        lambda: oodbench.detector("x", needs="scores")(
            type("X", (), {"fit": lambda s, e, y: 1, "score": lambda s, e: 1})
        ),
        "expected a parameter `inputs`",
    ),
}


@pytest.mark.parametrize(("declare", "sentence"), WRONG.values(), ids=WRONG)
def test_a_declaration_that_cannot_be_meant_is_refused(declare, sentence):
    with pytest.raises(UsageError) as error:
        declare()
    assert sentence in str(error.value)


def test_a_detector_may_have_a_version_of_its_own(tmp_path):
    @oodbench.detector("versioned", needs="logits", version="2.1")
    def versioned(logits):
        return -logits.amax(dim=1)

    (record,) = oodbench.run("digits", [versioned], ["known"], [0], limit=40, out=tmp_path)
    assert record.detector.version.startswith("2.1+"), "with a digest of its code"
    assert record.detector.distribution == __name__
    assert record.detector.distribution_version == "0"
