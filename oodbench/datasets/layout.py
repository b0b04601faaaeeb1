"""Layouts of image folders: which files are images, and of which split and class. No image is opened here."""

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from PIL import Image as Pillow

from oodbench.datasets.adapter import HELD_OUT, NoSuchSplitError, Request
from oodbench.errors import UsageError, listed

Layout = Literal["splits", "classes"]
"""What the folders in a folder are."""

NO_IMAGES = "are no images"
OUTSIDE = "lie outside the folders of the splits"
"""Reasons why files are left out."""

_MEANINGS = {
    "train": "train",
    "training": "train",
    "test": "test",
    "testing": "test",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
}
# What file managers, notebooks and file systems leave behind is ignored, beside everything hidden.
_LITTER = {"__macosx", "thumbs.db", "desktop.ini", "@eadir", "lost+found", "$recycle.bin", "system volume information"}
# Formats that Pillow recognises without being able to decode them everywhere.
_STUBS = {"BUFR", "GRIB", "HDF5", "MPEG", "WMF"}


@dataclass(frozen=True)
class Tree:
    """What lies in a folder and below, without litter; links are followed.

    Attributes:
        folder: The folder.
        folders: Names of the folders directly in it, sorted.
        images: Paths of the image files, relative to the folder with ``/``, sorted part by part.
        others: Paths of the other files, likewise.
        problems: What cannot be followed or listed, in words.
    """

    folder: Path
    folders: tuple[str, ...] = ()
    images: tuple[str, ...] = ()
    others: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()


@dataclass(frozen=True)
class Contents:
    """The images of a split.

    Attributes:
        folder: The folder of the split.
        images: Paths of N images, relative to the folder of the data set.
        labels: N numbers of classes.
        left_out: Number of files that are left out, by reason.
    """

    folder: Path
    images: tuple[str, ...]
    labels: tuple[int, ...]
    left_out: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Arrangement:
    """The images of a folder by split and class.

    Attributes:
        splits: By ``train``, ``test`` and ``validation``; or ``all``, if the folder has no splits.
        classes: Names of the classes of all splits, sorted; empty text for images that lie in no class folder.
    """

    splits: Mapping[str, Contents]
    classes: tuple[str, ...]


def standard_split(name: str) -> str | None:
    """The split that a name stands for, in any case: ``train``, ``test``, ``validation``; None if for none of them."""
    return _MEANINGS.get(name.lower())


def pick_split(request: Request, splits: Collection[str], where: str) -> str:
    """Name of the split that a request asks for.

    Args:
        request: Asks for ``train``, for the split that it has chosen, or for held-out samples: the split ``test``,
            else ``validation``, else ``train``, for want of another.
        splits: Names of the splits that there are, standard names where they have one; ``all`` alone if there are none.
        where: What has the splits, for the message.

    Raises:
        NoSuchSplitError: There is no such split.
    """
    if set(splits) == {"all"}:
        return "all"
    if request.split == "train":
        wanted: tuple[str, ...] = ("train",)
    elif request.chosen is not None:
        wanted = (standard_split(request.chosen) or request.chosen,)
    else:
        wanted = (*HELD_OUT, "train")
    for name in wanted:
        if name in splits:
            return name
    raise NoSuchSplitError(f"{where} has no split {wanted[0]}; it has: {', '.join(splits) or 'none'}.")


def image_endings() -> frozenset[str]:
    """Endings of the files that Pillow can decode, such as ``.png``, in small letters."""
    offered = Pillow.registered_extensions()
    return frozenset(ending for ending, kind in offered.items() if kind in Pillow.OPEN and kind not in _STUBS)


def scan(folder: Path) -> Tree:
    """List a folder and all folders below, following links, but not links that lead back to a folder above.

    Litter is left out: hidden files and folders, ``__MACOSX``, ``Thumbs.db`` and the like.

    Raises:
        OSError: The folder is missing.
    """
    found: dict[str, list[str]] = {"images": [], "others": [], "problems": []}
    endings = image_endings()

    def visit(place: str, prefix: str, above: frozenset[tuple[int, int]]) -> list[str]:
        """Sort what lies in a folder into ``found``; the names of the folders in it are returned."""
        try:
            with os.scandir(place) as listed:
                entries = sorted((entry for entry in listed if not _is_litter(entry.name)), key=lambda one: one.name)
        except OSError as cause:
            found["problems"].append(f"{prefix or place} cannot be listed ({cause.strerror})")
            return []
        folders = []
        for entry in entries:
            name = prefix + entry.name
            try:
                about = entry.stat() if entry.is_dir() or entry.is_symlink() else None
            except OSError as cause:  # a link that leads nowhere or in a circle, or a folder that is locked
                what = f"is a link to {os.readlink(entry.path)}, which" if entry.is_symlink() else "is a folder that"
                found["problems"].append(f"{name} {what} cannot be followed ({cause.strerror})")
                continue
            if about is not None and entry.is_dir():
                identity = (about.st_dev, about.st_ino)
                if identity not in above:
                    folders.append(entry.name)
                    visit(entry.path, f"{name}/", above | {identity})
            elif entry.is_file() and os.path.splitext(entry.name)[1].lower() in endings:
                found["images"].append(name)
            else:
                found["others"].append(name)
        return folders

    resolved = folder.resolve(strict=True)
    branch = frozenset((about.st_dev, about.st_ino) for about in map(os.stat, (resolved, *resolved.parents)))
    folders = visit(str(folder), "", branch)
    return Tree(folder, tuple(folders), **{kind: tuple(names) for kind, names in found.items()})


def arrange(tree: Tree, layout: Layout | None = None) -> Arrangement:
    """Sort the images of a folder by split and class.

    A class is a folder in the folder of a split; images in folders below belong to it. Images that all lie directly in
    the folder of a split are of one class.

    Args:
        tree: What lies in the folder.
        layout: What the folders in it are; None decides by their names, see ``split_folders``.

    Raises:
        UsageError: The layout is ambiguous, or something in the folder is wrong; the message has the first ten faults.
    """
    folders = split_folders(tree, layout)
    prefixes = {split: f"{name}/" for split, name in folders.items()} or {"all": ""}
    images = {split: _below(tree.images, prefix) for split, prefix in prefixes.items()}
    names = {split: [_class(name[len(prefix) :]) for name in images[split]] for split, prefix in prefixes.items()}
    problems = [*tree.problems]
    for split, prefix in prefixes.items():
        direct = [image for image, name in zip(images[split], names[split], strict=True) if not name]
        if 0 < len(direct) < len(images[split]):
            problems.append(
                f"{_count(direct)} directly in {prefix.rstrip('/') or 'it'}, beside the folders of the classes, such "
                f"as {direct[0]}"
            )
    if problems:
        raise UsageError(
            f"the folder {tree.folder} cannot be used as it lies: {listed(problems, separator='; ')}; mend, move or "
            "remove what is named."
        )
    classes = sorted({name for found in names.values() for name in found})
    numbers = {name: number for number, name in enumerate(classes)}
    outside = len(tree.images) - sum(map(len, images.values()))
    splits = {
        split: Contents(
            tree.folder / prefix,
            images[split],
            tuple(numbers[name] for name in names[split]),
            {reason: n for reason, n in ((NO_IMAGES, len(_below(tree.others, prefix))), (OUTSIDE, outside)) if n},
        )
        for split, prefix in prefixes.items()
    }
    return Arrangement(splits, tuple(classes))


def split_folders(tree: Tree, layout: Layout | None) -> Mapping[str, str]:
    """The folders that are splits, by ``train``, ``test`` and ``validation``; empty if the folders are classes.

    They are splits if all folders with images in them are called train, test or val, or the like, in any case. A
    single one of these names among others is a class, as in CIFAR-100, if images lie directly in its folder.

    Args:
        tree: What lies in the folder.
        layout: ``splits`` takes the folders of these names as splits, and leaves the others out; ``classes`` takes all
            as classes; None refuses what can be either.

    Raises:
        UsageError: They can be either, there are no splits although ``layout`` says so, or two folders are the same
            split.
    """
    named = [name for name in tree.folders if standard_split(name)]
    filled = {name.partition("/")[0] for name in tree.images if "/" in name}
    if layout == "classes" or (layout is None and not filled.intersection(named)):
        if layout is None:
            _refuse_splits_in_classes(tree)
        return {}
    if not named:
        raise UsageError(
            f'{tree.folder} has no folder train, test or val, but layout = "splits" is given; it has: '
            f"{listed(tree.folders) or 'no folders'}."
        )
    if layout is None:
        others = sorted(filled.difference(named))
        if others:
            (single, *more) = sorted(filled.intersection(named))
            if not more and any(name.startswith(f"{single}/") and name.count("/") == 1 for name in tree.images):
                return {}
            raise UsageError(
                f"{tree.folder} has the folders {listed([single, *more])} beside others ({listed(others)}), so "
                'that they can be splits or classes; say which by layout = "splits", which leaves the others out, or '
                'layout = "classes".'
            )
        loose = [name for name in tree.images if "/" not in name]
        if loose:
            raise UsageError(
                f"{_count(loose)} directly in {tree.folder}, such as {loose[0]}, beside the folders "
                f'{listed(named)}; move them into one, or leave them out by layout = "splits".'
            )
    folders: dict[str, str] = {}
    for name in named:
        split = _MEANINGS[name.lower()]
        if split in folders:
            raise UsageError(
                f"{tree.folder} has the folders {folders[split]} and {name}, which both mean the split {split}; "
                'expected one, so merge or rename them, or say layout = "classes".'
            )
        folders[split] = name
    return folders


def _refuse_splits_in_classes(tree: Tree) -> None:
    """Refuse folders of classes, or of data sets, that have splits in them: training samples would count as held out.

    Raises:
        UsageError: A folder has both a training split and a held-out split in it.
    """
    inner: dict[str, set[str]] = {}
    for name in tree.images:
        parts = name.split("/", 2)
        if len(parts) == 3 and standard_split(parts[1]):
            inner.setdefault(parts[0], set()).add(parts[1])
    for outer, names in inner.items():
        if len({standard_split(name) for name in names}) > 1:
            raise UsageError(
                f"{tree.folder / outer} has the folders {' and '.join(sorted(names))} in it; expected splits outside, "
                f'as in {tree.folder}/test/{outer}, so name the folder that has the splits, or say layout = "classes" '
                "to take all of them together."
            )


def _is_litter(name: str) -> bool:
    return name.startswith(".") or name.lower() in _LITTER


def _class(name: str) -> str:
    """The first folder of a path; empty if it has none."""
    return name.partition("/")[0] if "/" in name else ""


def _below(names: Sequence[str], prefix: str) -> tuple[str, ...]:
    return tuple(name for name in names if name.startswith(prefix))


def _count(images: Sequence[str]) -> str:
    return f"{len(images):,} images lie" if len(images) != 1 else "1 image lies"
