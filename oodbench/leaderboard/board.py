"""A board as plain data: everything that is published, before anything is drawn."""

from pydantic import BaseModel, ConfigDict

from oodbench.comparison.claims import Claim


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True)


class Figure(_Model):
    """A figure of a table.

    Attributes:
        value: Mean over the seeds; None if a seed or a data set is missing.
        low: Lower end of the 95 % interval of the sampling error; None where there is no value.
        high: Its upper end.
        spread: Sample standard deviation over the seeds; None with one seed.
        tied: Whether it cannot be separated from the best of its column; None where this is not tested.
        exposed: Whether the detector saw other samples of the column's data set.
        digits: Decimals that are shown.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    spread: float | None = None
    tied: bool | None = None
    exposed: bool = False
    digits: int = 4


class Column(_Model):
    """A column of a table: the mean of a metric over some data sets.

    Attributes:
        name: Its heading.
        metric: The metric, as records name it.
        datasets: The data sets that the mean is over.
        group: ``near`` or ``far`` where all data sets are of that group, else ``-``.
        ranks: Whether detectors are ranked by it.
        ascending: Whether smaller is better.
    """

    name: str
    metric: str
    datasets: tuple[str, ...]
    group: str = "-"
    ranks: bool = False
    ascending: bool = False


class Row(_Model):
    """The row of a detector in a table.

    Attributes:
        detector: Its name, with parameters where one detector occurs with several.
        exposed: Unknown sets it saw other samples of.
        rank: Its place; None if a figure that ranks is missing.
        rank_low: Best place that the data leave possible.
        rank_high: Worst place that the data leave possible.
        tied: Whether it is one of several detectors that may be the best.
        cost_ms: Milliseconds for each image, evidence and scoring, mean over the seeds.
        price: The same in forward passes of the classifier; None where these were not measured.
        on_front: Whether no cheaper detector of the table has a better figure in the column that ranks.
        figures: Its figures, one for each column.
    """

    detector: str
    exposed: tuple[str, ...] = ()
    rank: int | None
    rank_low: int | None = None
    rank_high: int | None = None
    tied: bool = False
    cost_ms: float | None
    price: float | None = None
    on_front: bool = False
    figures: tuple[Figure, ...]


class Table(_Model):
    """The detectors under one protocol, the best first, those that lack figures last.

    Attributes:
        protocol: The protocol.
        title: Heading.
        caption: What the figures measure.
        columns: The columns.
        rows: The rows.
        notes: Sentences: cells that failed or were skipped, detectors that exposure does not change.
    """

    protocol: str
    title: str
    caption: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()


class LayerCell(_Model):
    """AUROC of one gradient metric of one layer on one unknown set, mean over the seeds; None if missing."""

    metric: str
    layer: str
    dataset: str
    value: float | None
    low: float | None
    high: float | None


class Layers(_Model):
    """AUROC of every gradient metric of every layer; the layer ``all`` stands for all weights.

    Figures are means over ``seeds``, the seeds for which there are records of single layers.
    """

    metrics: tuple[str, ...]
    layers: tuple[str, ...]
    datasets: tuple[str, ...]
    cells: tuple[LayerCell, ...]
    seeds: tuple[int, ...] = ()


class Curve(_Model):
    """ROC curve and score distributions of one detector on one unknown set, unexposed.

    Attributes:
        detector: As in the table of ``unknown-unknowns``.
        dataset: The unknown set.
        fpr: False positive rates, the same grid for all curves.
        tpr: True positive rates at them, mean over the seeds.
        edges: Limits of the histogram's bins, as quantiles of the scores of the first seed.
        right: Share of the rightly classified known samples in each bin.
        wrong: Share of the wrongly classified known samples.
        unknown: Share of the unknown samples.
    """

    detector: str
    dataset: str
    fpr: tuple[float, ...]
    tpr: tuple[float, ...]
    edges: tuple[float, ...]
    right: tuple[float, ...]
    wrong: tuple[float, ...]
    unknown: tuple[float, ...]


class RiskCurve(_Model):
    """Risk-coverage curve of one detector on the known test split, mean over the seeds."""

    detector: str
    coverage: tuple[float, ...]
    risk: tuple[float, ...]


class DetectorStamp(_Model):
    """A detector of the board: its version and the distribution that provides it."""

    name: str
    version: str
    distribution: str


class DatasetStamp(_Model):
    """Samples of the board: how many of the available ones were used, and the SHA-256 of their content."""

    name: str
    adapter: str
    split: str
    n: int
    available: int
    official: int | None
    sha256: str
    source: str


class ClassifierStamp(_Model):
    """The classifier of one seed."""

    seed: int
    name: str
    accuracy: float
    weights_sha256: str


class AcrossRow(_Model):
    """Figures of one detector, one for each classifier; ``tied`` ones are not separable from the classifier's best."""

    detector: str
    figures: tuple[Figure, ...]


class Agreement(_Model):
    """Kendall's τ-b of the detectors' figures with two classifiers, with its 95 % interval over test samples."""

    first: str
    second: str
    value: float
    low: float
    high: float


class AcrossTable(_Model):
    """One figure of the detectors that have it with all classifiers, the best of the mean over classifiers first.

    Attributes:
        title: What the figure is.
        metric: The metric, as records name it.
        datasets: The data sets that the mean is over.
        ranks: Whether detectors are ranked by it.
        rows: The detectors.
        missing: Detectors that lack it with some classifier.
        best: Detectors that may be the best with every classifier, where they are ranked.
        agreements: How far each two classifiers rank the detectors alike, where they are ranked.
    """

    title: str
    metric: str
    datasets: tuple[str, ...]
    ranks: bool
    rows: tuple[AcrossRow, ...]
    missing: tuple[str, ...]
    best: tuple[str, ...] = ()
    agreements: tuple[Agreement, ...] = ()


class Across(_Model):
    """Several classifiers on the same samples.

    Attributes:
        classifiers: The classifiers, in the order of the figures of a row.
        seeds: The seeds of each of them.
        tables: A table for each figure.
        notes: Sentences: sets that not all classifiers were tested on.
    """

    classifiers: tuple[str, ...]
    seeds: tuple[tuple[int, ...], ...]
    tables: tuple[AcrossTable, ...]
    notes: tuple[str, ...] = ()


class Board(_Model):
    """Everything that is published of one suite, or of one of several classifiers on it.

    Attributes:
        suite: Name of the suite.
        version: Its version.
        classifier: The classifier where the suite has boards of several, else empty.
        across: All of them side by side, on the first of their boards; None on others.
        generator: Version of oodbench that made the board.
        records: Number of records.
        digest: SHA-256 over the content of the records.
        seeds: The seeds.
        note: A remark of its publisher.
        subset: A sentence if less than the official data was used, else empty.
        remarks: What was left out, converted, held back or trusted, a sentence each.
        claims: The paper's claims with their outcomes.
        tables: One for each protocol.
        layers: Gradient metrics of single layers; None without such records.
        curves: ROC curves and score distributions.
        risks: Risk-coverage curves.
        datasets: The samples of each split.
        classifiers: The classifiers.
        detectors: The detectors.
        made_with: Versions of the packages that the cells were run with.
        command: The command that makes the board again.
    """

    suite: str
    version: int
    classifier: str = ""
    across: Across | None = None
    generator: str
    records: int
    digest: str
    seeds: tuple[int, ...]
    note: str
    subset: str
    remarks: tuple[str, ...] = ()
    claims: tuple[Claim, ...]
    tables: tuple[Table, ...]
    layers: Layers | None
    curves: tuple[Curve, ...]
    risks: tuple[RiskCurve, ...]
    datasets: tuple[DatasetStamp, ...]
    classifiers: tuple[ClassifierStamp, ...]
    detectors: tuple[DetectorStamp, ...]
    made_with: tuple[str, ...]
    command: str
