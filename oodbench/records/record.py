"""The record of one cell; ``record.v1.schema.json`` beside this file is its JSON schema."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from oodbench.errors import Phase
from oodbench.evaluation.results import Result
from oodbench.machine.phases import PhaseCost
from oodbench.suites.schema import Group

# Since 2, the versions of numerical packages are in a cell's identity.
IDENTITY_VERSION: Literal[2] = 2
NUMERICAL = ("torch", "torchvision", "numpy", "scikit-learn", "scipy", "pillow")
# The version of a suite whose scores were imported, since they do not say of which version they are.
NO_VERSION = 0


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class RecordedSuite(_Model):
    """The suite; with ``limit``, at most so many samples of each split but the training one were used.

    ``missing`` names its unknown sets that were left out, as their files were not there.
    """

    name: str
    version: int
    limit: int | None = None
    missing: list[str] = []


class RecordedDetector(_Model):
    """The detector with all its parameters, the distribution that provides it, and what it learnt.

    ``version`` is the detector's own where it has one, otherwise that of its distribution; after ``+`` follows the
    beginning of the SHA-256 of a third party's code. ``given`` are the parameters that the user gave, ``inputs``
    the detectors whose scores a meta classifier works on.
    """

    name: str
    version: str
    params: dict[str, Any]
    distribution: str
    distribution_version: str | None = None
    given: list[str] = []
    inputs: list["RecordedDetector"] = []
    learnt: dict[str, Any] = {}


class ClassifierIdentity(_Model):
    """What decides the evidence of a classifier.

    ``normalisation`` has the mean and the standard deviation of each input channel, ``penultimate`` names the layer
    whose input are the features, and ``code`` is the hash of what defines the network beside its weights.
    ``preprocessing`` says how images are prepared; it is missing where the splits are drawn by the prepared images,
    whose hashes stand for it. ``network`` numbers networks that share all of that and compute something else.
    ``device`` is the type of the device that computed it and ``precision`` how; they are missing for float32 on the
    processor. ``members`` has the hashes of the weights of an ensemble's networks, by seed.
    """

    weights_sha256: str
    normalisation: tuple[tuple[float, ...], tuple[float, ...]] | None = None
    penultimate: str | None = None
    code: str | None = None
    preprocessing: dict[str, Any] | None = None
    network: int | None = None
    device: str | None = None
    precision: str | None = None
    members: dict[str, str] | None = None


class _Measured(_Model):
    name: str
    accuracy: float


class RecordedClassifier(ClassifierIdentity, _Measured):
    """The classifier: what decides its evidence, and what was found of it.

    ``accuracy`` is that on the known test split. ``weights_from`` is the end of the path of its weights, such as
    ``runA/s{seed}/best.ckpt``, or says that they are pretrained or given; it is missing for one that was trained for
    the run. ``probe`` has numbers that stand for its outputs on fixed pictures and on some samples of each test set;
    ``trusted`` has what was found strange about it and was trusted all the same.
    """

    weights_from: str | None = None
    probe: dict[str, list[float]] = {}
    trusted: list[str] = []


class RecordedDataset(_Model):
    """The samples that were used: their number, their source, and the hash of their content.

    ``available`` is what the adapter found, ``official`` what the authors released in that split, ``held_back`` how
    many samples are kept for exposure and not tested on. ``left_out`` and ``converted`` count what was left out of the
    data set, and images that were converted, by the reason.
    """

    adapter: str
    split: str
    n: int
    sha256: str
    source: str
    available: int
    official: int | None = None
    group: Group = "-"
    held_back: int | None = None
    left_out: dict[str, int] = {}
    converted: dict[str, int] = {}


class RecordedScores(_Model):
    """The parquet file of per-sample scores, relative to the results folder.

    It is named by its content and may hold test sets that only other records need.
    """

    path: str
    sha256: str
    n: int


class Timing(_Model):
    """Seconds of fitting, and milliseconds for each sample of scoring and of the evidence that the detector needs.

    ``forward_ms_per_sample`` is what a forward pass of the classifier takes, measured as the evidence is.
    """

    fit_s: float
    score_ms_per_sample: float
    evidence_ms_per_sample: float | None = None
    forward_ms_per_sample: float | None = None


class Provenance(_Model):
    """The software and machine of a cell: versions of packages, distribution and version of each plugin that took part.

    ``engine`` is the version of the engine of gradient metrics.
    """

    versions: dict[str, str]
    plugins: dict[str, str] = {}
    engine: str = ""
    git: str | None
    platform: str
    created: str


class Imported(_Model):
    """Where imported scores were read, which were computed elsewhere.

    ``file`` is the name of the file and ``sha256`` the hash of its content; ``convention`` is what larger scores mean
    in it. ``orders`` has the hash of the indices and labels of each data set: all that is known of its samples.
    """

    format: str
    file: str
    sha256: str
    convention: str
    orders: dict[str, str]


class Record(_Model):
    """The immutable result of one cell: suite × seed × protocol × exposure × detector.

    ``phase`` is the phase in which a cell without results ended, ``phases`` the cost of each phase. Evidence that
    several cells share is collected before these; ``evidence_batch`` is its batch size where memory did not suffice for
    the usual one, so that last bits may differ. ``datasets`` has the test samples of a set under its name, and other
    splits of it as ``name (use)``. ``threshold`` is that of ``meta_accuracy``, chosen on the known meta split and the
    exposed samples. With ``imported``, the scores were computed elsewhere; what is not known of them is left empty,
    such as the hashes of weights and data, and versions.
    """

    schema_version: Literal[1] = 1
    identity_version: Literal[1, 2] = 1
    cell_id: str
    status: Literal["ok", "failed", "skipped"]
    phase: Phase | None = None
    error: str | None = None
    traceback: str | None = None
    suite: RecordedSuite
    protocol: str
    exposed: list[str]
    seed: int
    detector: RecordedDetector
    classifier: RecordedClassifier
    threshold: float | None = None
    results: list[Result]
    datasets: dict[str, RecordedDataset]
    scores: RecordedScores | None = None
    timing: Timing | None = None
    phases: dict[Phase, PhaseCost] = {}
    evidence_batch: int | None = None
    imported: Imported | None = None
    provenance: Provenance


def cell_id(
    suite: RecordedSuite,
    protocol: str,
    exposed: Sequence[str],
    seed: int,
    detector: RecordedDetector,
    classifier: ClassifierIdentity,
    datasets: Mapping[str, RecordedDataset],
    engine: str,
    versions: Mapping[str, str],
    identity_version: int = IDENTITY_VERSION,
) -> str:
    """The identity of a cell: a hash over everything that can change a score, known before anything is scored.

    Args:
        suite: The suite, with its limit on samples.
        protocol: Name of the protocol.
        exposed: Unknown sets whose exposed samples the detector is fitted on.
        seed: Seed of the classifier's training.
        detector: The detector, with its version and all parameters.
        classifier: What decides the classifier's evidence.
        datasets: Hashes of all samples, as the classifier sees them.
        engine: Version of the engine of gradient metrics.
        versions: Versions of packages.
        identity_version: 1 for old records, whose identity leaves out the versions of numerical packages.
    """
    about: dict[str, Any] = {"normalisation": classifier.normalisation, "penultimate": classifier.penultimate}
    about |= {"code": classifier.code or None, "preprocessing": classifier.preprocessing}
    about |= {"network": classifier.network or None, "device": classifier.device, "precision": classifier.precision}
    about |= {"members": classifier.members}
    known = {
        "suite": {key: value for key, value in suite if key != "missing"},
        "protocol": protocol,
        "exposed": list(exposed),
        "seed": seed,
        "detector": _who(detector),
        "weights": classifier.weights_sha256,
        **{key: value for key, value in about.items() if value is not None},
        "datasets": {name: (dataset.sha256, dataset.group) for name, dataset in datasets.items()},
        "engine": engine,
        "oodbench": versions["oodbench"],
    }
    if identity_version > 1:
        known["packages"] = {package: versions[package] for package in NUMERICAL}
    return hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()[:16]


def identity(record: Record) -> str:
    """The ``cell_id`` that follows from the fields of a record.

    Raises:
        KeyError: The record lacks the version of a package.
    """
    if record.imported is not None:
        return imported_cell_id(
            record.suite, record.protocol, record.seed, record.detector, record.datasets, record.imported
        )
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


def imported_cell_id(
    suite: RecordedSuite,
    protocol: str,
    seed: int,
    detector: RecordedDetector,
    datasets: Mapping[str, RecordedDataset],
    imported: Imported,
) -> str:
    """The identity of a cell of imported scores: a hash over the file and over what the user says of it.

    Args:
        suite: The suite.
        protocol: Name of the protocol.
        seed: The seed.
        detector: The detector.
        datasets: The data sets that it is of.
        imported: The file; its name does not count.
    """
    known = {
        "suite": suite.name,
        "protocol": protocol,
        "seed": seed,
        "detector": _who(detector),
        "datasets": {name: dataset.group for name, dataset in datasets.items()},
        "imported": imported.model_dump(exclude={"file"}),
    }
    return hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()[:16]


def samples_of(record: Record, name: str) -> str:
    """What says which samples a data set of a record has; equal for equal ones, and empty if there is no such data set.

    It is the hash of their content. Of imported scores only the indices and labels are known, so that equal ones are
    taken for the same samples among them, and never for those of records that are not imported.
    """
    if name not in record.datasets:
        return ""
    if record.imported is None:
        return record.datasets[name].sha256
    return f"imported {record.imported.orders.get(name, '')}"


def _who(detector: RecordedDetector) -> dict[str, Any]:
    known = {key: value for key, value in detector if key not in ("learnt", "given", "inputs")}
    # Fields that old records lack are left out, so that their identity stays the same.
    if detector.distribution_version is None:
        del known["distribution_version"]
    if detector.inputs:
        known["inputs"] = [_who(source) for source in detector.inputs]
    return known
