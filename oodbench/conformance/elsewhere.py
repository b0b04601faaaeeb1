"""Another process, kept for all checks, that fitted detectors are sent to."""

import pickle
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import cache
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from oodbench import registry
from oodbench.errors import one_line


def scores(packed: bytes, files: Sequence[str]) -> NDArray[np.float64] | str:
    """What a pickled detector says of pickled evidence there, or why it says nothing.

    Args:
        packed: A detector and its evidence.
        files: Local files that declare it.
    """
    try:
        return _process().submit(_scores, packed, tuple(files)).result()
    except BrokenProcessPool:
        _process.cache_clear()
        return "the process ended"


@cache
def _process() -> ProcessPoolExecutor:
    return ProcessPoolExecutor(1, mp_context=get_context("spawn"))


def _scores(packed: bytes, files: Sequence[str]) -> NDArray[np.float64] | str:
    try:
        for file in files:
            registry.load_file(Path(file))
        torch.set_num_threads(1)
        detector, evidence = pickle.loads(packed)
        with torch.no_grad():
            return np.asarray(detector.score(evidence), dtype=np.float64)
    except (Exception, SystemExit) as error:
        return f"{type(error).__name__}: {one_line(error)}"
