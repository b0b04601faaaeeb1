"""Where data sets and caches are, unless the user says otherwise."""

import os
from pathlib import Path

from platformdirs import user_cache_path


def data_folder(data: str | Path | None) -> Path:
    """The folder that data sets are read from."""
    return Path(data or os.environ.get("OODBENCH_DATA") or user_cache_path("oodbench") / "data").expanduser()


def cache_folder() -> Path:
    """The folder of trained weights and evidence: ``$OODBENCH_CACHE``, else the user's cache folder."""
    return Path(os.environ.get("OODBENCH_CACHE") or user_cache_path("oodbench")).expanduser()
