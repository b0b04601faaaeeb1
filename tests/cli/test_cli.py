"""The command line as a user meets it: real processes, stdout, stderr and exit statuses."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time

import numpy as np
import pytest


def oodbench(*arguments, cwd=None, **environment):
    return subprocess.run(
        [sys.executable, "-m", "oodbench", *map(str, arguments)],
        capture_output=True, text=True, cwd=cwd, env=os.environ | environment, timeout=300, check=False,
    )  # fmt: skip


LISTS = [["list", kind] for kind in ("detectors", "datasets", "classifiers", "protocols", "suites")]
HELP = [
    ["--help"],
    ["--version"],
    ["run", "--help"],
    ["leaderboard", "build", "--help"],
    ["new", "--help"],
    ["check", "-h"],
]


@pytest.mark.parametrize("arguments", HELP + LISTS)
def test_help_and_lists_import_nothing_heavy(arguments):
    code = (
        "import sys\nfrom oodbench.cli import run_command_line\n"
        f"try:\n    run_command_line({arguments!r})\n"
        "except SystemExit as end:\n    assert end.code in (0, None), end.code\n"
        "heavy = {'torch', 'sklearn', 'numpy', 'pyarrow', 'pydantic', 'rich', 'PIL'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout


def test_importing_oodbench_loads_no_torch():
    code = "import sys, oodbench; assert 'torch' not in sys.modules and 'numpy' not in sys.modules; oodbench.detector"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_list_names_what_there_is_and_who_provides_it():
    rows = json.loads(oodbench("list", "detectors", "--json").stdout)
    assert {"name", "from", "target"} == set(rows[0])
    assert "grad-combo" in {row["name"] for row in rows}
    assert "oodbench 0.1.0" in oodbench("list", "plugins").stdout


def test_the_main_job_prints_a_table_for_each_protocol(tmp_path):
    done = oodbench("run", "--detector", "grad-combo", "--seed", 0, "--out", tmp_path)
    assert done.returncode == 0, done.stderr
    for protocol in ("known", "unknown-unknowns", "known-unknowns", "leave-one-out"):
        assert f"digits 1: {protocol}" in done.stdout
    assert done.stdout.count("│ grad-combo") == 1 + 1 + 5 + 1
    assert "Trained with some samples of unknown concepts" in done.stdout
    assert "11 records" in done.stderr
    assert len(list((tmp_path / "records").iterdir())) == 11


def test_json_goes_to_stdout_and_nothing_else(tmp_path):
    done = oodbench("run", "-d", "entropy", "-p", "known", "--seed", 0, "--out", tmp_path, "--json")
    (record,) = json.loads(done.stdout)["records"]
    assert record["detector"]["name"] == "entropy"
    assert record["results"][0]["metrics"]["failure_auroc"]["value"] > 0.7


@pytest.mark.parametrize(
    ("arguments", "status", "sentence"),
    [
        (["run", "-d", "grad-kombo"], 2, "no detector is named 'grad-kombo'; did you mean grad-combo"),
        (["run", "-d", "zzz-*"], 2, "no detector matches 'zzz-*'"),
        (["run", "-s", "emnst"], 2, "no suite is named 'emnst'; did you mean emnist"),
        (["run", "-p", "knwon"], 2, "no protocol is named 'knwon'; did you mean known"),
        (["run", "-s", "none.toml"], 3, "the suite file none.toml cannot be read"),
        (["run", "--set", "noise"], 2, "is not DATASET=ADAPTER:PATH"),
        (["run", "--seed", "-1"], 2, "--seed"),
        (["run", "--seed", str(2**63)], 2, "0<=x<=9223372036854775807"),
        (["run", "--limit", "0"], 2, "--limit"),
        (["run", "--out", "/dev/null/x"], 2, "the results folder /dev/null/x cannot be written to"),
        (["run", "--plugin", "none.py"], 3, "the plugin file none.py cannot be read"),
        (["rum"], 2, "No such command"),
        (["info", "entropi"], 2, "did you mean entropy"),
        (["info", "entropy", "--sheet", "x.png"], 2, "is no data set"),
        (["info", "noise", "--sheet", "/dev/null/x.png"], 2, "/dev/null/x.png cannot be written: "),
        (["leaderboard", "build", "nowhere"], 3, "there are no records in nowhere"),
        (["data", "status", "digit"], 2, "did you mean digits"),
    ],
)
def test_a_mistake_ends_in_one_sentence_and_its_status(arguments, status, sentence, tmp_path):
    done = oodbench(*arguments, cwd=tmp_path)
    assert done.returncode == status
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_missing_data_says_what_where_and_how_to_get_it(tmp_path):
    done = oodbench("run", "-s", "emnist", "--data", tmp_path / "empty", "--out", tmp_path / "o")
    assert done.returncode == 3
    for part in ("emnist-digits", "emnist-letters", "omniglot", "cifar10", str(tmp_path / "empty"),
                 f"oodbench data fetch emnist --data {tmp_path / 'empty'}"):  # fmt: skip
        assert part in done.stderr
    done = oodbench("data", "status", "emnist", "--data", tmp_path / "empty")
    assert done.returncode == 3
    assert done.stdout.count("missing: ") == 5
    assert oodbench("data", "status", "digits").returncode == 0


def test_sets_that_are_there_still_run_if_the_user_says_so(tmp_path):
    suite = tmp_path / "s.toml"
    suite.write_text(
        'name = "s"\nversion = 1\nclassifier = "cnn"\nknown = "digits"\nseeds = [0]\n[unknown]\n'
        'noise = { n = 200 }\ngone = { adapter = "npz:gone.npz" }\n[training]\nepochs = 2\n'
    )
    arguments = ["run", "-s", suite, "-d", "entropy", "--out", tmp_path / "o"]
    stopped = oodbench(*arguments)
    assert stopped.returncode == 3
    assert "gone.npz" in stopped.stderr
    assert "--skip-missing" in stopped.stderr
    done = oodbench(*arguments, "--skip-missing")
    assert done.returncode == 0, done.stderr
    assert "gone" in done.stderr, "what was left out is said"
    assert "noise" in done.stdout


def test_a_failed_cell_sets_the_exit_status_and_the_others_are_kept(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(
        "import oodbench\n@oodbench.detector('mine', needs='logits')\ndef mine(logits):\n    return logits[:, 0] / 0\n"
    )
    done = oodbench(
        "run", "--plugin", file, "-d", "mine", "-d", "entropy", "-p", "known", "--seed", 0, "--out", tmp_path
    )
    assert done.returncode == 1
    assert "NaN or infinite" in done.stdout
    assert "2 records" in done.stderr
    assert "1 failed" in done.stderr


def test_what_a_plugin_prints_stays_out_of_the_results(tmp_path):
    file = tmp_path / "loud.py"
    file.write_text(
        "import oodbench\n@oodbench.detector('loud', needs='logits')\ndef loud(logits):\n"
        "    print('hello')\n    return logits[:, 0]\n"
    )
    done = oodbench("run", "--plugin", file, "-d", "loud", "-p", "known", "--seed", 0, "--out", tmp_path, "--json")
    assert len(json.loads(done.stdout)["records"]) == 1
    assert "hello" in done.stderr


def test_interrupted_runs_keep_finished_cells(tmp_path):
    file = tmp_path / "slow.py"
    file.write_text(
        "import time, oodbench\n@oodbench.detector('slow', needs='logits')\ndef slow(logits):\n    time.sleep(60)\n"
    )
    arguments = [
        "run",
        "--plugin",
        file,
        "-d",
        "entropy",
        "-d",
        "slow",
        "-p",
        "known",
        "--seed",
        "0",
        "--out",
        tmp_path,
    ]
    process = subprocess.Popen(
        [sys.executable, "-m", "oodbench", *map(str, arguments)],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    records = tmp_path / "records"
    for _ in range(600):
        if records.exists() and list(records.glob("*.json")):
            break
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "interrupted" in stderr
    assert "Traceback" not in stderr
    assert stdout == ""
    assert len(list(records.glob("*.json"))) == 1


def test_a_second_interrupt_ends_with_the_same_status(tmp_path):
    """One that comes while the process winds up after the first, which this plugin makes last."""
    file = tmp_path / "slow.py"
    file.write_text(
        "import atexit, time, oodbench\n"
        "@atexit.register\ndef leave():\n    print('leaving', flush=True)\n    time.sleep(60)\n"
        "@oodbench.detector('slow', needs='logits')\ndef slow(logits):\n"
        "    print('ready', flush=True)\n    time.sleep(60)\n"
    )
    arguments = ["run", "--plugin", file, "-d", "slow", "-p", "known", "--seed", "0", "--out", tmp_path]
    process = subprocess.Popen(
        [sys.executable, "-m", "oodbench", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    lines = []
    for word in ("ready", "leaving"):
        while not lines or word not in lines[-1]:
            lines.append(process.stderr.readline())
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
    lines += process.communicate(timeout=30)
    assert process.returncode == 130
    assert "interrupted" in "".join(lines)
    assert "Traceback" not in "".join(lines)


def piped(arguments, redirection, folder, **environment):
    """Run by bash with stdout redirected; exit status of oodbench, stdout of the whole, stderr."""
    command = " ".join(map(shlex.quote, [sys.executable, "-m", "oodbench", *map(str, arguments)]))
    done = subprocess.run(
        ["bash", "-c", f"{command} {redirection}; exit ${{PIPESTATUS[0]}}"],
        capture_output=True, text=True, cwd=folder, env=os.environ | environment, timeout=300, check=False,
    )  # fmt: skip
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr
    return done


RUN = ["run", "-d", "entropy", "-d", "max-logit", "-p", "known", "--seed", "0", "--out", "o"]


@pytest.mark.parametrize("form", [[], ["--json"]])
def test_a_reader_that_leaves_early_is_no_failure_of_the_run(tmp_path, form):
    for reader in ("| head -1", "| true"):
        done = piped([*RUN, *form], reader, tmp_path)
        assert done.returncode == 0
        assert done.stderr == "oodbench: left out of patches: 46 duplicates.\n2 records in o (0 failed, 0 skipped).\n"


def test_a_reader_that_leaves_early_hides_no_failed_cell(tmp_path):
    (tmp_path / "mine.py").write_text(
        "import oodbench\n@oodbench.detector('mine', needs='logits')\ndef mine(logits):\n    return logits[:, 0] / 0\n"
    )
    done = piped([*RUN, "-d", "mine", "--plugin", "mine.py"], "| true", tmp_path)
    assert done.returncode == 1
    assert "1 failed" in done.stderr


@pytest.mark.parametrize("arguments", [["list", "detectors"], ["run", "--help"], ["--help"], ["info", "digits"]])
def test_a_reader_that_leaves_early_is_no_failure_of_any_command(tmp_path, arguments):
    done = piped(arguments, "| true", tmp_path)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_board_may_be_read_in_part(tmp_path):
    oodbench(*RUN, cwd=tmp_path)
    done = piped(["leaderboard", "build", "o"], "| true", tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    done = oodbench("leaderboard", "build", "o", "-o", "/dev/null/b.md", cwd=tmp_path)
    assert done.returncode == 2
    assert (
        "/dev/null/b.md cannot be written: a file stands where a folder should be; choose another --out." in done.stderr
    )


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full, a disk that is full")
def test_a_full_disk_under_stdout_is_told_and_the_records_are_kept(tmp_path):
    done = piped(RUN, "> /dev/full", tmp_path)
    assert done.returncode == 1
    assert "the results cannot be written to stdout: No space left on device; records that were made are kept." in (
        done.stderr
    )
    assert len(list((tmp_path / "o" / "records").iterdir())) == 2


def test_closed_stdout_loses_the_tables_only(tmp_path):
    done = piped(RUN, ">&-", tmp_path)
    assert done.returncode == 0
    assert done.stderr == "oodbench: left out of patches: 46 duplicates.\n2 records in o (0 failed, 0 skipped).\n"


def test_what_stdout_cannot_encode_is_replaced(tmp_path):
    done = piped([*RUN, "--seed", "1"], "", tmp_path, PYTHONIOENCODING="ascii")
    assert done.returncode == 0
    assert " ? 0." in done.stdout


def test_info_describes_every_kind():
    text = oodbench("info", "cifar10").stdout
    for part in ("licence", "Krizhevsky", "32×32×3", "50,000 train, 10,000 test"):
        assert part in text
    text = oodbench("info", "grad-l2").stdout
    assert "layer: str | None = None" in text
    assert "needs: gradients" in text
    assert "(or the known meta split: fitted_on=meta)" in oodbench("info", "knn").stdout
    assert "leaky ReLU" in oodbench("info", "cnn").stdout or "convolution" in oodbench("info", "cnn").stdout
    assert "exposed × tested" in oodbench("info", "known-unknowns").stdout
    text = oodbench("info", "confounding").stdout
    assert "taken from: the forward pass and backward passes" in text
    assert "of each sample: float64" in text
    assert 'known = { adapter = "digits"' in oodbench("info", "digits").stdout


def test_a_contact_sheet_is_drawn(tmp_path):
    from PIL import Image

    done = oodbench("info", "rendered-letters", "--sheet", tmp_path / "sheet.png")
    assert done.returncode == 0, done.stderr
    assert "suite digits" in done.stdout
    with Image.open(tmp_path / "sheet.png") as picture:
        assert picture.width > 400


def test_an_npz_of_ones_own_replaces_a_set(tmp_path):
    random = np.random.default_rng(0)
    np.savez(tmp_path / "own.npz", images=random.integers(0, 256, (50, 9, 12, 3), dtype=np.uint8))
    done = oodbench("run", "-d", "entropy", "-p", "unknown-unknowns", "--seed", 0, "--out", tmp_path,
                    "--set", f"noise=npz:{tmp_path / 'own.npz'}", "--json")  # fmt: skip
    (record,) = json.loads(done.stdout)["records"]
    noise = record["datasets"]["noise"]
    assert (noise["adapter"], noise["n"], noise["available"]) == ("npz", 25, 50)
    assert next(r for r in record["results"] if r["dataset"] == "noise")["group"] == "far"
