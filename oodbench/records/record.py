"""The record of one cell; ``record.v1.schema.json`` beside this file is its JSON schema."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol

from pydantic import BaseModel, ConfigDict

from oodbench.errors import Phase
from oodbench.phases import PhaseCost

# 2: the versions of numerical packages are part of a cell's identity.
IDENTITY_VERSION: Literal[2] = 2
NUMERICAL = ("torch", "torchvision", "numpy", "scikit-learn", "scipy", "pillow")


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class SuitePart(_Part):
    """Which suite, and whether only the first ``limit`` samples of each split were used."""

    name: str
    version: int
    limit: int | None = None


class DetectorPart(_Part):
    """Which detector, with all its parameters, who provides it, and what it learnt (directions, strengths).

    ``version`` is the detector's own where it has one, otherwise that of its distribution; behind ``+`` is a beginning
    of the SHA-256 of a third party's source file. ``given`` are the parameters that the user gave, ``inputs`` the
    detectors whose scores a meta classifier works on.
    """

    name: str
    version: str
    params: dict[str, Any]
    distribution: str
    distribution_version: str | None = None
    given: list[str] = []
    inputs: list["DetectorPart"] = []
    learnt: dict[str, Any] = {}


class ClassifierPart(_Part):
    """Which classifier; accuracy is that on the known test split.

    Beside its weights, what else decides its evidence: how inputs are normalised (mean and standard deviation of each
    channel), which layer the features are the input of, and the hash of the user's file that builds it.
    """

    name: str
    accuracy: float
    weights_sha256: str
    normalisation: tuple[tuple[float, ...], tuple[float, ...]] | None = None
    penultimate: str | None = None
    code: str | None = None


class Metric(_Part):
    """A metric and its 95 % interval; None where a class is missing."""

    value: float | None
    ci_low: float | None = None
    ci_high: float | None = None


class Result(_Part):
    """Metrics of the known test split together with one unknown set, or alone.

    ``n_known`` counts the known samples, ``n_wrong`` those of them with a wrong prediction.
    """

    dataset: str
    role: Literal["known", "unknown"]
    group: Literal["near", "far", "-"]
    n_known: int
    n_wrong: int
    n_unknown: int
    metrics: dict[str, Metric]


class DatasetPart(_Part):
    """The samples that were used: how many of how many, where they are from, and the hash of their content.

    ``available`` is what the adapter found, ``official`` what the authors released in that split.
    """

    adapter: str
    split: str
    n: int
    sha256: str
    source: str
    available: int
    official: int | None = None
    group: Literal["near", "far", "-"] = "-"


class ScoresPart(_Part):
    """The parquet file of per-sample scores, relative to the results folder.

    It is named by its content and may hold test sets that only other records need.
    """

    path: str
    sha256: str
    n: int


class Timing(_Part):
    """Seconds of fitting, milliseconds of scoring for each sample, and of the evidence that the detector works on."""

    fit_s: float
    score_ms_per_sample: float
    evidence_ms_per_sample: float | None = None


class Provenance(_Part):
    """What the cell was run with: versions of packages, the distribution and version of each plugin that took part.

    ``engine`` is that of the gradient metrics.
    """

    versions: dict[str, str]
    plugins: dict[str, str] = {}
    engine: str = ""
    git: str | None
    platform: str
    created: str


class Record(_Part):
    """The immutable result of one cell: suite × seed × protocol × exposure × detector.

    ``phase`` is where a cell without results ended, ``phases`` what those that it went through cost. Evidence that
    several cells share is collected before; ``evidence_batch`` is how many images were taken at once for it, where
    memory was too short for the usual number, so that last bits may be others.
    ``datasets`` has the test samples of a set under its name, and other splits of it as ``name (part)``. ``threshold``
    is the one of ``meta_accuracy``, chosen on the fitting split.
    """

    schema_version: Literal[1] = 1
    identity_version: Literal[1, 2] = 1
    cell_id: str
    status: Literal["ok", "failed", "skipped"]
    phase: Phase | None = None
    error: str | None = None
    traceback: str | None = None
    suite: SuitePart
    protocol: str
    exposed: list[str]
    seed: int
    detector: DetectorPart
    classifier: ClassifierPart
    threshold: float | None = None
    results: list[Result]
    datasets: dict[str, DatasetPart]
    scores: ScoresPart | None = None
    timing: Timing | None = None
    phases: dict[Phase, PhaseCost] = {}
    evidence_batch: int | None = None
    provenance: Provenance


class Classifier(Protocol):
    """What of a classifier decides its evidence; see ``ClassifierPart``."""

    @property
    def weights_sha256(self) -> str:
        """Hash of its state."""

    @property
    def normalisation(self) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
        """Mean and standard deviation of each channel."""

    @property
    def penultimate(self) -> str | None:
        """Name of the last Linear layer."""

    @property
    def code(self) -> str | None:
        """Hash of the user's file that builds it."""


def cell_id(
    suite: SuitePart,
    protocol: str,
    exposed: Sequence[str],
    seed: int,
    detector: DetectorPart,
    classifier: Classifier,
    datasets: Mapping[str, DatasetPart],
    engine: str,
    versions: Mapping[str, str],
    identity_version: int = IDENTITY_VERSION,
) -> str:
    """A hash over everything that can change a score; known before anything is scored.

    Args:
        suite: With the limit on samples.
        protocol: By name.
        exposed: Unknown sets whose exposed samples are fitted on.
        seed: Of the training.
        detector: With its version and all parameters.
        classifier: Its weights and what else decides its evidence.
        datasets: Hashes of all samples, as the classifier sees them.
        engine: Of the gradient metrics.
        versions: Of packages.
        identity_version: 1 for records of before the versions of numerical packages were part of it.
    """
    about = {"normalisation": classifier.normalisation, "penultimate": classifier.penultimate}
    about |= {"code": classifier.code or None}
    known = {
        "suite": suite.model_dump(),
        "protocol": protocol,
        "exposed": list(exposed),
        "seed": seed,
        "detector": _who(detector),
        "weights": classifier.weights_sha256,
        **{key: value for key, value in about.items() if value is not None},
        "datasets": {name: (part.sha256, part.group) for name, part in datasets.items()},
        "engine": engine,
        "oodbench": versions["oodbench"],
    }
    if identity_version > 1:
        known["packages"] = {package: versions[package] for package in NUMERICAL}
    return hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()[:16]


def identity(record: Record) -> str:
    """The ``cell_id`` of what a record itself says.

    Raises:
        KeyError: It lacks the version of a package.
    """
    return cell_id(
        record.suite,
        record.protocol,
        record.exposed,
        record.seed,
        record.detector,
        record.classifier,
        record.datasets,
        record.provenance.engine,
        record.provenance.versions,
        record.identity_version,
    )


def _who(detector: DetectorPart) -> dict[str, Any]:
    known = detector.model_dump(exclude={"learnt", "given", "inputs"})
    # Records of before these fields are still what they were.
    if detector.distribution_version is None:
        del known["distribution_version"]
    if detector.inputs:
        known["inputs"] = [_who(one) for one in detector.inputs]
    return known
