"""`oodbench bench`: that it measures what it says; never how fast something is."""

import json

import pytest
from click.testing import CliRunner

from oodbench.bench import measure, pipeline
from oodbench.bench.networks import NETWORKS
from oodbench.cli.bench import command
from oodbench.errors import OodbenchError, UsageError


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(measure, "ROUNDS", 2)
    monkeypatch.setattr(measure, "REPETITIONS", 1)


def test_all_candidates_are_measured_against_forward_and_backward(quick):
    report = measure.measure("cnn", 4)
    by_name = {one.name: one for one in report.costs}
    assert report.parameters == 98_442
    reference = [one for name, one in by_name.items() if name.startswith("forward + backward")]
    assert len(reference) == 2
    # In each round one of the two is 1; which, may change from round to round.
    assert all(one.ratio >= 1 for one in reference)
    assert {"forward", "evidence pass", "batch-1 loop", "vmap, chunks of 32"} < set(by_name)
    for one in report.costs:
        assert (one.note == "not installed") == (one.ms is None)
        assert one.ms is None or (one.ms > 0 and one.ratio > 0)
    assert report.limit_ms > 0
    assert report.machine["processors"] >= 1


def test_a_peer_that_is_not_installed_is_named(quick, monkeypatch):
    there = measure.importlib.util.find_spec
    monkeypatch.setattr(
        measure.importlib.util, "find_spec", lambda name: None if name == "gradient_metrics" else there(name)
    )
    (absent,) = [one for one in measure.measure("cnn", 2).costs if one.name == "gradient-metrics"]
    assert (absent.ms, absent.note) == (None, "not installed")


@pytest.mark.parametrize("flag", ["--json", "--markdown", None])
def test_the_command_prints_what_was_measured(quick, flag):
    answer = CliRunner().invoke(command, ["--model", "cnn", "--batch", "3", *([flag] if flag else [])])
    assert answer.exit_code == 0, answer.output
    if flag == "--json":
        (report,) = json.loads(answer.stdout)
        assert (report["network"], report["batch"]) == ("cnn", 3)
    else:
        assert "evidence pass" in answer.stdout
        assert "Measured on: processor" in answer.stdout


def test_an_unknown_network_is_refused():
    with pytest.raises(UsageError, match="no network is named 'alexnet'; expected one of: cnn"):
        measure.measure("alexnet")


def test_memory_beyond_forward_and_backward_does_not_grow_with_the_batch():
    """At most 256 MiB. A weight gradient of each sample of this network would take 5.6 GiB."""
    import torch

    from oodbench.gradients import gradient_metrics

    model, inputs = NETWORKS["resnet18"].build().eval(), torch.randn(128, 3, 32, 32)
    training, _ = measure._first_run(lambda: measure.forward_and_backward(model, inputs))
    ours, _ = measure._first_run(lambda: gradient_metrics(model, inputs))
    if training is None:
        pytest.skip("peak memory can be read on Linux with glibc only")
    assert ours < training + 256


@pytest.mark.parametrize("flag", ["--json", None])
def test_from_files_all_stages_and_what_takes_longest(monkeypatch, flag):
    monkeypatch.setattr(pipeline, "PICTURES", 8)
    monkeypatch.setattr(pipeline, "REPETITIONS", 1)
    words = ["--model", "cnn", "--batch", "4", "--device", "cpu", "--files", *([flag] if flag else [])]
    answer = CliRunner().invoke(command, words)
    assert answer.exit_code == 0, answer.output
    if flag is None:
        assert "What takes the most time: decoding for logits, and" in " ".join(answer.stdout.split())
        return
    (report,) = json.loads(answer.stdout)
    stages, passes = ({one["name"]: one["ms"] for one in report[key]} for key in ("stages", "passes"))
    assert list(stages) == ["reading", "decoding", "network, forward", "network, backward", "statistics"]
    # Pictures of 500 × 375 against a small network at 28 × 28.
    assert report["bottleneck"]["logits"] == "decoding"
    assert passes["logits, from files"] > passes["logits, images in memory"] > 0
    assert (report["size"], report["batch"], report["device"]) == (28, 4, "cpu")


def test_a_size_needs_files_and_a_device_has_to_be_there():
    answer = CliRunner().invoke(command, ["--size", "64"])
    assert (answer.exit_code, "give --files, too" in answer.output) == (2, True)
    with pytest.raises(OodbenchError, match="the device cuda:99 is not there"):
        CliRunner().invoke(command, ["--device", "cuda:99"], catch_exceptions=False)
