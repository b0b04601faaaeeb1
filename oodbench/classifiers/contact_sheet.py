"""Contact sheet: sample images of a data set as the classifier sees them, for inspection by eye."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow

from oodbench import registry
from oodbench.classifiers.lookup import find_classifier
from oodbench.classifiers.preprocessing import preprocessing_of
from oodbench.datasets.opening import read_pool
from oodbench.datasets.preparation import Prepared
from oodbench.datasets.sources import resolve_source
from oodbench.errors import UsageError
from oodbench.files.atomic import write_output
from oodbench.registry.parameters import split_spec
from oodbench.suites.reading import LoadedSuite, read_suite
from oodbench.suites.schema import Source

ROWS, COLUMNS = 8, 16
GAP = 2
MAGNIFICATION = 2


def draw_sheet(spec: str, suite_name: str | None, root: Path, file: Path, *, download: bool) -> str:
    """Draw 8 rows of 16 images, spread evenly over the data set.

    Args:
        spec: Name of a data set of the suite, or an adapter with parameters (``imagefolder:PATH``).
        suite_name: The suite whose input is used; None takes the first suite that has the data set.
        root: The data folder.
        file: The .png file to write.
        download: Whether the network may be used.

    Returns:
        The suite's name.

    Raises:
        UsageError: The file is no .png, or cannot be written.
    """
    if file.suffix.lower() != ".png":
        raise UsageError(f"the contact sheet {file} should be a .png file.")
    loaded = read_suite(suite_name) if suite_name else _suite_with(spec)
    suite, folders = loaded.suite, loaded.code_folders
    classifier = find_classifier(suite.classifier, folders, as_pretrained=suite.has_preset)
    preprocessing = preprocessing_of(suite, classifier, folders)
    adapter, parameters = split_spec(spec)
    source = suite.sources().get(spec) or Source(adapter=adapter, parameters=parameters)
    pool = read_pool(resolve_source(spec, source), root, preprocessing, "test", download=download)
    chosen = np.linspace(0, len(pool.images) - 1, min(ROWS * COLUMNS, len(pool.images))).astype(int)
    images = _shown(preprocessing.prepare([pool.images[index] for index in chosen]))
    height, width = images.shape[2:]
    side = max(height, width) + GAP
    sheet = np.full((ROWS * side + GAP, COLUMNS * side + GAP, 3), (40, 90, 160), dtype=np.uint8)
    for position, image in enumerate(images):
        top, left = GAP + side * (position // COLUMNS), GAP + side * (position % COLUMNS)
        sheet[top : top + height, left : left + width] = image.transpose(1, 2, 0)
    picture = Pillow.fromarray(sheet)
    enlarged = picture.resize(
        (picture.width * MAGNIFICATION, picture.height * MAGNIFICATION), Pillow.Resampling.NEAREST
    )
    write_output(file, "--sheet", lambda path: enlarged.save(path, format="PNG"))
    return suite.name


def _shown(images: Prepared) -> NDArray[np.uint8]:
    """Images (N, C, H, W) as uint8; those of a transform are stretched from their least to their largest value."""
    if images.dtype == np.uint8:
        return images.astype(np.uint8)
    low, high = images.min(), images.max()
    return np.asarray((images[:, :3] - low) / max(high - low, 1e-6) * 255).round().astype(np.uint8)


def _suite_with(spec: str) -> LoadedSuite:
    """The first registered suite that has the data set; else the first registered suite."""
    suites = [read_suite(name) for name in registry.entries("suites")]
    name = split_spec(spec)[0]
    matching = [
        loaded
        for loaded in suites
        if name in (sources := loaded.suite.sources()) or name in (source.adapter for source in sources.values())
    ]
    return (matching or suites)[0]
