"""Threads that wait do so asleep, unless the user says how."""

import os
import subprocess
import sys

from oodbench.machine.waiting import with_short_waits


def test_what_the_user_says_counts():
    assert with_short_waits({"A": "1"}) == {"A": "1", "GOMP_SPINCOUNT": "1000"}
    for chosen in ({"OMP_WAIT_POLICY": "ACTIVE"}, {"GOMP_SPINCOUNT": "7"}):
        assert with_short_waits(chosen) == chosen


def test_the_command_line_sets_it_before_torch_is_loaded(tmp_path):
    (tmp_path / "mine.py").write_text(
        "import os, sys\nassert 'torch' not in sys.modules\n"
        "print('turns', os.environ['GOMP_SPINCOUNT'], file=sys.stderr)\n"
        "import oodbench\n\n@oodbench.detector('mine', needs='logits')\ndef mine(logits):\n    return logits[:, 0]\n"
    )
    environment = {key: value for key, value in os.environ.items() if key != "OMP_WAIT_POLICY"}
    words = [sys.executable, "-m", "oodbench", "list", "detectors", "--plugin", tmp_path / "mine.py"]
    done = subprocess.run(words, capture_output=True, text=True, env=environment, check=True)
    assert "turns 1000" in done.stderr
