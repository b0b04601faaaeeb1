"""Adapters for the user's own data: folders of images, and numpy archives."""

import zipfile
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from oodbench.datasets.adapter import Card, DataMissingError, Image, Pool, Request, dataset
from oodbench.datasets.decoding import read_pictures
from oodbench.datasets.layout import NO_IMAGES, Layout, arrange, pick_split, scan
from oodbench.errors import UsageError

# An archive may unpack to HARMLESS bytes, or else to at most DENSEST times its size: images compress less than that.
HARMLESS = 1 << 28
DENSEST = 200


def _card(summary: str) -> Card:
    return Card(summary, licence="its owner's", citation="its owner's", shape="any", source="your files")


@dataset("imagefolder", card=_card("A folder of images, one sub-folder a class."))
def imagefolder(request: Request, *, path: Path, layout: Layout | None = None, invert: bool = False) -> Pool:
    """Images of a folder ``PATH/class/image``, ``PATH/train/class/image`` and ``PATH/test/…``, or ``PATH/image``.

    The splits are folders called train, test and val, or training, testing, valid and validation, in any case. Links
    are followed; hidden files and what file managers leave behind are ignored; other files that are no images are left
    out, and counted.

    Args:
        request: The split to read.
        path: The folder.
        layout: Whether the folders in it are ``splits`` or ``classes``, where their names leave that open.
        invert: Whether the ink is dark on light ground and has to be inverted.
    """
    folder = path.expanduser()
    if not folder.is_dir():
        raise DataMissingError(f"the folder {folder}", downloadable=False)
    arranged = arrange(scan(folder), layout)
    split = pick_split(request, arranged.splits, str(folder))
    contents = arranged.splits[split]
    if not contents.images:
        others = contents.left_out.get(NO_IMAGES)
        found = f"has {others:,} files, none of them an image such as .png or .jpg" if others else "is empty"
        raise DataMissingError(f"images in {contents.folder}, which {found}", downloadable=False)
    return Pool(
        read_pictures(folder, contents.images, request.decoding, invert=invert),
        np.asarray(contents.labels, dtype=np.int64),
        split,
        arranged.classes,
        contents.images,
        contents.left_out,
    )


@dataset("npz", card=_card("A numpy archive with arrays `images` and `labels`."))
def npz(request: Request, *, path: Path) -> Pool:
    """Array ``images``, (N, H, W) or (N, H, W, 3), uint8 or floats from 0 to 1; and ``labels`` (N,), integers.

    ``labels`` may be left out for an unknown set.
    """
    file = path.expanduser()
    if not file.is_file():
        raise DataMissingError(f"the file {file}", downloadable=False)
    if not zipfile.is_zipfile(file):
        raise UsageError(
            f"{file} is not a readable numpy archive; expected a whole .npz as np.savez(FILE, images=…, labels=…) "
            "writes it."
        )
    _refuse_bomb(file)
    try:
        with np.load(file, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files if name in ("images", "labels")}
            names = ", ".join(archive.files) or "nothing"
    except Exception as cause:  # numpy raises half a dozen kinds for a damaged archive
        reason = str(cause).rstrip(".")
        raise UsageError(f"{file} is not a readable numpy archive (.npz without pickled objects): {reason}.") from cause
    if "images" not in arrays:
        raise UsageError(f"{file} has no array 'images'; it has: {names}.")
    images = _as_uint8(arrays["images"], file)
    labels = arrays.get("labels", np.zeros(len(images), dtype=np.int64))
    if labels.shape != (len(images),) or labels.dtype.kind not in "iu":
        raise UsageError(
            f"the array 'labels' of {file} has shape {labels.shape} and dtype {labels.dtype}; expected "
            f"({len(images)},) integers."
        )
    return Pool(images, labels.astype(np.int64))


def _refuse_bomb(file: Path) -> None:
    """Refuse an archive that is small on disk and would fill the memory, before anything is unpacked.

    Raises:
        UsageError: The sizes stated in the archive exceed the limits, or it is damaged.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            unpacked = sum(member.file_size for member in archive.infolist())
    except Exception as cause:  # zipfile raises half a dozen kinds for a damaged archive
        raise UsageError(f"{file} is not a readable numpy archive: {cause}.") from cause
    if unpacked > HARMLESS and unpacked > DENSEST * file.stat().st_size:
        raise UsageError(
            f"{file} unpacks to {unpacked:,} bytes from {file.stat().st_size:,}; expected at most {DENSEST} times its "
            "size, so store it by np.savez."
        )


def _as_uint8(images: NDArray[Any], file: Path) -> Image:
    if images.ndim not in (3, 4) or (images.ndim == 4 and images.shape[3] not in (1, 3)):
        raise UsageError(f"the array 'images' of {file} has shape {images.shape}; expected (N, H, W) or (N, H, W, 3).")
    if not images.size:
        raise UsageError(f"the array 'images' of {file} is empty, of shape {images.shape}; expected N, H and W from 1.")
    if images.ndim == 4 and images.shape[3] == 1:
        images = images[..., 0]
    if images.dtype == np.uint8:
        return cast(Image, images)
    if images.dtype.kind == "f" and np.isfinite(images).all() and images.min() >= 0 and images.max() <= 1:
        return cast(Image, np.rint(images * 255).astype(np.uint8))
    values = f" and values from {images.min()} to {images.max()}" if images.dtype.kind in "fiu" else ""
    raise UsageError(
        f"the array 'images' of {file} has dtype {images.dtype}{values}; expected uint8, or floats from 0 to 1."
    )
