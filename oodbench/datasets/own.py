"""Adapters for the user's own data: folders of images, and numpy archives."""

import warnings
import zipfile
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow

from oodbench.datasets.adapter import Card, DataMissingError, Image, LazyImages, Pool, Request, dataset
from oodbench.errors import UsageError

_SPLITS = {"train", "test"}
# A validation split beside train and test is ignored, and not taken for a class.
_VALIDATION = {"val", "valid", "validation"}
# Files that file managers leave behind are ignored.
_LITTER = {"thumbs.db", "desktop.ini"}
# Modes of unknown range: Pillow would clip their values at 255 instead of scaling them.
_WIDE_MODES = {"I": "32-bit integers", "F": "32-bit floats"}

# An archive may unpack to HARMLESS bytes, or else to at most DENSEST times its size: images compress less than that.
HARMLESS = 1 << 28
DENSEST = 200


def _card(summary: str) -> Card:
    return Card(summary, licence="its owner's", citation="its owner's", shape="any", source="your files")


@dataset("imagefolder", card=_card("A folder of images, one sub-folder a class."))
def imagefolder(request: Request, *, path: Path, invert: bool = False) -> Pool:
    """Images of a folder ``PATH/class/image``, ``PATH/train/class/image`` and ``PATH/test/…``, or ``PATH/image``.

    A folder ``val`` beside ``train`` and ``test`` is left alone. An unknown set needs ``test`` only.

    Args:
        request: The split to read.
        path: The folder.
        invert: Whether the ink is dark on light ground and has to be inverted.
    """
    folder = path.expanduser()
    if not folder.is_dir():
        raise DataMissingError(f"the folder {folder}", downloadable=False)
    has_splits = _has_splits(folder, request.split)
    top = folder / request.split if has_splits else folder
    files = _files(top)
    if not files:
        raise DataMissingError(f"images in {top}, which is empty", downloadable=False)
    offered = {ending for ending, name in Pillow.registered_extensions().items() if name in Pillow.OPEN}
    for file in files:
        if file.suffix.lower() not in offered:
            raise UsageError(
                f"found {file}, which is not an image; expected files such as .png or .jpg only, so move it elsewhere."
            )
    # Number the classes of both splits together, so that labels agree even if a split lacks a class.
    tops = [folder / split for split in sorted(_SPLITS) if (folder / split).is_dir()] if has_splits else [folder]
    classes = sorted({_class(file, top) for top in tops for file in _files(top)})
    labels = [classes.index(_class(file, top)) for file in files]

    def make(index: int) -> Image:
        image = _read_image(files[index])
        return 255 - image if invert else image

    return Pool(
        LazyImages(len(files), make),
        np.asarray(labels, dtype=np.int64),
        request.split if has_splits else "all",
        tuple(classes),
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


def _has_splits(folder: Path, split: str) -> bool:
    """Whether the sub-folders are splits (True) or classes (False).

    Raises:
        UsageError: Some sub-folders are splits, but ``split`` is missing or other folders are beside them.
    """
    children = {child.name for child in folder.iterdir() if child.is_dir() and not _is_litter(child)}
    if not children & _SPLITS:
        return False
    if split in children and children <= _SPLITS | _VALIDATION:
        return True
    raise UsageError(
        f"{folder} has the sub-folders {', '.join(sorted(children))}; expected either train and test (of an unknown "
        "set, test is enough; val may stand beside them), or one folder a class, none of which is called train or test."
    )


def _files(top: Path) -> list[Path]:
    """All files below a folder, without hidden ones and litter, sorted."""
    return sorted(
        file
        for file in top.rglob("*")
        if file.is_file() and not any(_is_litter(Path(part)) for part in file.relative_to(top).parts)
    )


def _class(file: Path, top: Path) -> str:
    """The class of a file: its first sub-folder below ``top``; empty for a file directly in ``top``."""
    return file.relative_to(top).parts[0] if file.parent != top else ""


def _is_litter(file: Path) -> bool:
    return file.name.startswith(".") or file.name.lower() in _LITTER


def _read_image(file: Path) -> Image:
    try:
        with warnings.catch_warnings():
            # Large images are welcome up to the size that Pillow takes for an attack and refuses.
            warnings.simplefilter("ignore", Pillow.DecompressionBombWarning)
            opened = Pillow.open(file)
        with opened as image:
            if image.mode in _WIDE_MODES:
                raise UsageError(
                    f"the image {file} has {_WIDE_MODES[image.mode]} (mode {image.mode}); expected 8 or 16 bits a "
                    "channel, so convert it."
                )
            if image.mode.startswith("I;16"):
                return (np.asarray(image) >> 8).astype(np.uint8)
            return np.asarray(image.convert("L" if image.mode in ("1", "L") else "RGB"))
    except (OSError, ValueError, SyntaxError, Pillow.DecompressionBombError) as cause:
        reason = str(cause).rstrip(".")
        raise UsageError(f"the image {file} cannot be read: {reason}; replace or remove it.") from cause


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
