"""Disjoint splits of a suite's data sets, drawn in the order of their content's hash.

The order of the hash is as good as a random one, needs no seed, is the same on every machine, and puts equal images
side by side, so that duplicates inside one data set can be dropped and never stand on both sides of a split.
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

from oodbench import registry
from oodbench.datasets.adapter import DataMissingError, Pool, Request, load_dataset
from oodbench.datasets.preparation import prepare
from oodbench.errors import LeakError, UsageError, blaming
from oodbench.progress import Track, silent
from oodbench.suites.suite import Source, Suite

Part = Literal["train", "meta", "test", "exposed", "unknown"]
UNKNOWN_LABEL = -1


@dataclass(frozen=True)
class Split:
    """Samples of one data set for one use.

    Attributes:
        dataset: Name in the suite.
        part: What it is used for.
        adapter: Name of the adapter and its parameters.
        source: Where the adapter has it from.
        origin: The adapter's own split (``train``, ``test``, ``all``).
        images: uint8 (N, C, H, W), as the classifier sees them.
        labels: int64 (N,): position in the sorted classes of the known set; −1 in unknown sets.
        indices: int64 (N,): positions in the adapter's split.
        digests: (N,): hash of each image's content.
        available: Number of samples that the adapter found in that split.
        official: Number of samples that the split has in its authors' release, if it has one.
        class_names: The adapter's name of each of its labels, where it knows them.
    """

    dataset: str
    part: Part
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
        """Hash of the images with their labels, in their order."""
        content = hashlib.sha256()
        content.update(self.digests.tobytes())
        content.update(self.labels.astype("<i8").tobytes())
        return content.hexdigest()

    def first(self, n: int | None) -> "Split":
        """The n samples that come first by their hash, so of all classes; all of them for None."""
        if n is None or n >= len(self.labels):
            return self
        return self.subset(np.sort(np.argsort(self.digests)[:n]))

    def subset(self, positions: NDArray[np.intp]) -> "Split":
        """The samples at some positions."""
        return replace(
            self,
            images=self.images[positions],
            labels=self.labels[positions],
            indices=self.indices[positions],
            digests=self.digests[positions],
        )


@dataclass(frozen=True)
class SuiteData:
    """All splits of a suite.

    Attributes:
        classes: The known set's own labels, sorted.
        train: What the classifier is trained on.
        meta: What detectors are fitted on.
        test: Known samples that are tested on.
        exposed: Of each unknown set, the samples that may be used in fitting.
        unknown: Of each unknown set, the samples that are tested on, the same under every protocol.
        missing: Unknown sets that are not there, with what was looked for.
    """

    classes: tuple[int, ...]
    train: Split
    meta: Split
    test: Split
    exposed: Mapping[str, Split]
    unknown: Mapping[str, Split]
    missing: Mapping[str, str]


def read_pool(
    source: Source, root: Path, suite: Suite, split: Literal["train", "test"], *, download: bool = False
) -> Pool:
    """One split of a data set, as its adapter finds it."""
    entry = registry.get("datasets", source.adapter)
    plugin = load_dataset(source.adapter)
    resolution = suite.input.resolution or suite.input.size
    request = Request(root, split, download, suite.input.channels, resolution)
    with blaming(f"the data set {entry.name} of {entry.distribution}"):
        pool = plugin.read(request, source.parameters)
        first: NDArray[Any] = np.asarray(pool.images[0]) if len(pool.images) else np.zeros((1, 1), dtype=np.uint8)
    is_image = first.dtype == np.uint8 and first.size and (first.ndim == 2 or (first.ndim == 3 and first.shape[2] == 3))
    if not is_image or pool.labels.shape != (len(pool.images),):
        raise UsageError(
            f"the data set {entry.name} of {entry.distribution} has images of dtype {first.dtype} and shape "
            f"{first.shape}, {len(pool.images)} of them, and labels of shape {pool.labels.shape}; expected uint8 "
            "(H, W) or (H, W, 3), and one label an image."
        )
    return pool


def draw_splits(
    suite: Suite,
    root: Path,
    *,
    download: bool = False,
    limit: int | None = None,
    skip_missing: bool = False,
    track: Track = silent,
) -> SuiteData:
    """Read a suite's data sets, bring them to its input and draw its splits.

    Args:
        suite: The suite.
        root: The data folder.
        download: Whether adapters may use the network.
        limit: At most so many samples in each split but the training one.
        skip_missing: Whether to go on without unknown sets that are not there.
        track: Shows progress.

    Raises:
        DataMissingError: Data sets are not there; names all of them and the command that gets them.
        LeakError: Two data sets share samples.
    """
    sources = suite.sources()
    missing: dict[str, DataMissingError] = {}
    train = meta = test = None
    exposed: dict[str, Split] = {}
    tested: dict[str, Split] = {}
    for name, source in track(sources.items(), len(sources), "reading data"):
        try:
            if name == suite.known_name:
                train, meta, test = _known_splits(suite, name, source, root, download)
            else:
                exposed[name], tested[name] = _unknown_splits(suite, name, source, root, download)
        except DataMissingError as error:
            missing[name] = error
    if train is None or meta is None or test is None or not tested or (missing and not skip_missing):
        raise _all_missing(suite, root, missing, can_skip=train is not None and bool(tested))
    refuse_shared_samples([train, meta, test, *exposed.values(), *tested.values()])
    classes = tuple(int(label) for label in np.unique(train.labels))
    return SuiteData(
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
        LeakError: Names the splits and the number of shared images.
    """
    for one, other in combinations(splits, 2):
        shared = len(np.intersect1d(one.digests, other.digests))
        if shared:
            raise LeakError(
                f"{shared} of the {len(one.labels)} images of {one.dataset} ({one.part}) are also among the "
                f"{len(other.labels)} of {other.dataset} ({other.part}); the sets of a suite must not share samples."
            )


def _known_splits(suite: Suite, name: str, source: Source, root: Path, download: bool) -> tuple[Split, Split, Split]:
    sizes = suite.sizes
    pool = read_pool(source, root, suite, "test", download=download)
    everything = _whole(suite, name, source, pool)
    if pool.split == "all":
        train, meta, test = _cut(everything, ("train", sizes.train), ("meta", sizes.meta), ("test", sizes.test))
    else:
        training = _whole(suite, name, source, read_pool(source, root, suite, "train", download=download))
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


def _unknown_splits(suite: Suite, name: str, source: Source, root: Path, download: bool) -> tuple[Split, Split]:
    everything = _whole(suite, name, source, read_pool(source, root, suite, "test", download=download))
    everything = replace(everything, labels=np.full_like(everything.labels, UNKNOWN_LABEL))
    exposed, unknown = _cut(everything, ("exposed", suite.sizes.exposed), ("unknown", suite.sizes.unknown))
    if not (len(exposed.labels) and len(unknown.labels)):
        given = {"sizes.exposed": suite.sizes.exposed, "sizes.unknown": suite.sizes.unknown}
        shares = " and ".join(f"{key} = {size}" for key, size in given.items() if size is not None)
        raise UsageError(
            f"the unknown set {name} has {_count(everything)}; expected at least one to expose and one to test on"
            + (f", with {shares}." if shares else ".")
        )
    return exposed, unknown


def _count(whole: Split) -> str:
    """How many samples there are, and how many were not counted since their image is there already."""
    n, repeated = len(whole.labels), whole.available - len(whole.labels)
    text = f"{n} sample{'s' if n != 1 else ''}"
    return text + (f" (of {whole.available} images, {repeated} are duplicates)" if repeated else "")


def _whole(suite: Suite, name: str, source: Source, pool: Pool) -> Split:
    """All samples of a pool without duplicates, in the order of their content's hash."""
    plugin = load_dataset(source.adapter)
    with blaming(f"the data set {name}"):
        images = prepare(pool.images, suite.input)
    digests = np.array([hashlib.sha256(image).hexdigest()[:32].encode() for image in images])
    _, order = np.unique(digests, return_index=True)
    given = ",".join(f"{key}={value}" for key, value in source.parameters.items() if key != "path")
    # The path of a user's own files is not part of what they are; their content's hash is.
    adapter = f"{source.adapter}:{given}" if given else source.adapter
    split = Split(
        name,
        "test",
        adapter,
        plugin.card.source,
        pool.split,
        images,
        pool.labels,
        np.arange(len(images), dtype=np.int64),
        digests,
        len(images),
        plugin.card.size.get(pool.split),
        pool.classes,
    )
    return split.subset(order)


def _cut(whole: Split, *parts: tuple[Part, int | None]) -> list[Split]:
    """Consecutive pieces, each sorted by index; where there is not enough for all, they shrink in proportion."""
    n = len(whole.labels)
    # Without sizes, a training split gets as much as the rest together.
    shares = [2.0 if part == "train" and len(parts) > 1 else 1.0 for part, _ in parts]
    wanted = [
        size if size is not None else n * share / sum(shares) for (_, size), share in zip(parts, shares, strict=True)
    ]
    shrink = min(1.0, n / sum(wanted))
    ends = np.cumsum([0] + [int(size * shrink) for size in wanted])
    return [
        replace(whole.subset(np.arange(start, end)[np.argsort(whole.indices[start:end])]), part=part)
        for (start, end), (part, _) in zip(pairwise(ends), parts, strict=True)
    ]


def _relabelled(split: Split, classes: tuple[int, ...]) -> Split:
    strange = np.setdiff1d(split.labels, classes)
    if len(strange):
        name = split.class_names[strange[0]] if 0 <= strange[0] < len(split.class_names) else strange[0]
        raise UsageError(
            f"the class {name} of {split.dataset} ({split.part}) is not among the {len(classes)} classes of its "
            "training split; give it more samples there, or take it out."
        )
    return replace(split, labels=np.searchsorted(classes, split.labels).astype(np.int64))


def _all_missing(
    suite: Suite, root: Path, missing: Mapping[str, DataMissingError], *, can_skip: bool
) -> DataMissingError:
    looked_for = "; ".join(f"{name}: {error.looked_for}" for name, error in missing.items())
    advice = []
    if any(error.downloadable for error in missing.values()):
        advice.append(f"get it with `oodbench data fetch {quote(suite.asked_for)} --data {quote(str(root))}`")
    advice.append("point elsewhere with --data DIR or --set DATASET=ADAPTER:PATH")
    if can_skip:
        advice.append("run without it with --skip-missing")
    error = DataMissingError(looked_for, downloadable=any(one.downloadable for one in missing.values()))
    error.args = (
        f"the suite {suite.name} lacks {' and '.join(missing)} (looked for {looked_for}); {', or '.join(advice)}.",
    )
    return error
