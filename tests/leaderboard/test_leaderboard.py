"""Boards are pure functions of records and their scores."""

import csv
import io
import json
import re
import shutil
import subprocess

import pytest
from in_process import command_line

import oodbench
from oodbench.errors import UsageError
from oodbench.evaluation.results import Metric
from oodbench.leaderboard.assembly import boards
from oodbench.leaderboard.drawing import wording
from oodbench.leaderboard.drawing.formats import FORMATS
from oodbench.leaderboard.drawing.markdown import markdown
from oodbench.leaderboard.tables import tables
from oodbench.records.scored import ScoredRecord
from oodbench.records.verification import read_verified

DETECTORS = ["entropy", "grad-all", "constant", "grad-l2:layer=conv1", "grad-l2"]
SETS = ["digits-7-9", "rendered-letters", "patches", "noise"]


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    folder = tmp_path_factory.mktemp("board")
    oodbench.run("digits", DETECTORS, seeds=[0, 1], out=folder)
    return folder


@pytest.fixture(scope="module")
def cells(out):
    scored, rejected = read_verified([out])
    assert not rejected
    return scored


@pytest.fixture(scope="module")
def board(cells):
    (made,) = boards(cells, "A remark.", "oodbench leaderboard build here")
    return made


def changed(cells, chosen, **update):
    return [
        ScoredRecord(
            one.record.model_copy(update=update), one.file, {} if "status" in update else one.samples, one.known
        )
        if chosen(one.record)
        else one
        for one in cells
    ]


def table_of(cells, protocol):
    return next(table for table in tables(cells) if table.protocol == protocol)


def row_of(table, detector, exposed=()):
    (row,) = [row for row in table.rows if (row.detector, row.exposed) == (detector, exposed)]
    return {column.name: figure for column, figure in zip(table.columns, row.figures, strict=True)}


def aurocs(cells, protocol, detector, dataset):
    return [
        next(r for r in one.record.results if r.dataset == dataset).metrics["auroc"]
        for one in sorted(cells, key=lambda one: one.record.seed)
        if (one.record.protocol, one.record.detector.name) == (protocol, detector)
    ]


def test_figures_are_means_and_sample_deviations_over_seeds(cells):
    first, second = (metric.value for metric in aurocs(cells, "unknown-unknowns", "entropy", "noise"))
    figure = row_of(table_of(cells, "unknown-unknowns"), "entropy")["noise"]
    assert figure.value == pytest.approx((first + second) / 2)
    assert figure.spread == pytest.approx(abs(first - second) / 2**0.5)
    assert figure.low < figure.value < figure.high


def test_with_one_seed_the_interval_is_that_of_the_record_and_there_is_no_spread(cells):
    single = [one for one in cells if one.record.seed == 0]
    (metric,) = aurocs(single, "unknown-unknowns", "entropy", "noise")
    figure = row_of(table_of(single, "unknown-unknowns"), "entropy")["noise"]
    assert (figure.low, figure.high) == (pytest.approx(metric.ci_low), pytest.approx(metric.ci_high))
    assert all(one.spread is None for table in tables(single) for row in table.rows for one in row.figures)
    assert "±" not in markdown(boards(single)).partition("## ")[2]


def test_the_sampling_interval_of_a_mean_over_seeds_is_not_that_of_independent_samples(cells):
    """The seeds share the test samples: two of them do not halve the variance."""
    widths = [m.ci_high - m.ci_low for m in aurocs(cells, "unknown-unknowns", "entropy", "rendered-letters")]
    figure = row_of(table_of(cells, "unknown-unknowns"), "entropy")["rendered-letters"]
    assert 0.75 * sum(widths) / 2 < figure.high - figure.low < 1.01 * sum(widths) / 2


def test_the_matrix_marks_what_was_exposed_and_leaves_out_what_exposure_does_not_change(cells):
    table = table_of(cells, "known-unknowns")
    assert {row.detector for row in table.rows} == {"grad-all"}
    assert len(table.rows) == 5
    exposed = row_of(table, "grad-all", ("noise",))
    assert exposed["noise"].exposed
    assert not exposed["patches"].exposed
    assert all(row_of(table, "grad-all", tuple(SETS))[name].exposed for name in SETS)
    assert "Exposure changes no AUROC of: constant, entropy, grad-l2, grad-l2:layer=conv1" in table.notes[0]
    unexposed = [one for one in cells if one.record.protocol == "known-unknowns"]
    assert "entropy" in {row.detector for row in table_of(unexposed, "known-unknowns").rows}, "nothing to refer to"


def test_rows_are_ranked_by_the_mean_over_the_data_sets_and_group_means_are_means(cells):
    for table in tables(cells):
        (ranking,) = [i for i, column in enumerate(table.columns) if column.ranks]
        means = [row.figures[ranking].value for row in table.rows]
        assert means == sorted(means, reverse=True)
        assert [row.rank for row in table.rows] == list(range(1, len(table.rows) + 1))
        assert all(row.rank_low <= row.rank <= row.rank_high for row in table.rows)
    row = row_of(table_of(cells, "unknown-unknowns"), "entropy")
    assert row["far mean"].value == pytest.approx((row["patches"].value + row["noise"].value) / 2)
    assert row["mean"].value == pytest.approx(sum(row[name].value for name in SETS) / 4)


def test_a_guess_is_not_tied_with_the_best(cells):
    table = table_of(cells, "unknown-unknowns")
    by_name = {row.detector: row for row in table.rows}
    assert not by_name["constant"].tied
    assert by_name["constant"].rank_low > 1
    assert {row.detector for row in table.rows if row.tied} & {"entropy", "grad-l2"}


def test_detectors_with_several_parameters_are_told_apart(cells):
    assert {"grad-l2", "grad-l2:layer=conv1", "grad-all"} <= {row.detector for row in table_of(cells, "known").rows}


def test_on_boards_single_layers_stand_apart(board):
    assert all("layer=" not in row.detector for table in board.tables for row in table.rows)
    assert board.layers.layers == ("conv1", "all")
    cell = next(one for one in board.layers.cells if (one.layer, one.dataset) == ("all", "noise"))
    table = next(one for one in board.tables if one.protocol == "unknown-unknowns")
    assert cell.value == pytest.approx(row_of(table, "grad-l2")["noise"].value, abs=1e-5)


def test_nothing_is_averaged_over_missing_cells(cells):
    """A detector that lacks a seed stands below the complete ones, without rank and without a figure."""
    lacking = [
        one for one in cells
        if (one.record.protocol, one.record.detector.name, one.record.seed) != ("unknown-unknowns", "grad-all", 1)
    ]  # fmt: skip
    row = table_of(lacking, "unknown-unknowns").rows[-1]
    assert (row.detector, row.rank, row.tied) == ("grad-all", None, False)
    assert {figure.value for figure in row.figures} == {None}
    text = markdown(boards(lacking))
    assert text.index("*unranked: a figure is missing*") < text.index("| —", text.index("*unranked"))


def test_a_missing_value_takes_its_means_along(cells):
    def without_noise(record):
        return [
            result.model_copy(update={"metrics": result.metrics | {"auroc": Metric(value=None)}})
            if result.dataset == "noise"
            else result
            for result in record.results
        ]

    lacking = [
        ScoredRecord(
            one.record.model_copy(update={"results": without_noise(one.record)}), one.file, one.samples, one.known
        )
        if (one.record.protocol, one.record.detector.name) == ("unknown-unknowns", "entropy")
        else one
        for one in cells
    ]
    row = row_of(table_of(lacking, "unknown-unknowns"), "entropy")
    assert row["noise"].value is row["far mean"].value is row["mean"].value is None
    assert row["near mean"].value is not None


def test_failed_and_skipped_cells_are_named(cells):
    failed = changed(
        cells, lambda r: r.detector.name == "constant",
        status="failed", error="it raised | [x](y)", results=[], scores=None,
    )  # fmt: skip
    assert "constant, seeds 0, 1: failed: it raised \\| \\[x\\](y)" in markdown(boards(failed))
    assert table_of(failed, "known").rows[-1].rank is None


def test_a_table_of_failures_only_has_no_columns_of_figures(cells):
    failed = changed(cells, lambda r: True, status="failed", error="no", results=[], scores=None)
    table = table_of(failed, "known")
    assert table.columns == ()
    assert table.caption == "No cell has a result"
    assert len(table.notes) == len({one.record.detector.model_dump_json(exclude={"learnt"}) for one in cells})
    assert all(", seeds 0, 1: failed: no" in note for note in table.notes)
    for draw in FORMATS.values():
        assert "failed" in draw(boards(failed)) or draw.__name__ in ("csv", "latex")


@pytest.mark.parametrize("draw", FORMATS.values(), ids=[suffix[1:] for suffix in FORMATS])
def test_the_same_records_give_the_same_bytes_in_any_order(cells, draw):
    assert draw(boards(cells)) == draw(boards(list(reversed(cells))))


def test_a_board_is_stamped(board, cells):
    text = markdown([board])
    record = cells[0].record
    assert "A remark." in text
    assert f"`{record.datasets['digits-0-6 (train)'].sha256[:16]}`" in text
    assert f"{record.classifier.accuracy:.4f}" in text
    assert f"{len(cells)} records, seeds 0, 1." in text
    assert "entropy (oodbench 0.1.0)" in text
    assert f"`{board.digest[:16]}`" in text
    assert "subset" not in text, "the embedded suite uses what there is"
    assert text.endswith("oodbench leaderboard build here\n```\n")


def test_the_digest_changes_with_any_word_of_a_record(board, cells):
    other = changed(cells, lambda r: r.cell_id == cells[0].record.cell_id, threshold=0.123)
    assert boards(other)[0].digest != board.digest


def test_a_subset_of_the_official_data_is_called_one(cells):
    def fewer(record):
        parts = {
            name: part.model_copy(update={"available": 10, "official": 20, "adapter": "mnist", "split": "test"})
            for name, part in record.datasets.items()
        }
        return record.model_copy(update={"datasets": parts})

    text = markdown(boards([ScoredRecord(fewer(one.record), one.file, one.samples, one.known) for one in cells]))
    assert "**Made on a subset of the data.** Found of the official samples: mnist (test): 10 of 20." in text


def test_sets_of_lists_are_called_by_their_names_and_absent_ones_are_named(cells, board):
    def fewer(record):
        parts = {
            name: part.model_copy(update={"available": 1000 + i, "official": 20_000, "adapter": "imagelist"})
            for i, (name, part) in enumerate(record.datasets.items())
            if name in ("noise", "patches")
        }
        absent = record.suite.model_copy(update={"missing": ["svhn", "noise"]})
        return record.model_copy(update={"datasets": record.datasets | parts, "suite": absent})

    made = boards([ScoredRecord(fewer(one.record), one.file, one.samples, one.known) for one in cells])
    assert re.fullmatch(
        r"Absent sets of the suite: svhn\. Found of the official samples: noise \(all\): 1,00\d of 20,000; "
        r"patches \(all\): 1,00\d of 20,000\.",
        made[0].subset,
    ), "noise was tested on by another run"
    assert made[0].digest != board.digest


def test_markdown_is_read_back_as_the_figures(board):
    """As GitHub reads it: the cells of a table's lines."""
    text = markdown([board])
    table = next(one for one in board.tables if one.protocol == "unknown-unknowns")
    lines = text.partition(table.title)[2].split("\n## ")[0].splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    assert rows[0] == ["rank", "detector", *map(wording.column, table.columns), "ms / image", "× forward"]
    assert "noise (far)" in rows[0]
    for row, drawn in zip(table.rows, rows[2:], strict=True):
        assert drawn[1] == row.detector
        for figure, cell in zip(row.figures, drawn[2:-2], strict=True):
            bold = "**" if figure.tied else ""
            assert cell.startswith(f"{bold}{figure.value:.4f}{bold} [{figure.low:.4f}, {figure.high:.4f}] ± ")


def test_csv_has_every_figure(board):
    rows = list(csv.DictReader(io.StringIO(FORMATS[".csv"]([board]))))
    assert len(rows) == sum(len(table.rows) * len(table.columns) for table in board.tables)
    first = next(r for r in rows if (r["protocol"], r["detector"], r["column"]) == ("known", "entropy", "AURC"))
    assert 0 < float(first["ci_low"]) < float(first["value"]) < float(first["ci_high"]) < 1
    assert first["digest"] == board.digest


def test_json_holds_the_whole_board(board):
    (read,) = json.loads(FORMATS[".json"]([board]))
    assert type(board).model_validate(read) == board


def test_latex_is_compiled_where_there_is_a_compiler_and_escaped_in_any_case(board, tmp_path):
    hostile = board.model_copy(update={"tables": tuple(
        table.model_copy(update={"rows": tuple(
            row.model_copy(update={"detector": r"a_b&c%d$e#f{g}h~i^j\k"}) for row in table.rows
        )}) for table in board.tables
    )})  # fmt: skip
    text = FORMATS[".tex"]([hostile])
    assert r"a\_b\&c\%d\$e\#f\{g\}h\textasciitilde{}i\textasciicircum{}j\textbackslash{}k" in text
    assert text.count(r"\toprule") == text.count(r"\bottomrule") == len(board.tables)
    assert all(line.count("&") == text_columns(text, line) for line in text.splitlines() if line.endswith(r"\\"))
    if (
        shutil.which("pdflatex")
        and subprocess.run(["kpsewhich", "booktabs.sty"], capture_output=True, check=False).stdout
    ):
        document = rf"\documentclass{{article}}\usepackage{{booktabs,graphicx}}\begin{{document}}{text}\end{{document}}"
        (tmp_path / "b.tex").write_text(document)
        line = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "-draftmode", "b.tex"]
        done = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout[-2000:]


def text_columns(text, line):
    """How many separators the table of a line has, by its column specification; an escaped one is none."""
    specification = text[: text.index(line)].rpartition(r"\begin{tabular}{")[2].partition("}")[0]
    return len(specification) - 1 + line.count(r"\&")


def command(*arguments, cwd=None):
    return command_line("leaderboard", *arguments, cwd=cwd or ".")


def test_limited_runs_never_reach_a_board(tmp_path):
    oodbench.run("digits", ["entropy"], ["known"], [0], limit=30, out=tmp_path)
    done = command("build", tmp_path)
    assert done.returncode == 2
    assert "runs with --limit" in done.stderr


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A published board of few cells: its folder and its files."""
    folder = tmp_path_factory.mktemp("small")
    oodbench.run("digits", ["entropy", "random"], ["known", "unknown-unknowns"], [0], out=folder / "mine")
    (folder / "mine" / "note.txt").write_text("A note.\n")
    files = [argument for suffix in FORMATS for argument in ("-o", f"mine{suffix}")]
    done = command("build", "mine", *files, cwd=folder)
    assert (done.returncode, done.stdout) == (0, "")
    return folder


@pytest.fixture
def published(small, tmp_path):
    return shutil.copytree(small, tmp_path / "published")


def test_a_board_says_how_it_is_made_and_that_makes_the_same_bytes(published):
    text = (published / "mine.md").read_text()
    assert "A note." in text
    (line,) = [line for line in text.splitlines() if line.startswith("oodbench leaderboard build")]
    assert line == "oodbench leaderboard build mine -o mine.md"
    (published / "mine.md").unlink()
    assert command(*line.split()[2:], cwd=published).returncode == 0
    assert (published / "mine.md").read_text() == text
    assert command("build", "mine", cwd=published).stdout == text.replace(" -o mine.md", "")


def test_check_finds_all_boards_beside_the_records(published):
    done = command("check", "mine", cwd=published)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [f"mine{suffix}: follows from its records." for suffix in FORMATS]
    (published / "leaderboards").mkdir()
    assert command("check", cwd=published).returncode == 3, "no folder of records in leaderboards/"


@pytest.mark.parametrize("suffix", FORMATS)
def test_check_names_a_board_that_was_changed(published, suffix):
    file = published / f"mine{suffix}"
    file.write_text(file.read_text().replace("entropy", "entropi", 1))
    done = command("check", "mine", cwd=published)
    assert done.returncode == 1
    assert f"mine{suffix}: differs from its records: line " in done.stdout
    assert done.stdout.count("follows from its records") == len(FORMATS) - 1


def test_check_names_a_record_that_was_changed(published):
    file = sorted((published / "mine" / "records").glob("*.json"))[0]
    record = json.loads(file.read_text())
    name, metric = next(iter(record["results"][0]["metrics"].items()))
    metric["value"] = metric["value"] - 0.01
    file.write_text(json.dumps(record))
    done = command("check", "mine", cwd=published)
    assert done.returncode == 1
    assert f"left out: {file.relative_to(published)}: " in done.stderr
    assert f"{name}.value is" in done.stderr


def test_quick_check_takes_resampled_intervals_as_stated_and_nothing_else(published):
    """A figure and DeLong's interval are computed again; the bootstrap's is the word of the record."""

    records = sorted((published / "mine" / "records").iterdir())
    file = next(file for file in records if '"entropy"' in file.read_text())
    before = file.read_text()

    def finds(key, name, *options):
        record = json.loads(before)
        record["results"][0]["metrics"][name][key] += 0.001
        file.write_text(json.dumps(record))
        return file.name in command("check", *options, "mine", cwd=published).stderr

    assert not finds("ci_low", "failure_aupr_unknown", "--quick")
    assert finds("ci_low", "failure_aupr_unknown")
    assert finds("ci_low", "failure_auroc", "--quick")
    assert finds("value", "failure_aupr_unknown", "--quick")


def test_check_notices_a_record_that_is_gone(published):
    sorted((published / "mine" / "records").glob("*.json"))[0].unlink()
    assert command("check", "mine", cwd=published).returncode == 1


def test_records_of_others_merge_and_faulty_ones_are_named_and_left_out(published, tmp_path):
    oodbench.run("digits", ["energy", "entropy"], ["known", "unknown-unknowns"], [0], out=tmp_path / "theirs")
    shutil.copytree(tmp_path / "theirs", published / "theirs")
    done = command("build", "mine", "theirs", "--format", "json", cwd=published)
    assert done.returncode == 0, "equal cells of both are the same"
    (read,) = json.loads(done.stdout)
    assert {row["detector"] for row in read["tables"][0]["rows"]} == {"entropy", "random", "energy"}
    file = next(
        file for file in (published / "theirs" / "records").glob("*.json")
        if json.loads(file.read_text())["detector"]["name"] == "energy"
    )  # fmt: skip
    file.write_text("{}")
    done = command("build", "mine", "theirs", "--format", "json", cwd=published)
    assert done.returncode == 1
    assert f"left out: {file.relative_to(published)}: it is no valid record" in done.stderr
    assert json.loads(done.stdout)[0]["records"] == 5


def test_records_of_people_who_have_the_data_elsewhere_merge(cells):
    """The same content from another folder is the same data."""
    here = cells[0].record.datasets["noise" if "noise" in cells[0].record.datasets else "digits-0-6"]
    moved = [
        ScoredRecord(
            one.record.model_copy(update={"datasets": {
                name: part.model_copy(update={"source": "their files"}) for name, part in one.record.datasets.items()
            }}),
            one.file, one.samples, one.known,
        )
        if one.record.detector.name == "entropy" else one
        for one in cells
    ]  # fmt: skip
    assert here.source != "their files"
    assert len(boards(moved)[0].datasets) == len(boards(cells)[0].datasets)


def test_a_detector_is_left_out_only_where_another_table_has_it(cells):
    lacking = [
        one for one in cells
        if (one.record.protocol, one.record.detector.name, one.record.seed) != ("unknown-unknowns", "entropy", 0)
    ]  # fmt: skip
    table = table_of(lacking, "known-unknowns")
    assert "entropy" in {row.detector for row in table.rows}
    assert "constant" not in {row.detector for row in table.rows}


def test_a_protocol_may_test_one_set_after_the_other(tmp_path):
    from oodbench.protocols.case import Case
    from oodbench.registry import declare

    def each(unknown):
        return [Case([], []), *(Case([], [name]) for name in unknown)]

    declare("protocols", "each", each, "here", "each")
    records = oodbench.run("digits", ["entropy"], ["each"], [0], out=tmp_path)
    scored, rejected = read_verified([tmp_path])
    assert (len(records), rejected) == (5, [])
    (table,) = tables(scored)
    assert {column.name for column in table.columns[:4]} == set(SETS)
    assert table.rows[0].rank == 1


def test_no_name_is_markup_in_markdown_or_a_formula_in_a_spreadsheet(board):
    hostile = "=1+1|<script>[x](y)\n`"
    changed = board.model_copy(update={"suite": hostile, "tables": tuple(
        table.model_copy(update={
            "title": hostile,
            "columns": tuple(column.model_copy(update={"name": hostile}) for column in table.columns),
            "rows": tuple(row.model_copy(update={"detector": hostile}) for row in table.rows),
        }) for table in board.tables
    )})  # fmt: skip
    text = markdown([changed])
    assert "=1+1\\|\\<script\\>\\[x\\](y) \\`" in text
    assert "<script>" not in text
    rows = list(csv.DictReader(io.StringIO(FORMATS[".csv"]([changed]))))
    assert {row["detector"] for row in rows} == {f"'{hostile}"}


@pytest.mark.parametrize("note", ["two\nlines and 'quotes'", "two  spaces", "a\\b $x `y`"])
def test_the_command_on_a_board_makes_it_again_whatever_the_note(published, note):
    import shlex

    (published / "mine").rename(published / "-my own")
    for suffix in (".md", ".tex"):
        assert command("build", "./-my own", "--note", note, "-o", f"b{suffix}", cwd=published).returncode == 0
        text = (published / f"b{suffix}").read_text()
        line = text[text.index("oodbench leaderboard build") :].replace("\n% ", "\n").replace("\n```", "").strip()
        (published / f"b{suffix}").unlink()
        assert command(*shlex.split(line)[2:], cwd=published).returncode == 0
        assert (published / f"b{suffix}").read_text() == text


def test_check_compares_bytes(published):
    file = published / "mine.md"
    file.write_bytes(file.read_bytes().replace(b"\n", b"\r\n"))
    assert command("check", "mine", cwd=published).returncode == 1
    file.write_bytes(b"\xff\xfe")
    assert "mine.md: differs from its records" in command("check", "mine", cwd=published).stdout
    (published / "mine" / "note.txt").write_bytes(b"\xff")
    done = command("build", "mine", cwd=published)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)


def test_of_one_cell_a_result_goes_before_a_failure(published):
    shutil.copytree(published / "mine", published / "first")
    for file in (published / "first" / "records").glob("*.json"):
        record = json.loads(file.read_text())
        record |= {"status": "failed", "error": "out of memory", "results": [], "scores": None}
        file.write_text(json.dumps(record))
    both = [command("build", *order, "--format", "csv", cwd=published) for order in
            (["first", "mine"], ["mine", "first"])]  # fmt: skip
    assert both[0].returncode == both[1].returncode == 0
    assert both[0].stdout == both[1].stdout
    assert "entropy" in both[0].stdout


def test_records_of_other_samples_are_named_and_left_out(published):
    """The same suite on other data of one's own: no table may hold both."""
    oodbench.run("digits", ["energy"], ["known"], [0], out=published / "theirs")
    from oodbench.records.record import Record, identity

    (file,) = (published / "theirs" / "records").glob("*.json")
    record = Record.model_validate_json(file.read_text())
    parts = record.datasets | {
        "digits-0-6 (meta)": record.datasets["digits-0-6 (meta)"].model_copy(update={"sha256": "0" * 64})
    }
    other = record.model_copy(update={"datasets": parts})
    other = other.model_copy(update={"cell_id": identity(other)})
    file.unlink()
    file = file.with_name(f"{other.cell_id}.json")
    file.write_text(other.model_dump_json())
    done = command("build", "mine", "theirs", cwd=published)
    assert done.returncode == 1
    assert f"{file.name}: it is of other samples of digits-0-6 (meta) than mine" in done.stderr
    assert "energy" not in done.stdout


def test_the_suffix_says_the_format(tmp_path):
    done = command("build", tmp_path, "-o", tmp_path / "b.docx")
    assert done.returncode == 2
    assert "suffix '.docx'; expected one of: .md, .html, .csv, .tex, .json" in done.stderr


def test_tables_come_in_the_order_of_the_protocols_and_columns_in_that_of_the_suite(cells):
    for order in (cells, list(reversed(cells))):
        found = tables(order)
        assert [t.protocol for t in found] == ["known", "unknown-unknowns", "known-unknowns", "leave-one-out"]
        for table in found[1:]:
            assert [column.name for column in table.columns][:4] == SETS


def test_two_records_of_one_cell_under_other_conditions_are_refused(cells):
    twin = ScoredRecord(
        cells[0].record.model_copy(update={"cell_id": "0" * 16}), cells[0].file, cells[0].samples, cells[0].known
    )
    with pytest.raises(UsageError, match=f"{cells[0].record.cell_id} and 0{{16}} are both of|0{{16}} and .* both of"):
        boards([*cells, twin])


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"precision": "amp"}, r"with other precision \(fp32 and amp\); keep"),
        ({"device": "cuda"}, r"with other device \(cpu and cuda\); keep"),
        ({"weights_sha256": "0" * 64, "device": "cuda"}, r"with other device \(cpu and cuda\) and weights; keep"),
    ],
)
def test_what_two_records_of_one_cell_differ_in_is_told(cells, changed, said):
    record = cells[0].record
    other = record.model_copy(update={"cell_id": "f" * 16, "classifier": record.classifier.model_copy(update=changed)})
    with pytest.raises(UsageError, match=said):
        boards([*cells, ScoredRecord(other, cells[0].file, cells[0].samples, cells[0].known)])
