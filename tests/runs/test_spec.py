"""The specification of a run: one list of options, whoever gives them."""

import inspect
from dataclasses import MISSING, fields
from pathlib import Path

import pytest

import oodbench
from oodbench.cli.options import settings_of, spec_of
from oodbench.cli.run import command
from oodbench.errors import UsageError
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
        ({"detectors": None}, "detectors.0 is None"),
        ({"seed": 3}, "seed"),
    ],
)
def test_what_cannot_be_meant_is_one_sentence(given, words):
    with pytest.raises(UsageError, match=words):
        make_spec(given)
