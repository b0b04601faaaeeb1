"""Inventory: which data sets of a suite are available."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from oodbench.datasets.adapter import DataMissingError, NoSuchSplitError, official_size
from oodbench.datasets.opening import read_pool
from oodbench.datasets.preparation import Preprocessing
from oodbench.datasets.sources import resolve_sources
from oodbench.errors import OodbenchError
from oodbench.suites.reading import LoadedSuite


@dataclass(frozen=True)
class Holding:
    """A split of a data set that a suite needs.

    Attributes:
        dataset: Name in the suite.
        split: Split of the adapter: ``train``, ``test`` or ``all``.
        n: Number of samples; None if the split cannot be read.
        official: Number of samples in the authors' release, if the suite or the card states it.
        problem: Why the split cannot be used; None if it can.
    """

    dataset: str
    split: str
    n: int | None
    official: int | None
    problem: str | None


def take_inventory(suite: LoadedSuite, root: Path, *, download: bool) -> list[Holding]:
    """Read every split that the suite needs; missing data are downloaded if that is allowed.

    Raises:
        UsageError: The suite names an unknown adapter or parameter.
    """
    holdings = []
    for name, source in resolve_sources(suite).items():
        card = source.plugin.card
        needed: tuple[Literal["train", "test"], ...] = (
            ("train", "test") if name == suite.suite.known_name else ("test",)
        )
        for split in needed:
            try:
                pool = read_pool(source, root, Preprocessing(suite.suite.input), split, download=download)
                holding = Holding(name, pool.split, len(pool.images), official_size(pool, card), None)
            except NoSuchSplitError as error:
                if suite.suite.weights is not None and split == "train":
                    continue  # with given weights, nothing is trained
                holding = Holding(name, split, None, card.size.get(split), str(error))
            except DataMissingError as missing:
                holding = Holding(name, split, None, card.size.get(split), f"missing: {missing}")
            except OodbenchError as error:
                holding = Holding(name, split, None, card.size.get(split), str(error))
            if holding not in holdings:
                holdings.append(holding)
    return holdings
