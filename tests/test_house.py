"""The house: what stands at its top level, that every room says what it is for, and that no function takes too much."""

import ast
import importlib
import pkgutil
from pathlib import Path

import pytest

import oodbench

ROOT = Path(oodbench.__file__).parent
ROOMS = sorted(folder.name for folder in ROOT.iterdir() if (folder / "__init__.py").exists())


def test_four_files_stand_at_the_top_level():
    assert {file.name for file in ROOT.glob("*.py")} == {"__init__.py", "__main__.py", "errors.py", "testing.py"}


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_says_what_it_is_for_and_what_it_must_not_know(room):
    doc = importlib.import_module(f"oodbench.{room}").__doc__
    assert doc
    if room != "cli":  # it is on top, and may know everything
        assert "must not" in doc or "No run uses it" in doc


def test_only_run_takes_more_than_ten_parameters():
    assert {name for name, n in _parameters() if n > 10} == {"oodbench.execution.run.run"}


@pytest.mark.parametrize("name", sorted(oodbench.__all__))
def test_public_names_are_there_and_have_docstrings(name):
    assert getattr(oodbench, name).__doc__


def _parameters():
    for module in pkgutil.walk_packages([str(ROOT)], "oodbench."):
        file = Path(module.module_finder.path) / module.name.rpartition(".")[2]
        source = file / "__init__.py" if module.ispkg else file.with_suffix(".py")
        for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef):
                given = node.args
                named = [*given.posonlyargs, *given.args, *given.kwonlyargs, given.vararg, given.kwarg]
                yield f"{module.name}.{node.name}", sum(one is not None for one in named)
