"""Contact sheet: sample images of a data set as the classifier sees them, for inspection by eye."""

from pathlib import Path

import numpy as np
from PIL import Image as Pillow

from oodbench import registry
from oodbench.datasets.preparation import prepare
from oodbench.datasets.sources import resolve_source
from oodbench.datasets.splits import read_pool
from oodbench.errors import UsageError
from oodbench.files.atomic import write_output
from oodbench.registry.parameters import split_spec
from oodbench.suites.reading import read_suite
from oodbench.suites.schema import Source, Suite

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
    suite = read_suite(suite_name).suite if suite_name else _suite_with(spec)
    adapter, parameters = split_spec(spec)
    source = suite.sources().get(spec) or Source(adapter=adapter, parameters=parameters)
    pool = read_pool(resolve_source(spec, source), root, suite.input, "test", download=download)
    chosen = np.linspace(0, len(pool.images) - 1, min(ROWS * COLUMNS, len(pool.images))).astype(int)
    images = prepare([pool.images[index] for index in chosen], suite.input)
    side = suite.input.size + GAP
    sheet = np.full((ROWS * side + GAP, COLUMNS * side + GAP, 3), (40, 90, 160), dtype=np.uint8)
    for position, image in enumerate(images):
        top, left = GAP + side * (position // COLUMNS), GAP + side * (position % COLUMNS)
        sheet[top : top + suite.input.size, left : left + suite.input.size] = image.transpose(1, 2, 0)
    picture = Pillow.fromarray(sheet)
    enlarged = picture.resize(
        (picture.width * MAGNIFICATION, picture.height * MAGNIFICATION), Pillow.Resampling.NEAREST
    )
    write_output(file, "--sheet", lambda path: enlarged.save(path, format="PNG"))
    return suite.name


def _suite_with(spec: str) -> Suite:
    """The first registered suite that has the data set; else the first registered suite."""
    suites = [read_suite(name).suite for name in registry.entries("suites")]
    name = split_spec(spec)[0]
    matching = [
        suite
        for suite in suites
        if name in suite.sources() or name in (source.adapter for source in suite.sources().values())
    ]
    return (matching or suites)[0]
