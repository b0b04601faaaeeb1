"""Published records in one compact file: read as the folder they were packed from, and checked without their scores."""

import json
import shutil

import pytest
from in_process import command_line

import oodbench
from oodbench.records.files import packed, record_files


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    out = tmp_path_factory.mktemp("run") / "out"
    oodbench.run("digits", ["entropy", "energy", "mcm"], ["known", "unknown-unknowns"], [0], limit=None, out=out)
    return out


@pytest.fixture
def folder(run, tmp_path):
    """A published folder with its board, whose scores lie elsewhere."""
    done = command_line("leaderboard", "pack", run, "-o", tmp_path / "digits")
    assert done.returncode == 0, done.stderr
    done = command_line(
        "leaderboard", "build", "digits", "--scores", run / "scores", "--note", "n", "-o", "digits.md", cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    return tmp_path


def check(folder, *options):
    return command_line("leaderboard", "check", "digits", "--note", "n", *options, cwd=folder)


def test_the_records_come_back_as_they_were(run, folder):
    before = oodbench.read_results(run)
    after = oodbench.read_results(folder / "digits")
    assert {one.cell_id: one for one in before.records} == {one.cell_id: one for one in after.records}
    assert len({one.status for one in after.records}) == 2
    assert not after.rejected
    assert sorted(file.name for file in (folder / "digits").iterdir()) == ["records.jsonl"]
    loose = sum(file.stat().st_size for file in (run / "records").glob("*.json"))
    assert (folder / "digits" / "records.jsonl").stat().st_size < 0.8 * loose


def test_the_board_is_that_of_the_folder_but_for_its_command(run, folder):
    done = command_line("leaderboard", "build", run, "--note", "n", "-o", "whole.md", cwd=folder)
    assert done.returncode == 0
    ours, theirs = ((folder / name).read_text().splitlines() for name in ("digits.md", "whole.md"))
    different = [line for line, other in zip(ours, theirs, strict=True) if line != other]
    assert different == ["oodbench leaderboard build digits --scores DIR --note n -o digits.md"]


def test_it_is_checked_with_its_scores_and_without(run, folder):
    assert "follows from its records" in check(folder, "--scores", run / "scores").stdout
    assert "follows from its records" in check(folder, "--scores", run).stdout, "the results folder is found, too"
    without = check(folder)
    assert without.returncode == 0
    assert "is of these 6 records, but the scores of 4 are not here" in without.stdout
    assert "not computed again; name their folder by --scores" in without.stdout


def test_a_changed_board_is_caught_with_the_scores(run, folder):
    board = folder / "digits.md"
    board.write_text(board.read_text().replace("0.8", "0.9"))
    with_scores = check(folder, "--scores", run / "scores")
    assert with_scores.returncode == 1
    assert "differs from its records: line" in with_scores.stdout


def test_a_board_of_other_records_is_caught_without_scores(folder):
    file = folder / "digits" / "records.jsonl"
    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join(lines[1:]))
    found = check(folder)
    assert (found.returncode, "is of other records than these" in found.stdout) == (1, True)


def test_a_changed_figure_of_a_record_is_caught_with_scores_and_without(run, folder):
    file = folder / "digits" / "records.jsonl"
    records = [json.loads(line) for line in file.read_text().splitlines()]
    finished = next(record for record in records if record.get("scores"))
    metric = next(iter(finished["results"][0]["metrics"].values()))
    metric["value"] -= 0.01
    file.write_text("".join(f"{json.dumps(record)}\n" for record in records))
    assert "is of other records than these" in check(folder).stdout
    found = check(folder, "--scores", run / "scores")
    assert found.returncode == 1
    assert "its scores give" in found.stderr


def test_other_scores_are_refused(run, folder, tmp_path):
    shutil.copytree(run / "scores", tmp_path / "others")
    first, second = sorted((tmp_path / "others").iterdir())
    shutil.copy(first, second)
    found = check(folder, "--scores", tmp_path / "others")
    assert found.returncode == 1
    assert "one of them was changed" in found.stderr


def test_what_needs_scores_says_that_they_are_not_there(folder):
    done = command_line("leaderboard", "build", "digits", cwd=folder)
    assert done.returncode == 2
    assert "the scores of all 4 records with results are not there; name their folder by --scores" in done.stderr
    assert "left out: 4 records whose scores are not there" in done.stderr
    results = oodbench.read_results(folder / "digits")
    finished = next(one for one in results.records if one.scores)
    with pytest.raises(oodbench.OodbenchError, match="are not there"):
        results.scores(finished)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"{}\n", "line 7: it is no valid record"),
        (b"\xff\xfe\n", "line 7: it is no valid record"),
        (b'{"cell_id":"0123456789abcdef"}\n', "0123456789abcdef: it is no valid record"),
    ],
)
def test_a_damaged_line_is_named_and_the_others_read(folder, line, reason):
    with (folder / "digits" / "records.jsonl").open("ab") as file:
        file.write(line)
    results = oodbench.read_results(folder / "digits")
    assert len(results.records) == 6
    assert [reason in str(rejected) for rejected in results.rejected] == [True]


def test_a_cell_that_is_there_twice_is_read_once(run, folder):
    file = folder / "digits" / "records.jsonl"
    file.write_text(file.read_text() * 2)
    assert len(oodbench.read_results(folder / "digits").records) == 6
    assert "follows from its records" in check(folder, "--scores", run / "scores").stdout


def test_packing_again_gives_the_same_file(run, folder):
    text = (folder / "digits" / "records.jsonl").read_text()
    assert packed([one.read() for one in record_files(folder / "digits")]) == text
    both = command_line("leaderboard", "build", run, folder / "digits", "--note", "n", "-o", "both.md", cwd=folder)
    assert both.returncode == 1, "the packed ones lack their scores"
    assert "6 records" in both.stderr


def test_records_that_do_not_follow_from_their_scores_are_not_packed(run, tmp_path):
    shutil.copytree(run, tmp_path / "run")
    file = next(f for f in (tmp_path / "run" / "records").iterdir() if '"status": "ok"' in f.read_text())
    file.write_text(file.read_text().replace('"seed": 0', '"seed": 1', 1))
    done = command_line("leaderboard", "pack", tmp_path / "run", "-o", tmp_path / "packed")
    assert done.returncode == 1
    assert "left out" in done.stderr
    assert len(oodbench.read_results(tmp_path / "packed").records) == 5


def test_packing_never_loses_what_was_packed(run, folder, tmp_path):
    oodbench.run("digits", ["max-logit"], ["known"], [0], out=tmp_path / "second")
    file = folder / "digits" / "records.jsonl"
    before = file.read_text()
    done = command_line("leaderboard", "pack", tmp_path / "second", "-o", folder / "digits")
    assert done.returncode == 2
    assert "has 6 records, and 6 of them are not among those that are packed; name its folder, too" in done.stderr
    assert file.read_text() == before
    done = command_line("leaderboard", "pack", folder / "digits", tmp_path / "second", "-o", folder / "digits")
    assert done.returncode == 2, "their scores lie elsewhere"
    assert file.read_text() == before
    both = [folder / "digits", tmp_path / "second"]
    done = command_line("leaderboard", "pack", *both, "-o", folder / "digits", "--scores", run / "scores")
    assert done.returncode == 0, done.stderr
    assert len(oodbench.read_results(folder / "digits").records) == 7


def test_compare_and_plot_find_scores_elsewhere(run, folder):
    arguments = ["entropy", "energy", "digits", "--scores", run / "scores"]
    done = command_line("compare", *arguments, cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "digits-7-9" in done.stdout


def test_loose_and_packed_records_of_the_same_cells_count_once(run, folder):
    shutil.copytree(run / "records", folder / "digits" / "records")
    found = check(folder)
    assert (found.returncode, "is of these 6 records, but the scores of 4 are not here" in found.stdout) == (0, True)


def test_a_packed_line_with_other_figures_is_rejected(folder):
    file = folder / "digits" / "records.jsonl"
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    other = json.loads(json.dumps(next(line for line in lines if line.get("scores"))))
    next(iter(other["results"][0]["metrics"].values()))["value"] = 0.123
    file.write_text("".join(f"{json.dumps(line)}\n" for line in [*lines, other]))
    results = oodbench.read_results(folder / "digits")
    assert len(results.records) == 6
    assert ["with other figures" in str(rejected) for rejected in results.rejected] == [True]


def test_a_folder_in_place_of_the_file_is_one_sentence(folder, tmp_path):
    (folder / "digits" / "records.jsonl").unlink()
    (folder / "digits" / "records.jsonl").mkdir()
    with pytest.raises(oodbench.OodbenchError, match=r"records\.jsonl"):
        oodbench.read_results(folder / "digits")
    (tmp_path / "file").write_text("")
    done = command_line("leaderboard", "pack", folder / "digits", "-o", tmp_path / "file" / "x")
    assert done.returncode in (2, 3)
    assert "Traceback" not in done.stderr
