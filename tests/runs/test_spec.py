"""The specification of a run: one list of options, whoever gives them."""

import inspect
from dataclasses import MISSING, fields
from pathlib import Path

import numpy as np
import pytest

import oodbench
from oodbench.cli.options import settings_of, spec_of
from oodbench.cli.run import command
from oodbench.errors import OodbenchError, UsageError
from oodbench.execution.serial import Serial
from oodbench.machine.progress import silent
from oodbench.runs.settings import RunSettings
from oodbench.runs.spec import RunSpec, make_spec

DASK = {"scheduler", "workers", "resources"}
ARGUMENTS = inspect.signature(oodbench.run).parameters


def test_run_has_an_argument_for_each_field_and_no_other():
    of_settings = {field.name for field in fields(RunSettings)}
    assert set(ARGUMENTS) == set(RunSpec.model_fields) | of_settings | DASK


def test_the_command_line_has_an_option_for_each_field():
    offered = {parameter.name for parameter in command.params}
    of_settings = {field.name for field in fields(RunSettings)} - {"track"}
    assert set(RunSpec.model_fields) | of_settings | DASK <= offered


@pytest.mark.parametrize("name", RunSpec.model_fields)
def test_an_argument_that_is_left_out_is_the_default_of_its_field(name):
    default = RunSpec.model_fields[name].get_default(call_default_factory=True)
    argument = ARGUMENTS[name].default
    assert ({} if name == "replace" else argument) == default


@pytest.mark.parametrize("field", [one for one in fields(RunSettings) if one.default is not MISSING])
def test_a_setting_that_is_left_out_is_the_default_of_its_field(field):
    argument = ARGUMENTS[field.name].default
    assert (Path(argument) if field.name == "out" else argument) == field.default


def test_options_that_are_not_given_take_the_defaults():
    context = command.make_context("run", [])
    assert spec_of(context.params) == RunSpec()
    assert settings_of(context.params, Serial(), silent) == RunSettings(Serial(), data=context.params["data"])


def test_options_and_arguments_of_the_same_meaning_give_the_same_specification():
    words = "-d entropy -d knn:k=5 -s digits -p known --seed 3 --seed 3 --limit 9 --set digits=npz:a.npz --timeout 2"
    given = {"detectors": ["entropy", "knn:k=5"], "protocols": "known", "seeds": [3], "limit": 9}
    expected = make_spec(given | {"replace": {"digits": "npz:a.npz"}, "timeout": 2})
    assert spec_of(command.make_context("run", words.split()).params) == expected


def test_a_specification_is_the_same_behind_json():
    spec = make_spec({"detectors": "knn", "seeds": range(3), "weights": Path("net.pt"), "plugins": [Path("a.py")]})
    assert RunSpec.model_validate_json(spec.model_dump_json()) == spec


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"seeds": []}, "the seeds are"),
        ({"seeds": [0.5]}, "the seeds are"),
        ({"seeds": 3}, "the seeds are 3"),
        ({"limit": 1}, "the limit is 1"),
        ({"limit": "many"}, "the limit is 'many'"),
        ({"timeout": 0}, "the time limit is 0"),
        ({"classifier": 3}, "classifier is 3"),
        ({"detectors": None}, "detectors is None"),
        ({"seed": 3}, "seed"),
        ({"timeout": "2"}, "the time limit is '2'"),
        ({"replace": 3}, "replace is 3"),
    ],
)
def test_what_cannot_be_meant_is_one_sentence(given, words):
    with pytest.raises(UsageError, match=words):
        make_spec(given)


def test_whatever_stands_for_a_number_a_path_or_a_mapping_is_taken():
    spec = make_spec(
        {
            "seeds": np.arange(2),
            "limit": np.int64(60),
            "timeout": np.int64(20),
            "replace": [("noise", Path("imagefolder:x"))],
            "skip_missing": None,
        }
    )
    assert (spec.seeds, spec.limit, spec.timeout, spec.skip_missing) == ((0, 1), 60, 20.0, False)
    assert spec.replace == {"noise": "imagefolder:x"}


class Nothing:
    """An executor that does nothing."""

    name = "nothing"

    def check(self, run):
        pass

    def records(self, run, store, settings):
        return iter(())


@pytest.mark.parametrize("executor", [None, 3, ["serial"], Nothing, object(), "slurm"])
def test_what_is_no_executor_is_one_sentence(executor):
    with pytest.raises(UsageError, match=r"the executor is .*; expected one of: serial, dask, or an object"):
        oodbench.run(executor=executor)


def test_an_executor_that_leaves_cells_out_is_no_success(tiny_suite, tmp_path):
    with pytest.raises(OodbenchError, match="the executor nothing gave 0 records of 1 cells"):
        oodbench.run(tiny_suite, "entropy", "known", executor=Nothing(), out=tmp_path)


def test_a_detector_object_is_run_only_if_its_name_stands_for_it(tiny_suite, tmp_path):
    from oodbench.detectors.logits import entropy
    from oodbench.detectors.pytorch_ood import entropy as theirs

    (record,) = oodbench.run(tiny_suite, entropy, "known", out=tmp_path)
    assert record.detector.distribution == "oodbench"
    with pytest.raises(UsageError, match="'entropy' is not the one that is registered by that name"):
        oodbench.run(tiny_suite, [theirs], "known", out=tmp_path)
    with pytest.raises(UsageError, match="'entropy' is not the one that is registered by that name"):
        oodbench.run(tiny_suite, (one for one in [theirs]), "known", out=tmp_path)


def test_dask_refuses_what_other_processes_cannot_load_also_among_inputs(tiny_suite, tmp_path):
    @oodbench.detector("max-own", needs="logits")
    def own(logits):
        return logits.amax(dim=1)

    for detector in ("max-own", own, "meta:inputs=max-*", "meta:inputs=max-own+entropy"):
        with pytest.raises(UsageError, match="the detector max-own is known to this process alone"):
            oodbench.run(tiny_suite, detector, "known", executor="dask", out=tmp_path)
