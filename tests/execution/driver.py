"""Imports and reads data once, and then runs in children that it forks, so that fifty runs are not fifty imports."""

import json
import os
import signal
import sys
import time
from pathlib import Path

import sklearn.feature_selection
import sklearn.linear_model
import sklearn.model_selection
import sklearn.pipeline  # noqa: F401 - once, before it forks

from oodbench.execution.serial import run_serially
from oodbench.machine.progress import silent
from oodbench.records.store import Store
from oodbench.runs.prepared import prepare_run
from oodbench.runs.resolved import resolve_run
from oodbench.runs.spec import make_spec

out, plugin, detectors = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
spec = make_spec({"detectors": detectors, "seeds": [0, 1], "plugins": [plugin], "limit": 50})
run = prepare_run(resolve_run(spec), data=None, download=False, track=silent)


def start():
    process = os.fork()
    if process == 0:
        status = 1
        try:
            list(run_serially(run, Store.open(Path(out)), {seed: run.jobs(seed) for seed in run.seeds}))
            status = 0
        finally:
            os._exit(status)
    return process


print("ready", flush=True)
for line in sys.stdin:
    order, _, argument = line.strip().partition(" ")
    if order == "kill":
        process, end, answer = start(), time.monotonic() + float(argument), "killed"
        while time.monotonic() < end:
            ended, status = os.waitpid(process, os.WNOHANG)
            if ended:
                answer = f"ended {status}"
                break
            time.sleep(0.005)
        else:
            os.kill(process, signal.SIGKILL)
            os.waitpid(process, 0)
        print(answer, flush=True)
    else:
        processes = [start() for _ in range(int(argument))]
        print(json.dumps([os.waitpid(process, 0)[1] for process in processes]), flush=True)
