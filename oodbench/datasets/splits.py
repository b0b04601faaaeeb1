"""Disjoint splits of a suite's data sets, drawn in the order of the hash of each image.

The order of the hashes is as good as a random order, needs no seed and is the same on every machine. Equal images have
equal hashes, so that duplicates inside a data set are dropped and no image is in two splits.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import combinations, pairwise
from pathlib import Path
from shlex import quote
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from oodbench.datasets.adapter import DataMissingError, Pool, Request
from oodbench.datasets.preparation import prepare
from oodbench.datasets.sources import ResolvedSource
from oodbench.errors import LeakError, UsageError, blaming
from oodbench.machine.progress import Track, silent
from oodbench.suites.reading import LoadedSuite
from oodbench.suites.schema import Input, Sizes

Use = Literal["train", "meta", "test", "exposed", "unknown"]
"""What a split is for.

Known samples: ``train`` the classifier, fit detectors (``meta``), ``test``. Unknown samples: ``exposed`` to
detectors in fitting, or ``unknown``, used for testing only.
"""
UNKNOWN_LABEL = -1


@dataclass(frozen=True)
class Split:
    """Samples of a data set for a use.

    Attributes:
        dataset: Name of the data set in the suite.
        use: What the split is for.
        adapter: Name of the adapter and its parameters.
        source: Where the data set can be obtained, from the adapter's card.
        origin: Split of the adapter that the samples are from: ``train``, ``test`` or ``all``.
        images: uint8 (N, C, H, W), as the classifier sees them.
        labels: int64 (N,): position in the sorted classes of the known set; −1 in unknown sets.
        indices: int64 (N,): positions in the adapter's split.
        digests: (N,): hash of each image.
        available: Number of samples in the adapter's split.
        official: Number of samples of that split in the authors' release, if the card states it.
        class_names: Names of the adapter's labels; empty if it does not know them.
    """

    dataset: str
    use: Use
    adapter: str
    source: str
    origin: str
    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    indices: NDArray[np.int64]
    digests: NDArray[np.bytes_]
    available: int
    official: int | None
    class_names: tuple[str, ...] = ()

    @cached_property
    def sha256(self) -> str:
        """Hash of the images and their labels, in order."""
        content = hashlib.sha256()
        content.update(self.digests.tobytes())
        content.update(self.labels.astype("<i8").tobytes())
        return content.hexdigest()

    def first(self, n: int | None) -> "Split":
        """The n samples with the smallest hashes, a random sample in effect; None takes all."""
        if n is None or n >= len(self.labels):
            return self
        return self.subset(np.sort(np.argsort(self.digests)[:n]))

    def subset(self, positions: NDArray[np.intp]) -> "Split":
        """The samples at the given positions."""
        return replace(
            self,
            images=self.images[positions],
            labels=self.labels[positions],
            indices=self.indices[positions],
            digests=self.digests[positions],
        )


@dataclass(frozen=True)
class SuiteSplits:
    """All splits of a suite.

    Attributes:
        classes: The known set's own labels, sorted.
        train: Known samples that the classifier is trained on.
        meta: Known samples that detectors are fitted on.
        test: Known samples that detectors are tested on.
        exposed: For each unknown set, the samples that detectors may be fitted on.
        unknown: For each unknown set, the samples that detectors are tested on, the same under every protocol.
        missing: Unknown sets whose files are missing, with a description of the files.
    """

    classes: tuple[int, ...]
    train: Split
    meta: Split
    test: Split
    exposed: Mapping[str, Split]
    unknown: Mapping[str, Split]
    missing: Mapping[str, str]


def read_pool(
    source: ResolvedSource, root: Path, input: Input, split: Literal["train", "test"], *, download: bool = False
) -> Pool:
    """Read a split of a data set, and check what the adapter returns.

    Args:
        source: The data set.
        root: The data folder.
        input: The suite's input, for adapters that generate images.
        split: Which split of the adapter.
        download: Whether the adapter may use the network.

    Raises:
        DataMissingError: Its files are missing.
        UsageError: The adapter fails, or returns something other than images and labels.
    """
    who = f"the data set {source.entry.name} of {source.entry.distribution}"
    request = Request(root, split, download, input.channels, input.resolution or input.size)
    with blaming(who):
        pool = source.plugin.read(request, source.source.parameters)
        first: NDArray[Any] = np.asarray(pool.images[0]) if len(pool.images) else np.zeros((1, 1), dtype=np.uint8)
    is_image = first.dtype == np.uint8 and first.size and (first.ndim == 2 or (first.ndim == 3 and first.shape[2] == 3))
    if not is_image or pool.labels.shape != (len(pool.images),):
        raise UsageError(
            f"{who} has images of dtype {first.dtype} and shape {first.shape}, {len(pool.images)} of them, and labels "
            f"of shape {pool.labels.shape}; expected uint8 (H, W) or (H, W, 3), and one label an image."
        )
    return pool


def draw_splits(
    suite: LoadedSuite,
    sources: Mapping[str, ResolvedSource],
    root: Path,
    *,
    download: bool = False,
    limit: int | None = None,
    skip_missing: bool = False,
    track: Track = silent,
) -> SuiteSplits:
    """Read a suite's data sets, convert them to its input and draw its splits.

    Args:
        suite: The suite.
        sources: Its data sets, the known set first.
        root: The data folder.
        download: Whether adapters may use the network.
        limit: Maximum number of samples in each split except the training split.
        skip_missing: Whether to go on without unknown sets whose files are missing.
        track: Shows progress.

    Raises:
        DataMissingError: Data sets are missing; the message names all of them, and the command to download them.
        LeakError: Two splits share an image.
    """
    input, sizes = suite.suite.input, suite.suite.sizes
    missing: dict[str, DataMissingError] = {}
    train = meta = test = None
    exposed: dict[str, Split] = {}
    tested: dict[str, Split] = {}
    for name, source in track(sources.items(), len(sources), "reading data"):
        try:
            if name == suite.suite.known_name:
                train, meta, test = _known_splits(source, root, input, sizes, download=download)
            else:
                exposed[name], tested[name] = _unknown_splits(source, root, input, sizes, download=download)
        except DataMissingError as error:
            missing[name] = error
    if train is None or meta is None or test is None or not tested or (missing and not skip_missing):
        raise _all_missing(suite, root, missing, can_skip=train is not None and bool(tested))
    refuse_shared_samples([train, meta, test, *exposed.values(), *tested.values()])
    classes = tuple(int(label) for label in np.unique(train.labels))
    return SuiteSplits(
        classes,
        _relabelled(train, classes),
        _relabelled(meta, classes).first(limit),
        _relabelled(test, classes).first(limit),
        {name: split.first(limit) for name, split in exposed.items()},
        {name: split.first(limit) for name, split in tested.items()},
        {name: error.looked_for for name, error in missing.items()},
    )


def refuse_shared_samples(splits: list[Split]) -> None:
    """Stop if the same image is in two of the splits.

    Raises:
        LeakError: Two splits share images; the message names them and the number of images.
    """
    for first, second in combinations(splits, 2):
        shared = len(np.intersect1d(first.digests, second.digests))
        if shared:
            raise LeakError(
                f"{shared} of the {len(first.labels)} images of {first.dataset} ({first.use}) are also among the "
                f"{len(second.labels)} of {second.dataset} ({second.use}); the sets of a suite must not share samples."
            )


def _known_splits(
    source: ResolvedSource, root: Path, input: Input, sizes: Sizes, *, download: bool
) -> tuple[Split, Split, Split]:
    name = source.name
    pool = read_pool(source, root, input, "test", download=download)
    everything = _whole(source, input, pool)
    if pool.split == "all":
        train, meta, test = _cut(everything, ("train", sizes.train), ("meta", sizes.meta), ("test", sizes.test))
    else:
        training = _whole(source, input, read_pool(source, root, input, "train", download=download))
        (train,) = _cut(training, ("train", sizes.train))
        unseen = ~np.isin(everything.digests, train.digests)
        meta, test = _cut(everything.subset(np.flatnonzero(unseen)), ("meta", sizes.meta), ("test", sizes.test))
    if not (len(train.labels) and len(meta.labels) and len(test.labels)):
        raise UsageError(f"the known set {name} has {_count(everything)}; too few for train, meta and test.")
    if len(np.unique(train.labels)) < 2:
        if len(np.unique(everything.labels)) < 2:
            raise UsageError(f"the known set {name} has one class only; a classifier needs at least two.")
        now = "" if sizes.train is None else f", which is {sizes.train}"
        raise UsageError(
            f"the training samples of the known set {name} ({len(train.labels)}) are of one class only; a classifier "
            f"needs at least two, so add samples or raise sizes.train{now}."
        )
    return train, meta, test


def _unknown_splits(
    source: ResolvedSource, root: Path, input: Input, sizes: Sizes, *, download: bool
) -> tuple[Split, Split]:
    everything = _whole(source, input, read_pool(source, root, input, "test", download=download))
    everything = replace(everything, labels=np.full_like(everything.labels, UNKNOWN_LABEL))
    exposed, unknown = _cut(everything, ("exposed", sizes.exposed), ("unknown", sizes.unknown))
    if not (len(exposed.labels) and len(unknown.labels)):
        limits = {"sizes.exposed": sizes.exposed, "sizes.unknown": sizes.unknown}
        shares = " and ".join(f"{key} = {size}" for key, size in limits.items() if size is not None)
        raise UsageError(
            f"the unknown set {source.name} has {_count(everything)}; expected at least one to expose and one to test "
            "on" + (f", with {shares}." if shares else ".")
        )
    return exposed, unknown


def _count(whole: Split) -> str:
    """The number of samples in words, with the number of duplicates that were dropped."""
    n, repeated = len(whole.labels), whole.available - len(whole.labels)
    text = f"{n} sample{'s' if n != 1 else ''}"
    return text + (f" (of {whole.available} images, {repeated} are duplicates)" if repeated else "")


def _whole(source: ResolvedSource, input: Input, pool: Pool) -> Split:
    """All samples of a pool, converted, without duplicates and in the order of their hashes; its use is provisional."""
    with blaming(f"the data set {source.name}"):
        images = prepare(pool.images, input)
    digests = np.array([hashlib.sha256(image).hexdigest()[:32].encode() for image in images])
    _, order = np.unique(digests, return_index=True)
    card = source.plugin.card
    split = Split(
        dataset=source.name,
        use="test",
        adapter=source.adapter,
        source=card.source,
        origin=pool.split,
        images=images,
        labels=pool.labels,
        indices=np.arange(len(images), dtype=np.int64),
        digests=digests,
        available=len(images),
        official=card.size.get(pool.split),
        class_names=pool.classes,
    )
    return split.subset(order)


def _cut(whole: Split, *uses: tuple[Use, int | None]) -> list[Split]:
    """Cut samples into consecutive splits for the uses, each sorted by index.

    A size of None takes a share of all samples. If the samples do not suffice, all splits shrink in proportion.
    """
    n = len(whole.labels)
    # Without sizes, a training split gets as much as the rest together.
    shares = [2.0 if use == "train" and len(uses) > 1 else 1.0 for use, _ in uses]
    sizes = [
        size if size is not None else n * share / sum(shares) for (_, size), share in zip(uses, shares, strict=True)
    ]
    shrink = min(1.0, n / sum(sizes))
    ends = np.cumsum([0] + [int(size * shrink) for size in sizes])
    return [
        replace(whole.subset(np.arange(start, end)[np.argsort(whole.indices[start:end])]), use=use)
        for (start, end), (use, _) in zip(pairwise(ends), uses, strict=True)
    ]


def _relabelled(split: Split, classes: tuple[int, ...]) -> Split:
    strange = np.setdiff1d(split.labels, classes)
    if len(strange):
        name = split.class_names[strange[0]] if 0 <= strange[0] < len(split.class_names) else strange[0]
        raise UsageError(
            f"the class {name} of {split.dataset} ({split.use}) is not among the {len(classes)} classes of its "
            "training split; give it more samples there, or take it out."
        )
    return replace(split, labels=np.searchsorted(classes, split.labels).astype(np.int64))


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
