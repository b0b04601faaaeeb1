"""Data sets of Hugging Face `datasets`: from a folder written by save_to_disk, or from the Hub."""

import io
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
from PIL import Image as Pillow

from oodbench.datasets.adapter import (
    HELD_OUT,
    Card,
    DataMissingError,
    Decoded,
    LazyImages,
    Pool,
    Request,
    dataset,
    made_of,
)
from oodbench.datasets.decoding import decode, naming_unreadable
from oodbench.datasets.layout import pick_split, standard_split
from oodbench.errors import MissingPrerequisiteError, UsageError, one_line

_ON_THE_HUB = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?")
# Run in a separate process, since `datasets` reads the location of its caches once, at import.
_FETCH = """
import sys
from datasets import load_dataset
try:
    load_dataset(sys.argv[1], sys.argv[2] or None).save_to_disk(sys.argv[3])
except Exception as cause:
    print(f"{type(cause).__name__}: {cause}")
    sys.exit(1)
"""
_PLACES = re.compile(r"(HF|HUGGINGFACE)_\w*CACHE|HF_DATASETS_\w*PATH")


@dataset(
    "huggingface",
    card=Card(
        "A data set of Hugging Face `datasets`, as save_to_disk writes it, or from the Hub.",
        licence="its owner's",
        citation="its owner's",
        shape="any",
        source="Hugging Face datasets",
    ),
)
def huggingface(
    request: Request, *, path: str, config: str | None = None, image: str | None = None, label: str | None = None
) -> Pool:
    """Images of a folder that ``Dataset.save_to_disk`` or ``DatasetDict.save_to_disk`` wrote, or of the Hub.

    Held-out samples are those of the split ``test``, else of a split called validation, valid or val; or of the only
    split that there is. If there are several of other names, the suite has to name one. A data set from the Hub is
    downloaded once into the data folder, if that is allowed.

    Args:
        request: The split to read.
        path: The folder, or the name on the Hub.
        config: Configuration of the data set on the Hub, if it has several.
        image: Column of the images; by default the column of type Image.
        label: Column of the labels; by default the column of type ClassLabel, if there is such a column.
    """
    try:
        import datasets
    except ImportError as cause:
        raise MissingPrerequisiteError(
            "the data set huggingface needs the package datasets; install it by pip install 'oodbench[hub]'."
        ) from cause

    folder = _folder(request, path, config)
    try:
        saved: Any = datasets.load_from_disk(str(folder))
    except Exception as cause:  # it raises whatever its readers raise
        raise UsageError(
            f"{folder} cannot be read as a data set of Hugging Face: {one_line(cause)}; expected a folder that "
            "save_to_disk wrote."
        ) from cause
    split, rows = _split(saved, request, folder) if isinstance(saved, Mapping) else ("all", saved)
    images = _column(rows, "image", image, datasets.Image, folder)
    if images is None or not isinstance(rows.features[images], datasets.Image):
        which = "no column" if images is None else f"a column {images}, which is not"
        raise UsageError(f"{folder} has {which} of type Image; it has {_columns(rows)}.")
    labels = _column(rows, "label", label, datasets.ClassLabel, folder)
    kind = None if labels is None else rows.features[labels]
    if kind is not None and "int" not in str(getattr(kind, "dtype", "")):
        raise UsageError(
            f"the column {labels} of {folder} holds no classes by number; it has {_columns(rows)}: make it one by "
            "class_encode_column."
        )
    # An unknown set needs none.
    numbers = np.zeros(len(rows)) if labels is None else rows[labels][:]
    # As files: decoded by the package, they are turned as their EXIF data say, whatever the suite says.
    files = rows.select_columns(images).cast_column(images, datasets.Image(decode=False))

    def make(index: int) -> Decoded:
        with naming_unreadable(f"the image {index} of {folder}"):
            file = files[index][images]
            if file is None:
                raise ValueError("the row has no image")
            content = Path(file["path"]).read_bytes() if file["bytes"] is None else file["bytes"]
            with Pillow.open(io.BytesIO(content)) as picture:
                return decode(picture, request.decoding)

    return Pool(
        LazyImages(len(rows), make, made_of=_made_of(folder, split, images, files, request)),
        np.asarray(numbers, dtype=np.int64),
        split,
        tuple(getattr(kind, "names", ())),
        [f"row {index}" for index in range(len(rows))],
    )


def _made_of(folder: Path, split: str, column: str, rows: Any, request: Request) -> str:  # noqa: ANN401
    """What the pictures follow from; empty if their files lie elsewhere, or were changed just now."""
    from oodbench.datasets.kept_digests import stamp_of

    files = [Path(file["filename"]) for file in rows.cache_files]
    stamps = [stamp_of(file) for file in files]
    lie_elsewhere = pc.struct_field(rows.data.column(column), "bytes").null_count
    if lie_elsewhere or not files or None in stamps:
        return ""
    return made_of(__file__, ["pillow", "datasets"], folder.resolve(), files, stamps, split, column, request.decoding)


def _folder(request: Request, path: str, config: str | None) -> Path:
    """The folder of the data set: the user's own, or the download from the Hub inside the data folder."""
    own = Path(path).expanduser()
    if own.is_dir():
        return own
    if not _ON_THE_HUB.fullmatch(path):
        raise DataMissingError(f"the folder {own}", downloadable=False)
    kept = request.root / "huggingface" / "--".join(filter(None, [path, config])).replace("/", "--")
    if not kept.is_dir():
        if not request.download:
            raise DataMissingError(
                f"the folder {own}, and the folder {kept} with {path} from the Hugging Face Hub", downloadable=True
            )
        _download(path, config, kept)
    return kept


def _download(path: str, config: str | None, kept: Path) -> None:
    """Download a data set from the Hub to the folder ``kept``, completely or not at all; no cache is left behind."""
    kept.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=kept.parent, prefix=".") as scratch:
        elsewhere = {name: value for name, value in os.environ.items() if not _PLACES.fullmatch(name)}
        saved = Path(scratch) / "data"
        done = subprocess.run(
            [sys.executable, "-c", _FETCH, path, config or "", str(saved)],
            env=elsewhere | {"HF_HOME": scratch},
            stdout=subprocess.PIPE,
            text=True,
            check=False,
        )
        if done.returncode:
            raise MissingPrerequisiteError(
                f"the download of {path} from the Hugging Face Hub failed: {one_line(Exception(done.stdout))}; check "
                "its name, the connection, and whether it needs config=NAME."
            )
        saved.replace(kept)


def _split(splits: Mapping[str, Any], request: Request, folder: Path) -> tuple[str, Any]:
    """The split that a request asks for: its standard name, else its own, and its rows.

    A single split without a standard name is ``all``, unless the suite names it.

    Raises:
        NoSuchSplitError: There is no such split.
        UsageError: Several splits can be meant, and the suite names none of them.
    """
    chosen = request.chosen if request.split == "test" else None
    if chosen is not None and chosen in splits:
        return standard_split(chosen) or chosen, splits[chosen]
    named: dict[str, list[str]] = {}
    for name in splits:
        named.setdefault(standard_split(name) or name, []).append(name)
    if chosen is None and len(splits) == 1 and standard_split(next(iter(splits))) is None:
        return "all", next(iter(splits.values()))
    if request.split == "test" and chosen is None and len(named) > 1 and named.keys().isdisjoint(HELD_OUT):
        raise UsageError(
            f"{folder} has the splits {', '.join(splits)}, none of which is called test or validation; say which to "
            'test on by split = "NAME".'
        )
    split = pick_split(request, named, str(folder))
    names = named[split]
    if len(names) > 1 and split not in names:
        raise UsageError(
            f'{folder} has the splits {" and ".join(names)}, which both mean {split}; say which by split = "NAME".'
        )
    return split, splits[split if split in names else names[0]]


def _column(rows: Any, parameter: str, chosen: str | None, kind: type, folder: Path) -> str | None:  # noqa: ANN401
    """The column that the user chose, else the only column of a type; None if no column has the type."""
    if chosen is not None:
        if chosen not in rows.column_names:
            raise UsageError(f"{folder} has no column {chosen!r} to be the {parameter}; it has {_columns(rows)}.")
        return chosen
    candidates = [name for name, feature in rows.features.items() if isinstance(feature, kind)]
    if len(candidates) > 1:
        raise UsageError(
            f"{folder} has {len(candidates)} columns of type {kind.__name__}, {', '.join(candidates)}; say which by "
            f"the parameter {parameter}."
        )
    return candidates[0] if candidates else None


def _columns(rows: Any) -> str:  # noqa: ANN401
    return "the columns " + ", ".join(f"{name} ({type(kind).__name__})" for name, kind in rows.features.items())
