"""The splits of a suite, with the preprocessing that its keys say."""

from oodbench.datasets.drawing import Selection, draw_splits
from oodbench.datasets.preparation import Preprocessing
from oodbench.datasets.sources import resolve_sources
from oodbench.machine.progress import silent


def draw(suite, root, *, download=False, classes=None, track=silent, **selection):
    return draw_splits(
        suite,
        resolve_sources(suite),
        Preprocessing(suite.suite.input),
        root,
        classes=classes,
        download=download,
        selection=Selection(**selection),
        track=track,
    )
