"""What executors gain and cost on this machine; `python tests/benchmarks/executors.py [speed-up|overhead]`.

Speed-up: the suite ``digits`` with eight seeds and a cold cache, by one Dask worker and by two, in turn.
Overhead: seconds for each cell of detectors that do nothing, from 10 cells to 10,000, in one process and by Dask.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

DETECTORS = ("grad-*", "entropy", "entropy-meta", "knn", "vim")
SEEDS = range(8)
CELLS = (10, 100, 1000, 10_000)

IDLE = """
import oodbench


def idle(name):
    @oodbench.detector(name, needs="logits")
    class Idle:
        def fit(self, evidence, labels):
            pass

        def score(self, evidence):
            raise oodbench.CellSkippedError("there is nothing to do")


for i in range({n}):
    idle(f"idle-{{i:05}}")
"""
TIMED = """
import sys, time
import oodbench

if __name__ == "__main__":
    plugin, out, *executor = sys.argv[1:]
    start = time.perf_counter()
    records = oodbench.run("digits", "idle-*", "known", [0], plugins=[plugin], out=out, limit=40, **eval(executor[0]))
    print(len(records), time.perf_counter() - start)
"""


def main(what: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        if what in ("speed-up", "both"):
            speed_up(Path(folder))
        if what in ("overhead", "both"):
            overhead(Path(folder))


def speed_up(folder: Path, rounds: int = 1) -> None:
    for turn in range(rounds):
        seconds = {workers: _run_digits(folder / f"{turn}-{workers}", workers) for workers in (1, 2)}
        told = ", ".join(f"{workers} workers: {found:.1f} s" for workers, found in seconds.items())
        print(f"digits, {len(SEEDS)} seeds: {told}; ratio {seconds[1] / seconds[2]:.2f}", flush=True)


def overhead(folder: Path) -> None:
    first = folder / "first.py"
    first.write_text(IDLE.format(n=1))
    _run_idle(folder, first, folder / "first", "{}")  # trains the classifier
    for label, executor in (("serial", "{}"), ("dask, 2 workers", "{'executor': 'dask', 'workers': 2}")):
        before = None
        for n in CELLS:
            file = folder / f"idle{n}.py"
            file.write_text(IDLE.format(n=n))
            seconds = _run_idle(folder, file, folder / f"{label[:4]}-{n}", executor)
            more = (
                "" if before is None else f"; {1e3 * (seconds - before[1]) / (n - before[0]):.2f} ms for each cell more"
            )
            print(f"{label}: {n} cells in {seconds:.2f} s{more}", flush=True)
            before = n, seconds


def _run_digits(out: Path, workers: int) -> float:
    command = [sys.executable, "-m", "oodbench", "run", "--executor", "dask", "--workers", str(workers), "--out", out]
    command += [word for name in DETECTORS for word in ("-d", name)]
    command += [word for seed in SEEDS for word in ("--seed", str(seed))]
    start = time.perf_counter()
    subprocess.run(command, env=_environment(out), stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - start


def _run_idle(folder: Path, plugin: Path, out: Path, executor: str) -> float:
    script = folder / "timed.py"
    script.write_text(TIMED)
    done = subprocess.run(
        [sys.executable, script, plugin, out, executor],
        env=_environment(folder / "idle"),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return float(done.stdout.split()[-1])


def _environment(folder: Path) -> dict[str, str]:
    return os.environ | {"OODBENCH_CACHE": f"{folder}-cache"}


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "both")
