"""Disjoint splits of a suite's data sets, drawn in the order of the hash of each image.

The order of the hashes is as good as a random order, needs no seed and is the same on every machine. Equal images have
equal hashes, so that duplicates inside a data set are dropped and no image is in two splits.
"""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from itertools import combinations, pairwise
from pathlib import Path
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from oodbench.datasets.adapter import Decoded, LazyImages, Pool, official_size
from oodbench.datasets.classes import name_of, outputs_by_label, outputs_of_shifted
from oodbench.datasets.decoding import Pictures
from oodbench.datasets.inspection import (
    InspectedPool,
    decoded_image,
    inspect_pool,
    prepared_digest,
    source_digest,
)
from oodbench.datasets.kept_digests import DigestStore
from oodbench.datasets.opening import OpenedSet, OpenedSuite, open_suite
from oodbench.datasets.preparation import Prepared, Preprocessing
from oodbench.datasets.sources import ResolvedSource
from oodbench.datasets.splits import UNKNOWN_LABEL, Split, SuiteSplits, Use
from oodbench.errors import LeakError, UsageError, listed
from oodbench.machine.progress import Track, silent
from oodbench.suites.reading import LoadedSuite
from oodbench.suites.schema import Sizes, Suite

# Why samples are left out of held-out splits.
IN_TRAINING, IN_TEST = "images that are training images, too", "images that are test images, too"


@dataclass(frozen=True)
class Selection:
    """Which samples are taken.

    Attributes:
        limit: Maximum number of samples in each split except the training split.
        skip_missing: Whether to go on without unknown sets whose files are missing.
        skip_unreadable: Whether to go on without images that cannot be read.
        drop_shared: Whether images that an unknown set shares with another set are taken from it.
    """

    limit: int | None = None
    skip_missing: bool = False
    skip_unreadable: bool = False
    drop_shared: bool = False


def draw_splits(
    suite: LoadedSuite,
    sources: Mapping[str, ResolvedSource],
    preprocessing: Preprocessing,
    root: Path,
    *,
    classes: Sequence[str] | None = None,
    download: bool = False,
    selection: Selection = Selection(),
    kept: Path | None = None,
    track: Track = silent,
) -> SuiteSplits:
    """Read a suite's data sets, and draw its splits.

    Args:
        suite: The suite.
        sources: Its data sets, the known set first.
        preprocessing: The classifier's preprocessing.
        root: The data folder.
        classes: The class that each output of the classifier stands for; None takes the known classes, sorted.
        download: Whether adapters may use the network.
        selection: Which samples are taken.
        kept: Folder of the cache where digests of files are kept; None keeps none.
        track: Shows progress.

    Raises:
        DataMissingError: Data sets are missing; the message names all of them, and the command to download them.
        UsageError: Data sets cannot be used, or images cannot be read; the message names the first ones.
        LeakError: Two splits share an image.
    """
    store = DigestStore(kept)
    opened = open_suite(
        suite, sources, preprocessing, root, download=download, skip_missing=selection.skip_missing, store=store
    )
    preprocessing = opened.preprocessing
    name, sizes = suite.suite.known_name, suite.suite.sizes
    outputs = outputs_by_label(opened.known.pools, classes, name)
    inspected = _inspect(opened, preprocessing, suite, store, track)
    _refuse_unreadable(inspected, skip=selection.skip_unreadable)
    known = [_whole(opened.known.source, preprocessing, pool, suite.suite) for pool in inspected[name]]
    has_weights = suite.suite.weights is not None
    train, meta, test = _known_splits(opened.known, known, sizes, has_weights=has_weights)
    wholes = {
        name: replace(whole, labels=np.full_like(whole.labels, UNKNOWN_LABEL))
        for name, unknown in (*opened.unknown.items(), *opened.validation.items())
        for whole in [_whole(unknown.source, preprocessing, inspected[name][0], suite.suite)]
    }
    wholes |= {
        name: _relabelled(whole, outputs_of_shifted(shifted.test, opened.known.test, outputs, classes, name))
        for name, shifted in opened.covariate.items()
        for whole in [_whole(shifted.source, preprocessing, inspected[name][0], suite.suite)]
    }
    # What is made from the known set has its positions, and is of its test samples alone.
    wholes |= {
        name: wholes[name].subset(np.flatnonzero(np.isin(wholes[name].indices, test.indices)))
        for name in opened.covariate
        if suite.suite.shifts_known(name)
    }
    known_splits = [split for split in (train, meta, test) if split is not None]
    if selection.drop_shared:
        wholes = _without_shared(known_splits, wholes)
    cut = {name: _unknown_splits(wholes[name], sizes) for name in opened.unknown}
    exposed = {name: split for name, (split, _) in cut.items() if len(split.labels)}
    tested = {name: split for name, (_, split) in cut.items()}
    validation = {name: _uncut(wholes[name], "validation") for name in opened.validation}
    covariate = {name: _uncut(wholes[name], "covariate") for name in opened.covariate}
    further = [*tested.values(), *covariate.values(), *validation.values()]
    refuse_shared_samples([*known_splits, *exposed.values(), *further])
    refuse_shared_originals([*known_splits, *exposed.values(), *further])
    if train is not None and not has_weights:
        trained_on = {int(label) for label in np.unique(train.labels)}
        _refuse_untrained(train, [meta, test], opened.known.test)
        if classes is None:
            outputs = {label: output for output, label in enumerate(sorted(trained_on))}
    untested = _untested(test, meta, outputs, opened.known.test)
    if untested:
        test = replace(test, left_out={**test.left_out, "classes without test images": len(untested)})
    remarks = [f"{name} is left out: looked for {looked_for}." for name, looked_for in opened.missing.items()]
    remarks += [f"classes of {name} without test images: {listed(untested)}."] if untested else []
    remarks += [sentence for split in (test, *further) for sentence in _remarks_on(split)]
    return SuiteSplits(
        tuple(classes) if classes is not None else tuple(name_of(opened.known.test, label) for label in outputs),
        None if train is None else _relabelled(train, outputs),
        _relabelled(meta, outputs).first(selection.limit),
        _relabelled(test, outputs).first(selection.limit),
        {name: split.first(selection.limit) for name, split in exposed.items()},
        {name: split.first(selection.limit) for name, split in tested.items()},
        {name: split.first(selection.limit) for name, split in validation.items()},
        {name: split.first(selection.limit) for name, split in covariate.items()},
        opened.missing,
        preprocessing,
        tuple(remarks),
    )


def refuse_shared_samples(splits: Sequence[Split]) -> None:
    """Stop if the same image is in two of the splits.

    Raises:
        LeakError: Two splits share images; the message says how many, and names the first three.
    """
    for first, second in combinations(splits, 2):
        shared, in_first, in_second = np.intersect1d(first.digests, second.digests, return_indices=True)
        if len(shared):
            pairs = [
                f"{first.name_of(int(first.indices[i]))} and {second.name_of(int(second.indices[j]))}"
                for i, j in zip(in_first, in_second, strict=True)
            ]
            raise LeakError(
                f"{len(shared)} of the {len(first.labels)} images of {first.dataset} ({first.use}) are also among the "
                f"{len(second.labels)} of {second.dataset} ({second.use}): {listed(pairs, 3)}; the sets of a suite "
                "must not share samples, so take them out, or have them taken from the unknown set by --drop-shared."
            )


def refuse_shared_originals(splits: Sequence[Split]) -> None:
    """Stop if images of a split are made from images of another one, but for known test samples under a shift.

    Raises:
        LeakError: They are; the message says how many.
    """
    for made in splits:
        for other in splits:
            if made.originals is None or other is made or (made.use == "covariate" and other.use == "test"):
                continue
            of_other = other.digests if other.originals is None else other.originals
            is_shared = np.isin(made.originals, of_other[of_other != b""])
            if is_shared.any() and not (made.use == other.use and made.use in ("covariate", "unknown")):
                raise LeakError(
                    f"{int(is_shared.sum())} of the {len(made.labels)} images of {made.dataset} ({made.use}) are made "
                    f"from images of {other.dataset} ({other.use}); expected ones that are made from other images, or "
                    'from the known test samples with group = "covariate".'
                )


def _inspect(
    opened: OpenedSuite, preprocessing: Preprocessing, suite: LoadedSuite, store: DigestStore, track: Track
) -> dict[str, list[InspectedPool]]:
    """Decode all images of all pools, by data set."""
    sets = {suite.suite.known_name: opened.known, **opened.unknown, **opened.validation, **opened.covariate}
    pools = [(name, pool) for name, opened_set in sets.items() for pool in opened_set.pools]
    inspected: dict[str, list[InspectedPool]] = {}
    for name, pool in track(pools, len(pools), "reading data"):
        seen = inspect_pool(pool, preprocessing, suite.suite.drawing, name, store)
        if pool.made_from is not None:
            originals = inspect_pool(pool.made_from, preprocessing, suite.suite.drawing, name, store)
            seen = replace(seen, originals=originals.digests)
        inspected.setdefault(name, []).append(seen)
    return inspected


def _refuse_unreadable(inspected: Mapping[str, Sequence[InspectedPool]], *, skip: bool) -> None:
    """Stop if images cannot be read, or say that the run goes on without them.

    Raises:
        UsageError: Images cannot be read; the message names the first ten.
    """
    reasons = [
        f"{name}: {reason.rstrip('.')}"
        for name, pools in inspected.items()
        for pool in pools
        for reason in pool.unreadable.values()
    ]
    if reasons and not skip:
        number = f"{len(reasons):,} image{'s' if len(reasons) != 1 else ''}"
        raise UsageError(
            f"{number} cannot be read ({listed(reasons)}); replace or remove them, "
            "or go on without them by --skip-unreadable."
        )


def _known_splits(
    opened: OpenedSet, wholes: Sequence[Split], sizes: Sizes, *, has_weights: bool
) -> tuple[Split | None, Split, Split]:
    """The training, meta and test split of the known set.

    Args:
        opened: The known set.
        wholes: All samples of its pools.
        sizes: Sizes of the splits.
        has_weights: Whether the classifier's weights are given, and may come of any training image.
    """
    name, everything = opened.source.name, wholes[0]
    training = wholes[-1] if opened.train is not None else None
    train: Split | None = None
    if opened.is_cut:
        train, meta, test = _cut(everything, ("train", sizes.train), ("meta", sizes.meta), ("test", sizes.test))
    else:
        if training is not None:
            (train,) = _cut(training, ("train", sizes.train))
        unseen = _without(everything, training if has_weights else train, IN_TRAINING)
        if opened.test.validation is None:
            meta, test = _cut(unseen, ("meta", sizes.meta), ("test", sizes.test))
        else:
            (test,) = _cut(unseen, ("test", sizes.test))
            validation = _without(_without(wholes[1], unseen, IN_TEST), training, IN_TRAINING)
            (meta,) = _cut(validation, ("meta", sizes.meta))
    if not (len(meta.labels) and len(test.labels)) or (train is not None and not len(train.labels)):
        needed = "meta and test" if train is None else "train, meta and test"
        raise UsageError(f"the known set {name} has {_count(everything)}; too few for {needed}.")
    if len({int(label) for split in (train, meta, test) if split is not None for label in split.labels}) < 2:
        raise UsageError(f"the known set {name} has one class only; a classifier needs at least two.")
    if train is not None and len(np.unique(train.labels)) < 2:
        now = "" if sizes.train is None else f", which is {sizes.train}"
        raise UsageError(
            f"the training samples of the known set {name} ({len(train.labels)}) are of one class only; a classifier "
            f"needs at least two, so add samples or raise sizes.train{now}."
        )
    return train, meta, test


def _unknown_splits(whole: Split, sizes: Sizes) -> tuple[Split, Split]:
    """The exposed and the tested samples of an unknown set."""
    exposed, unknown = _cut(whole, ("exposed", sizes.exposed), ("unknown", sizes.unknown))
    if not len(unknown.labels) or not (len(exposed.labels) or sizes.exposed == 0):
        limits = {"sizes.exposed": sizes.exposed, "sizes.unknown": sizes.unknown}
        shares = " and ".join(f"{key} = {size}" for key, size in limits.items() if size is not None)
        raise UsageError(
            f"the unknown set {whole.dataset} has {_count(whole)}; expected at least one to expose and one to test "
            "on" + (f", with {shares}." if shares else ".")
        )
    return exposed, unknown


def _uncut(whole: Split, use: Use) -> Split:
    """All samples of a set, for one use."""
    (split,) = _cut(whole, (use, None))
    if not len(split.labels):
        raise UsageError(f"the {use} set {whole.dataset} has {_count(whole)}; expected at least one.")
    return split


def _without(split: Split, others: Split | None, reason: str) -> Split:
    """The samples of a split that are not among others, if there are others, with the number of those left out."""
    if others is None:
        return split
    is_shared = np.isin(split.digests, others.digests)
    if not is_shared.any():
        return split
    left_out = {**split.left_out, reason: split.left_out.get(reason, 0) + int(is_shared.sum())}
    return replace(split.subset(np.flatnonzero(~is_shared)), left_out=left_out)


def _without_shared(known: Sequence[Split], wholes: Mapping[str, Split]) -> dict[str, Split]:
    """The unknown sets without images that are in the known set or in an unknown set before."""
    before, kept = list(known), {}
    for name, whole in wholes.items():
        left = whole
        for other in before:
            left = _without(left, other, f"images that are in {other.dataset}, too")
        kept[name] = left
        before.append(left)
    return kept


def _count(whole: Split) -> str:
    """The number of samples in words, with the number of those that were left out."""
    n = len(whole.labels)
    text = f"{n} sample{'s' if n != 1 else ''}"
    reasons = ", ".join(f"{count} {reason}" for reason, count in whole.left_out.items())
    return text + (f" (of {whole.available} images, {reasons})" if reasons else "")


def _untested(test: Split, meta: Split, outputs: Mapping[int, int], pool: Pool) -> list[str]:
    """Names of the known classes that have no held-out image at all."""
    held_out = {int(label) for label in (*test.labels, *meta.labels)}
    return [name_of(pool, label) for label in outputs if label not in held_out]


def _remarks_on(split: Split) -> list[str]:
    """Sentences on what was left out of a data set, and what was converted."""
    return [
        f"{what} {split.dataset}: {', '.join(f'{count:,} {reason}' for reason, count in counts.items())}."
        for what, counts in (("left out of", split.left_out), ("in", split.remarks))
        if counts
    ]


def _whole(source: ResolvedSource, preprocessing: Preprocessing, inspected: InspectedPool, suite: Suite) -> Split:
    """All readable samples of a pool in the order of their hashes, without duplicates; its use is provisional."""
    pool, drawing = inspected.pool, suite.drawing
    n = len(pool.images)
    readable = np.array([i for i in range(n) if i not in inspected.unreadable], dtype=np.intp)
    _, first = np.unique(inspected.digests[readable], return_index=True)
    duplicates = len(readable) - len(first)
    left_out = {f"files that {reason}": count for reason, count in pool.left_out.items()}
    left_out["images that cannot be read"] = len(inspected.unreadable)
    said = {**inspected.remarks, **pool.remarks}
    remarks = {f"images that {remark}": count for remark, count in said.items()}
    if suite.duplicates == "keep":
        order = readable[np.argsort(inspected.digests[readable], kind="stable")]
        remarks |= {"duplicates that are kept": duplicates} if duplicates else {}
        is_labelled = source.name == suite.known_name or source.source.group == "covariate"
        contradictory = _with_other_labels(inspected, order) if is_labelled else 0
        remarks |= {"of these with another label than the one before": contradictory} if contradictory else {}
    else:
        order = readable[first]
        left_out["duplicates"] = duplicates

    one_at_a_time = nullcontext() if isinstance(pool.images, Pictures | np.ndarray) else Lock()

    def refuse_other(digest: bytes, position: int) -> None:
        if digest != inspected.digests[position]:
            raise UsageError(
                f"{inspected.name_of(position)} of {source.name} is not what it was when the data were read: it was "
                "changed meanwhile; leave the files alone while a run goes on, and run again."
            )

    def read(indices: NDArray[np.int64]) -> Prepared:
        if isinstance(pool.images, np.ndarray):
            return preprocessing.prepare(pool.images[indices])

        def image(number: int) -> Decoded:
            position = int(indices[number])
            with one_at_a_time:  # an adapter need not expect several threads
                decoded = decoded_image(pool, position)
            if drawing == "source":
                refuse_other(source_digest(decoded.pixels), position)
            return decoded

        prepared = preprocessing.prepare(LazyImages(len(indices), image))  # one decoded picture in memory at a time
        if drawing == "prepared":
            for number, position in enumerate(indices):
                refuse_other(prepared_digest(prepared[number]), int(position))
        return prepared

    card = source.plugin.card
    split = Split(
        dataset=source.name,
        use="test",
        adapter=source.adapter,
        source=card.source,
        origin=pool.split,
        read=read,
        labels=pool.labels,
        indices=np.arange(n, dtype=np.int64),
        digests=inspected.digests,
        available=n,
        official=official_size(pool, card),
        name_of=inspected.name_of,
        left_out={reason: count for reason, count in left_out.items() if count},
        remarks=remarks,
        originals=inspected.originals,
    )
    return split.subset(order)


def _with_other_labels(inspected: InspectedPool, order: NDArray[np.intp]) -> int:
    """How many samples are equal to the one before them, and have another label; the samples in order of hashes."""
    digests, labels = inspected.digests[order], inspected.pool.labels[order]
    return int(((digests[1:] == digests[:-1]) & (labels[1:] != labels[:-1])).sum())


def _cut(whole: Split, *uses: tuple[Use, int | None]) -> list[Split]:
    """Cut samples into consecutive splits for the uses, each sorted by index.

    Sizes of None share what the others leave, and get at least their share of all. If the samples do not suffice,
    all splits shrink in proportion.
    """
    n = len(whole.labels)
    # Without sizes, a training split gets as much as the rest together.
    shares = [2.0 if use == "train" and len(uses) > 1 else 1.0 for use, _ in uses]
    left = n - sum(size for _, size in uses if size is not None)
    open_shares = sum(share for (_, size), share in zip(uses, shares, strict=True) if size is None)
    sizes = [
        size if size is not None else max(n * share / sum(shares), left * share / open_shares)
        for (_, size), share in zip(uses, shares, strict=True)
    ]
    shrink = min(1.0, n / max(1, sum(sizes)))
    ends = [0, *(_after_equal_ones(whole, int(end)) for end in np.cumsum([int(size * shrink) for size in sizes]))]
    return [
        replace(whole.subset(np.arange(start, end)[np.argsort(whole.indices[start:end])]), use=use)
        for (start, end), (use, _) in zip(pairwise(ends), uses, strict=True)
    ]


def _after_equal_ones(whole: Split, end: int) -> int:
    """The end of a split, moved behind images that equal its last one, if such are kept."""
    return end if end == 0 else int(np.searchsorted(whole.digests, whole.digests[end - 1], side="right"))


def _relabelled(split: Split, outputs: Mapping[int, int]) -> Split:
    labels = [outputs[int(label)] for label in split.labels]
    return replace(split, labels=np.array(labels, dtype=np.int64))


def _refuse_untrained(train: Split, held_out: Sequence[Split], pool: Pool) -> None:
    """Refuse classes that were drawn into a held-out split and not into the training split.

    Raises:
        UsageError: There are such classes.
    """
    for split in held_out:
        strange = [name_of(pool, int(label)) for label in np.setdiff1d(split.labels, train.labels)]
        if strange:
            raise UsageError(
                f"the class {listed(strange, 3)} of {split.dataset} ({split.use}) is not among the "
                f"{len(np.unique(train.labels))} classes of its training split; give it more samples there, or take it "
                "out."
            )
