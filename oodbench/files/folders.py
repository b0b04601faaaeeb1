"""Default folders of data sets and of the cache."""

import os
from pathlib import Path

from platformdirs import user_cache_path

RESULTS = Path("oodbench-results")
"""The results folder."""


def data_folder(data: str | Path | None) -> Path:
    """The folder of data sets: ``data``, else ``$OODBENCH_DATA``, else a folder in the user's cache folder."""
    return Path(data or os.environ.get("OODBENCH_DATA") or user_cache_path("oodbench") / "data").expanduser()


def cache_folder() -> Path:
    """The folder of trained weights and evidence: ``$OODBENCH_CACHE``, else the user's cache folder."""
    return Path(os.environ.get("OODBENCH_CACHE") or user_cache_path("oodbench")).expanduser()
