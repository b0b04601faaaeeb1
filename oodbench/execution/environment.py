"""The versions and data that have to be the same on all workers of a run."""

from oodbench.detectors.selection import SelectedDetector
from oodbench.evidence.caching import engine
from oodbench.records.provenance import versions
from oodbench.runs.prepared import PreparedRun


def environment_fingerprint(run: PreparedRun) -> dict[str, str]:
    """Versions of packages and detectors and hashes of all samples, by a description for error messages."""
    splits = run.splits
    training = [] if splits.train is None else [splits.train]
    unknown = [*splits.exposed.values(), *splits.unknown.values(), *splits.validation.values()]
    all_splits = [*training, splits.meta, splits.test, *splits.covariate.values(), *unknown]
    return {
        **{f"the version of {package}": version for package, version in versions().items()},
        "the gradient engine": engine(run.resolved.computing.gradient_device),
        "the type of the device": run.resolved.computing.device.type,
        "the classifier's code": run.resolved.classifier.code,
        **{f"the hash of {split.dataset} ({split.use})": split.sha256[:16] for split in all_splits},
        **{
            f"the version of the detector {detector.name}": detector.version
            for detector in run.resolved.detectors
            if isinstance(detector, SelectedDetector)
        },
    }
