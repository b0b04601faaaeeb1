"""Which data sets of a suite are there."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from oodbench.datasets.adapter import DataMissingError, load_dataset
from oodbench.datasets.sources import check_sources
from oodbench.datasets.splits import read_pool
from oodbench.errors import OodbenchError
from oodbench.suites.suite import Suite


@dataclass(frozen=True)
class Holding:
    """A split of a data set that a suite needs.

    Attributes:
        dataset: Name in the suite.
        split: The adapter's split.
        n: Number of samples found, if any.
        official: Number of samples that its authors released, if they did.
        problem: Why it cannot be used; None if it can.
    """

    dataset: str
    split: str
    n: int | None
    official: int | None
    problem: str | None


def take_inventory(suite: Suite, root: Path, *, download: bool) -> list[Holding]:
    """Look for every split that the suite needs; download what is not there if allowed.

    Raises:
        UsageError: The suite names an adapter or a parameter that there is not.
    """
    check_sources(suite)
    holdings = []
    for name, source in suite.sources().items():
        card = load_dataset(source.adapter).card
        wanted: tuple[Literal["train", "test"], ...] = ("train", "test") if name == suite.known_name else ("test",)
        for split in wanted:
            try:
                pool = read_pool(source, root, suite, split, download=download)
                found = Holding(name, pool.split, len(pool.images), card.size.get(pool.split), None)
            except DataMissingError as missing:
                found = Holding(name, split, None, card.size.get(split), f"missing: {missing}")
            except OodbenchError as error:
                found = Holding(name, split, None, card.size.get(split), str(error))
            if found not in holdings:
                holdings.append(found)
    return holdings
