"""Finds the samples of a suite's data sets, and checks all that can be seen before an image is decoded."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from shlex import quote
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from oodbench.datasets.adapter import (
    HELD_OUT,
    DataMissingError,
    NoSuchSplitError,
    Pool,
    Request,
    UnreadableImageError,
)
from oodbench.datasets.classes import name_of
from oodbench.datasets.decoding import Pictures
from oodbench.datasets.kept_digests import DigestStore, stamp_of
from oodbench.datasets.layout import standard_split
from oodbench.datasets.preparation import Preprocessing
from oodbench.datasets.sources import ResolvedSource
from oodbench.errors import UsageError, blaming, listed
from oodbench.suites.reading import LoadedSuite

_PLAIN = np.zeros((1, 1), dtype=np.uint8)


@dataclass(frozen=True)
class OpenedSet:
    """A data set whose samples are found and not decoded yet.

    Attributes:
        source: The data set.
        test: The samples that are held out, or all there are.
        train: The samples that the classifier is trained on; None if there are none, or if they are cut from ``test``.
        is_cut: Whether ``test`` is cut into training samples and held-out ones.
        lacks: That the files of the training samples are missing, where weights are given, so that it can do without.
    """

    source: ResolvedSource
    test: Pool
    train: Pool | None = None
    is_cut: bool = False
    lacks: DataMissingError | None = None

    @property
    def pools(self) -> list[Pool]:
        """All its pools, the one that is tested on first."""
        return [pool for pool in (self.test, self.test.validation, self.train) if pool is not None]


@dataclass(frozen=True)
class OpenedSuite:
    """All data sets of a suite.

    Attributes:
        preprocessing: The classifier's preprocessing, which knows the size of the first known picture.
        known: The known set.
        unknown: The unknown sets by name.
        validation: The unknown sets that parameters are chosen by.
        covariate: The known sets under a shift.
        missing: Unknown sets whose files are missing, with a description of the files.
    """

    preprocessing: Preprocessing
    known: OpenedSet
    unknown: Mapping[str, OpenedSet]
    validation: Mapping[str, OpenedSet]
    covariate: Mapping[str, OpenedSet]
    missing: Mapping[str, str]


def open_suite(
    suite: LoadedSuite,
    sources: Mapping[str, ResolvedSource],
    preprocessing: Preprocessing,
    root: Path,
    *,
    download: bool,
    skip_missing: bool,
    store: DigestStore,
) -> OpenedSuite:
    """Find the samples of all data sets.

    Args:
        suite: The suite.
        sources: Its data sets, the known set first.
        preprocessing: The classifier's preprocessing.
        root: The data folder.
        download: Whether adapters may use the network.
        skip_missing: Whether to go on without unknown sets whose files are missing.
        store: The digests of files that were decoded before.

    Raises:
        DataMissingError: Data sets are missing; the message names all of them, and the command to download them.
        UsageError: Data sets cannot be used; the message names what is wrong with each of them.
    """
    known: OpenedSet | None = None
    unknown: dict[str, OpenedSet] = {}
    validation: dict[str, OpenedSet] = {}
    covariate: dict[str, OpenedSet] = {}
    missing: dict[str, DataMissingError] = {}
    problems: list[UsageError] = []
    for name, source in sources.items():
        try:
            if name == suite.suite.known_name:
                known = _open_known(source, preprocessing, root, suite.suite.weights is not None, download=download)
                if known.lacks is not None:
                    missing[f"{name} (train)"] = known.lacks
                height, width = _first_shape(known.test, store)[:2]
                preprocessing = replace(preprocessing, picture_size=(width, height))
            else:
                opened = OpenedSet(source, read_pool(source, root, preprocessing, "test", download=download))
                role = covariate if source.group == "covariate" else unknown
                (role if name in suite.suite.unknown else validation)[name] = opened
        except DataMissingError as error:
            missing[name] = error
        except UsageError as error:
            problems.append(error)
    if problems:
        raise _all_of(problems)
    if known is None or not unknown or (missing and not skip_missing):
        raise _all_missing(suite, root, missing, can_skip=known is not None and bool(unknown))
    looked_for = {name: error.looked_for for name, error in missing.items()}
    return OpenedSuite(preprocessing, known, unknown, validation, covariate, looked_for)


def read_pool(
    source: ResolvedSource,
    root: Path,
    preprocessing: Preprocessing,
    split: Literal["train", "test"],
    *,
    download: bool = False,
) -> Pool:
    """Read a split of a data set, and check what the adapter returns.

    Args:
        source: The data set.
        root: The data folder.
        preprocessing: The classifier's preprocessing, for adapters that generate images, and how pictures are decoded.
        split: Which split of the adapter; ``test`` stands for the split that the suite chooses.
        download: Whether the adapter may use the network.

    Raises:
        DataMissingError: Its files are missing.
        NoSuchSplitError: It has no such split.
        UsageError: The adapter fails, or returns something other than images and labels.
    """
    who = f"the data set {source.entry.name} of {source.entry.distribution}"
    request = Request(
        root,
        split,
        download,
        *preprocessing.generated,
        source.source.split if split == "test" else None,
        preprocessing.decoding,
    )
    with blaming(who):
        pool = source.plugin.read(request, source.parameters(root))
        # Files of pictures are looked at when all are.
        first = _first(pool) if not isinstance(pool.images, Pictures) else _PLAIN
    asked, read = _canonical(request.chosen or pool.split), _canonical(pool.split)
    if asked != read and pool.split != "all":
        raise NoSuchSplitError(f"{who} has no split {request.chosen}; expected the split {pool.split}, which it read.")
    is_image = first.dtype == np.uint8 and first.size and (first.ndim == 2 or (first.ndim == 3 and first.shape[2] == 3))
    if not is_image or pool.labels.shape != (len(pool.images),):
        raise UsageError(
            f"{who} has images of dtype {first.dtype} and shape {first.shape}, {len(pool.images)} of them, and labels "
            f"of shape {pool.labels.shape}; expected uint8 (H, W) or (H, W, 3), and one label an image."
        )
    return pool


def _first(pool: Pool) -> NDArray[Any]:
    """The first image, or an empty one if it cannot be decoded, which is found out when all are."""
    if not len(pool.images):
        return _PLAIN
    try:
        return np.asarray(pool.images[0])
    except UnreadableImageError:
        return _PLAIN


def _first_shape(pool: Pool, store: DigestStore) -> tuple[int, ...]:
    """The shape of the first image, from what is kept of it if it is a file that is unchanged."""
    if isinstance(pool.images, Pictures) and len(pool.images):
        name = pool.images.names[0]
        seen = store.of(pool.images).find(name, stamp_of(pool.images.folder / name))
        if seen is not None:
            return seen.shape
    return _first(pool).shape


def _open_known(
    source: ResolvedSource, preprocessing: Preprocessing, root: Path, has_weights: bool, *, download: bool
) -> OpenedSet:
    """The known set, with what may be tested on told apart from what may have been trained on.

    Args:
        source: The known set.
        preprocessing: The classifier's preprocessing.
        root: The data folder.
        has_weights: Whether the classifier's weights are given, so that any sample that is not held out may be one that
            it was trained on.
        download: Whether adapters may use the network.

    Raises:
        UsageError: There are no held-out samples, or none to train on.
    """
    name, chosen = source.name, source.source.split
    test = read_pool(source, root, preprocessing, "test", download=download)
    if test.split == "all" and chosen is not None:
        test = replace(test, split=_canonical(chosen))
    is_held_out = test.split in HELD_OUT or (chosen is not None and test.split not in ("all", "train"))
    if has_weights and not is_held_out:
        found = "one split only" if test.split == "all" else f"no split but {test.split}"
        raise UsageError(
            f"the known set {name} has {found}, and the classifier's weights are given, so they may have been trained "
            'on these images; expected a split test or validation, or split = "test" for the known set in the suite '
            "if all of its images are held out."
        )
    if not has_weights and test.split in ("all", "train"):
        return OpenedSet(source, test, is_cut=True)
    try:
        train = read_pool(source, root, preprocessing, "train", download=download)
    except DataMissingError as error:
        if has_weights:
            return OpenedSet(source, test, lacks=error)
        raise
    except NoSuchSplitError as error:
        if has_weights:
            return OpenedSet(source, test)
        raise UsageError(
            f"the known set {name} has no training split ({error}), and the suite names no weights; expected samples "
            "to train the classifier on, or weights."
        ) from error
    if train.split == "all":  # the whole data set is held out
        if has_weights:
            return OpenedSet(source, test)
        raise UsageError(
            f"all of the known set {name} is held out as its split {chosen}, and the suite names no weights; expected "
            "samples to train the classifier on, so leave the split out, or weights."
        )
    if not has_weights:
        _refuse_untrained_classes(name, train, test)
    return OpenedSet(source, test, train)


def _refuse_untrained_classes(name: str, train: Pool, test: Pool) -> None:
    """Refuse classes that the classifier would be tested on and not trained on.

    Raises:
        UsageError: There are such classes.
    """
    strange = np.setdiff1d(test.labels, train.labels)
    if len(strange):
        names = [name_of(test, int(label)) for label in strange]
        raise UsageError(
            f"the known set {name} has {test.split} images of classes without training images ({listed(names)}); give "
            "them some, or take them out."
        )


def _canonical(split: str) -> str:
    """The usual name of a split: ``val`` and ``valid`` are ``validation``."""
    return standard_split(split) or split


def _all_of(problems: Sequence[UsageError]) -> UsageError:
    """A single error that says all of the problems."""
    if len(problems) == 1:
        return problems[0]
    shown = listed([f"({i}) {problem}" for i, problem in enumerate(problems, start=1)], separator=" ")
    return UsageError(f"{len(problems)} data sets cannot be used. {shown}")


def _all_missing(
    suite: LoadedSuite, root: Path, missing: Mapping[str, DataMissingError], *, can_skip: bool
) -> DataMissingError:
    looked_for = "; ".join(f"{name}: {error.looked_for}" for name, error in missing.items())
    downloadable = any(error.downloadable for error in missing.values())
    advice = []
    if downloadable:
        advice.append(f"get it with `oodbench data fetch {quote(suite.asked_for)} --data {quote(str(root))}`")
    advice.append("point elsewhere with --data DIR or --set DATASET=ADAPTER:PATH")
    if can_skip:
        advice.append("run without it with --skip-missing")
    return DataMissingError(
        looked_for,
        downloadable=downloadable,
        sentence=f"the suite {suite.suite.name} lacks {' and '.join(missing)} (looked for {looked_for}); "
        f"{', or '.join(advice)}.",
    )
