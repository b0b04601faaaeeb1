"""Plots of real records, read back."""

import subprocess
import sys

import numpy as np
import pytest
from in_process import command_line
from PIL import Image

import oodbench
from oodbench.cli import run_command_line
from oodbench.leaderboard.assembly import boards
from oodbench.plots.matrix import matrix
from oodbench.plots.roc import roc
from oodbench.records.verification import read_verified

KINDS = ("roc", "scores", "layers", "matrix", "price")


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    folder = tmp_path_factory.mktemp("plots")
    oodbench.run("digits", ["entropy", "grad-all", "grad-l1", "grad-l1:layer=fc2"], seeds=[0], out=folder)
    return folder


@pytest.fixture(scope="module")
def board(out):
    scored, rejected = read_verified([out], resample=False)
    assert not rejected
    return boards(scored)[0]


def plot(*arguments):
    return command_line("plot", *arguments)


@pytest.mark.parametrize("kind", KINDS)
def test_every_plot_is_drawn_and_the_same_bytes_twice(out, tmp_path, kind):
    done = plot(kind, out, "-o", tmp_path / "a.svg")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    # In a process of its own, where sets have another order.
    line = [sys.executable, "-m", "oodbench", "plot", kind, out, "-o", tmp_path / "b.svg"]
    assert subprocess.run(line, check=False).returncode == 0
    text = (tmp_path / "a.svg").read_text()
    assert text == (tmp_path / "b.svg").read_text()
    assert kind == "price" or "rendered-letters" in text
    assert ("fc2" if kind == "layers" else "grad-all") in text


def test_pixels_and_vectors(out, tmp_path):
    assert plot("roc", out, "-o", tmp_path / "a.png", "--dataset", "noise").returncode == 0
    assert plot("roc", out, "-o", tmp_path / "a.pdf", "-d", "entropy").returncode == 0
    pixels = np.asarray(Image.open(tmp_path / "a.png").convert("L"))
    assert pixels.min() < 80, "something is drawn"
    assert (tmp_path / "a.pdf").read_bytes().startswith(b"%PDF")


def test_curves_are_those_of_the_board_and_end_in_the_corners(board):
    figure = roc(board, ["entropy"], ["patches"])
    (line,) = [line for line in figure.axes[0].lines if line.get_label() == "entropy"]
    x, y = line.get_data()
    assert (x[0], x[-1], y[-1]) == (0, 1, 1)
    assert (np.diff(y) >= 0).all()
    table = next(table for table in board.tables if table.protocol == "unknown-unknowns")
    row = next(row for row in table.rows if row.detector == "entropy")
    value = next(f.value for c, f in zip(table.columns, row.figures, strict=True) if c.name == "patches")
    assert np.trapezoid(y, x) == pytest.approx(value, abs=0.01)


def test_the_matrix_has_a_panel_for_each_detector_that_exposure_changes(board):
    figure = matrix(board, ["entropy", "grad-all"], ["digits-7-9", "rendered-letters", "patches", "noise"])
    assert [axes.get_title() for axes in figure.axes] == ["grad-all"]
    (axes,) = figure.axes
    assert len(axes.texts) == 5 * 4


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (("roc", "-o", "x.gif"), 2, "suffix '.gif'; expected one of: .pdf, .png, .svg"),
        (("roc", "-o", "x.svg", "-d", "nobody"), 2, "--detector nobody: there is none; expected some of: "),
        (("roc", "-o", "x.svg", "--dataset", "moon"), 2, "--dataset moon: there is none; expected some of: digits-7-9"),
        (("matrix", "-o", "x.svg", "-d", "entropy"), 2, "there is none"),
    ],
)
def test_mistakes_end_in_a_sentence(out, arguments, status, message):
    done = plot(arguments[0], out, *arguments[1:])
    assert done.returncode == status
    assert message in done.stderr
    assert done.stderr.count("\n") == 1


def test_without_single_layers_the_heat_map_says_how_to_get_them(tmp_path):
    oodbench.run("digits", ["grad-l1"], ["unknown-unknowns"], [0], out=tmp_path / "r")
    done = plot("layers", tmp_path / "r", "-o", tmp_path / "x.svg")
    assert done.returncode == 2
    assert "oodbench run -d 'grad-*:layer=conv1' -p unknown-unknowns" in done.stderr


def plotted(*arguments):
    """Exit status of the command in this process."""
    with pytest.raises(SystemExit) as ended:
        run_command_line(["plot", *map(str, arguments)])
    return ended.value.code


def test_runs_with_a_limit_are_left_out_and_counted(out, tmp_path, capsys):
    """Their figures would stand beside those of all samples; so with and without them, the plot is the same."""
    limited = oodbench.run("digits", ["energy"], ["unknown-unknowns"], [0], limit=30, out=tmp_path / "limited")
    assert {record.suite.limit for record in limited} == {30}
    assert plotted("roc", out, "-o", tmp_path / "whole.svg") == 0
    assert capsys.readouterr().err == ""
    assert plotted("roc", out, tmp_path / "limited", "-o", tmp_path / "both.svg") == 0
    assert capsys.readouterr().err == "1 record of a run with --limit is left out.\n"
    assert (tmp_path / "both.svg").read_text() == (tmp_path / "whole.svg").read_text()


def test_nothing_is_drawn_of_runs_with_a_limit_alone(tmp_path, capsys):
    oodbench.run("digits", ["energy"], ["unknown-unknowns"], [0], limit=30, out=tmp_path / "limited")
    assert plotted("roc", tmp_path / "limited", "-o", tmp_path / "none.svg") == 2
    told = capsys.readouterr().err
    assert "no record is left to draw: 1 are of runs with --limit, of which no figure may be made" in told
    assert not (tmp_path / "none.svg").exists()
