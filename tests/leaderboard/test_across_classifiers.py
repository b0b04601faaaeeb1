"""Several classifiers of one suite in one folder: side by side, and a board for each."""

import csv
import io
import json
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
from in_process import command_line
from scipy.stats import kendalltau
from sklearn.metrics import roc_auc_score
from small import small_suite

from oodbench.classifiers.weights import weights_name
from oodbench.comparison.families import families_of
from oodbench.errors import UsageError
from oodbench.leaderboard.across import across
from oodbench.leaderboard.assembly import boards
from oodbench.leaderboard.drawing.formats import FORMATS
from oodbench.records.scored import ScoredRecord
from oodbench.records.verification import read_verified

NETS = """
from torch import nn
def build(channels, size, classes):
    wide = channels * size * size
    return nn.Sequential(nn.Flatten(), nn.Linear(wide, 24), nn.ReLU(), nn.Linear(24, classes))
"""
CHECKPOINT = """
import sys, torch
from nets import build
torch.manual_seed(int(sys.argv[1]))
torch.save(build(1, 8, 10).state_dict(), sys.argv[2])
"""
DETECTORS = ["entropy", "max-logit", "grad-l2", "random"]


def run(folder, classifier, *further, detectors=DETECTORS, out="out"):
    chosen = [argument for name in detectors for argument in ("-d", name)]
    protocols = ["-p", "known", "-p", "unknown-unknowns"]
    done = command_line(
        "run", "-s", "small.toml", "--classifier", classifier, *further, *chosen, *protocols, "--out", out, cwd=folder
    )
    assert done.returncode == 0, done.stderr
    return done


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two classifiers with two seeds, and one detector that only the first of them has."""
    folder = tmp_path_factory.mktemp("classifiers")
    suite = small_suite(folder, train=200, test=150, unknown=60)
    near = '\nrendered-letters = { group = "near" }'
    suite.write_text(suite.read_text().replace("[0]", "[0, 1]").replace('group = "far" }', f'group = "far" }}{near}'))
    (folder / "nets.py").write_text(NETS)
    run(folder, "cnn", detectors=[*DETECTORS, "constant"])
    printed = run(folder, "nets.py:build")
    assert "nets.py:build, seed 1" in printed.stdout
    assert "cnn" not in printed.stdout, "what is printed is of the run's own records"
    return folder


@pytest.fixture(scope="module")
def cells(folder):
    scored, rejected = read_verified([folder / "out"], resample=False)
    assert not rejected
    return scored


@pytest.fixture(scope="module")
def made(cells):
    return boards(cells)


def auroc(cells, classifier, detector, dataset):
    """The mean over the seeds of what scikit-learn says."""
    values = []
    for one in cells:
        record = one.record
        key = record.classifier.name, record.detector.name, record.protocol
        if key == (classifier, detector, "known" if dataset == "digits" else "unknown-unknowns"):
            known = one.samples["digits"]
            sets = [known.wrong, known.scores]
            if dataset != "digits":
                scores = one.samples[dataset].scores
                sets = [
                    np.arange(len(known.scores) + len(scores)) >= len(known.scores),
                    np.append(known.scores, scores),
                ]
            values.append(roc_auc_score(*sets))
    assert len(values) == 2
    return np.mean(values)


def test_each_classifier_has_a_board_and_the_first_one_has_them_side_by_side(made):
    assert [board.classifier for board in made] == ["cnn", "nets.py:build"]
    assert [board.across is not None for board in made] == [True, False]
    assert [{stamp.name for stamp in board.classifiers} for board in made] == [{"cnn"}, {"nets.py:build"}]
    assert made[0].across.seeds == ((0, 1), (0, 1))


def test_figures_are_means_over_seeds_and_sets(cells, made):
    tables = {table.title: table for table in made[0].across.tables}
    assert {title: table.datasets for title, table in tables.items()} == {
        "mean AUROC over all unknown sets": ("noise", "rendered-letters"),
        "mean AUROC over near sets": ("rendered-letters",),
        "mean AUROC over far sets": ("noise",),
        "failure AUROC": ("digits",),
    }
    for table in tables.values():
        for row in table.rows:
            for classifier, figure in zip(made[0].across.classifiers, row.figures, strict=True):
                sets = [auroc(cells, classifier, row.detector, dataset) for dataset in table.datasets]
                assert figure.value == pytest.approx(np.mean(sets), abs=1e-5)
                assert figure.low < figure.value < figure.high


def test_rankings_are_compared_over_the_detectors_that_all_classifiers_have(made):
    for table in made[0].across.tables:
        assert {row.detector for row in table.rows} == set(DETECTORS)
        assert table.missing == ("constant",)
        assert len(table.agreements) == table.ranks
        for found in table.agreements:
            one, other = zip(*([figure.value for figure in row.figures] for row in table.rows), strict=True)
            assert found.value == pytest.approx(kendalltau(one, other).statistic, abs=1e-5)
            assert -1 <= found.low <= found.value <= found.high <= 1


def test_the_best_everywhere_are_tied_with_the_best_of_every_classifier(made):
    """As on the board of the second classifier, of which all detectors are compared."""
    (second,) = [table for table in made[1].tables if table.protocol == "unknown-unknowns"]
    by_name = {column.name: place for place, column in enumerate(second.columns)}
    for table, column in zip(made[0].across.tables[:3], ("mean", "near mean", "far mean"), strict=True):
        figures = {row.detector: row.figures[by_name[column]] for row in second.rows}
        assert {row.detector: row.figures[1] for row in table.rows} == figures
    for table in made[0].across.tables:
        everywhere = tuple(row.detector for row in table.rows if all(figure.tied for figure in row.figures))
        assert table.best == (everywhere if table.ranks else ())
        for figures in zip(*(row.figures for row in table.rows), strict=True):
            assert max(figures, key=lambda figure: figure.value).tied


def test_the_order_of_the_records_does_not_matter(cells, made):
    assert boards(list(reversed(cells))) == made


def test_one_classifier_alone_has_the_board_that_it_always_had(cells, made):
    (alone,) = boards([one for one in cells if one.record.classifier.name == "cnn"])
    assert alone == made[0].model_copy(update={"classifier": "", "across": None})
    assert "classifier" not in json.loads(FORMATS[".json"]([alone]))[0]
    assert "Across classifiers" not in FORMATS[".html"]([alone])
    assert FORMATS[".csv"]([alone]).splitlines()[0].endswith(",digest,generator")


def test_every_format_names_the_classifiers(made):
    drawn = {suffix: draw(made) for suffix, draw in FORMATS.items()}
    for suffix, title in ((".md", "# Across classifiers: small"), (".html", ">Across classifiers: small")):
        assert drawn[suffix].index(title) < drawn[suffix].index(
            "small, version 1, cnn</h2>" if suffix == ".html" else "# Leaderboard: "
        )
        found = made[0].across.tables[0].agreements[0]
        assert f"rank the 4 detectors with Kendall's τ-b {found.value:.2f}".replace("-0", "−0") in drawn[
            suffix
        ].replace("&#39;", "'")
        assert "Not here, since some classifier has no figure of it: constant." in drawn[suffix]
    read = json.loads(drawn[".json"])
    assert [type(made[0]).model_validate(board) for board in read] == made
    rows = list(csv.DictReader(io.StringIO(drawn[".csv"])))
    assert {row["classifier"] for row in rows} == {"cnn", "nets.py:build"}
    assert r"\label{tab:small-nets.py:build-known}" in drawn[".tex"]


def test_a_page_has_no_empty_list_and_escapes_names(made):
    hostile = made[0].across.model_copy(update={"classifiers": ("<b>one", "two|three")})
    strange = [made[0].model_copy(update={"across": hostile}), made[1]]
    page = FORMATS[".html"](strange)
    assert "&lt;b&gt;one" in page
    assert not re.search(r"<ul[^>]*>\s*</ul>", page)
    assert re.search(r"\| \\<b\\>one +\| two\\\|three +\|", FORMATS[".md"](strange))


def test_a_markdown_table_is_read_back_as_the_figures(made):
    table = made[0].across.tables[0]
    text = FORMATS[".md"](made).partition(f"## {table.title}")[2].partition("\n## ")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|"]
    assert rows[0] == ["detector", "cnn", "nets.py:build"]
    for row, drawn in zip(table.rows, rows[2:], strict=True):
        assert drawn[0] == row.detector
        for figure, cell in zip(row.figures, drawn[1:], strict=True):
            bold = "**" if figure.tied else ""
            assert cell.startswith(f"{bold}{figure.value:.4f}{bold} [{figure.low:.4f}, {figure.high:.4f}] ± ")


def test_other_samples_are_refused(cells):
    def other(one):
        datasets = dict(one.record.datasets)
        datasets["noise"] = datasets["noise"].model_copy(update={"sha256": "0" * 64})
        return ScoredRecord(one.record.model_copy(update={"datasets": datasets}), one.file, one.samples, one.known)

    changed = [
        other(one) if one.record.classifier.name != "cnn" and "noise" in one.record.datasets else one for one in cells
    ]
    with pytest.raises(UsageError, match="other samples of noise, so that no table can hold both"):
        boards(changed)


@pytest.mark.parametrize("lacking", ["cnn", "nets.py:build"])
def test_sets_that_a_classifier_was_not_tested_on_are_left_out_and_named(cells, lacking):
    def without(one):
        results = [result for result in one.record.results if result.dataset != "noise"]
        return ScoredRecord(one.record.model_copy(update={"results": results}), one.file, one.samples, one.known)

    found = across(families_of([without(one) if one.record.classifier.name == lacking else one for one in cells]))
    assert [table.datasets for table in found.tables] == [("rendered-letters",), ("digits",)]
    assert found.notes == ("Left out, since not all classifiers were tested on them: noise.",)


def test_boards_of_several_classifiers_follow_from_their_records(folder):
    files = [argument for suffix in FORMATS for argument in ("-o", f"b{suffix}")]
    assert command_line("leaderboard", "build", "out", *files, cwd=folder).returncode == 0
    done = command_line("leaderboard", "check", "out", *files, cwd=folder)
    assert (done.returncode, done.stdout.count("follows from its records")) == (0, len(FORMATS))


def test_compare_and_plot_want_one_classifier(folder):
    line = ("compare", "entropy", "random", "out")
    done = command_line(*line, cwd=folder)
    assert done.returncode == 2
    assert "the records are of several classifiers; choose one by --classifier: cnn, nets.py:build." in done.stderr
    by_classifier = [
        json.loads(command_line(*line, "--json", "--classifier", name, cwd=folder).stdout)
        for name in ("cnn", "nets.py:build")
    ]
    assert [[pair["seeds"] for pair in pairs] for pairs in by_classifier] == [[[0, 1]] * 3] * 2
    assert by_classifier[0][0]["one"] != by_classifier[1][0]["one"]
    assert command_line("plot", "roc", "out", "-o", "p.png", cwd=folder).returncode == 2
    assert command_line("plot", "roc", "out", "-o", "p.png", "--classifier", "cnn", cwd=folder).returncode == 0


def test_two_checkpoints_of_one_network_with_one_seed_are_told_apart(folder, tmp_path):
    """Also where a file was moved, and another detector was run then."""
    shutil.copy(folder / "nets.py", tmp_path)
    text = (
        (folder / "small.toml")
        .read_text()
        .replace('known = "digits"', 'known = { adapter = "digits", split = "test" }')
    )
    (tmp_path / "small.toml").write_text(text)
    for number, name in enumerate(("A", "B")):
        (tmp_path / f"run{name}" / "s0").mkdir(parents=True)
        subprocess.run(
            [sys.executable, "-c", CHECKPOINT, str(number), f"run{name}/s0/best.pt"], cwd=tmp_path, check=True
        )
    about = ("--seed", "0", "--trust-model")
    for name in ("runA", "runB"):
        run(
            tmp_path, "nets.py:build", "--weights", f"{name}/s{{seed}}/best.pt", *about, detectors=["entropy", "random"]
        )
    (tmp_path / "runA").rename(tmp_path / "moved")
    run(tmp_path, "nets.py:build", "--weights", "moved/s{seed}/best.pt", *about, detectors=["max-logit"])
    cells, rejected = read_verified([tmp_path / "out"], resample=False)
    assert not rejected
    assert {name: len(own) for name, own in families_of(cells).items()} == {
        "nets.py:build (moved/s{seed}/best.pt)": 6, "nets.py:build (runB/s{seed}/best.pt)": 4
    }  # fmt: skip
    assert len(boards(cells)) == 2


@pytest.mark.parametrize(
    ("weights", "name"),
    [
        (None, None),
        ("/data/runA/best.ckpt", "runA/best.ckpt"),
        ("/data/runA/s{seed}/best.ckpt", "runA/s{seed}/best.ckpt"),
        ("/data/runA/s{seed}/e{seed}/best.ckpt", "runA/s{seed}/e{seed}/best.ckpt"),
        ("/data/runA/s{seed}.ckpt#ema", "runA/s{seed}.ckpt#ema"),
        ("/best.ckpt", "best.ckpt"),
        ("pretrained", "pretrained"),
        ("<given>", "given"),
    ],
)
def test_weights_are_called_by_the_end_of_their_path(weights, name):
    assert weights_name(weights) == name


def test_weights_in_the_current_folder_are_called_as_from_elsewhere(tmp_path, monkeypatch):
    (tmp_path / "runA").mkdir()
    monkeypatch.chdir(tmp_path / "runA")
    assert weights_name("best.ckpt") == weights_name(f"{tmp_path}/runA/best.ckpt") == "runA/best.ckpt"
