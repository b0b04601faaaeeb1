"""A second process, shared by all checks, that scores with pickled detectors."""

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
from oodbench.errors import described


def scores(packed: bytes, files: Sequence[str]) -> NDArray[np.float64] | str:
    """Score in the other process.

    Args:
        packed: A detector and its evidence, pickled together.
        files: Local files that declare the detector.

    Returns:
        The scores, float64 (N,), or why there are none.
    """
    try:
        return _process().submit(_scores, packed, tuple(files)).result()
    except BrokenProcessPool:
        _process.cache_clear()
        return "the process ended"


def close() -> None:
    """End the process, if there is one."""
    if _process.cache_info().currsize:
        _process().shutdown()
        _process.cache_clear()


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
    except BaseException as error:  # whatever it is, the other process has to answer
        return described(error)
