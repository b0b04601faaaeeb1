"""oodbench: which out-of-distribution detector to trust, on which unknowns, and how surely.

The names below are all that users need of the package, beside ``oodbench.gradients``, ``oodbench.evidence`` and
``oodbench.testing``; ``CONTRIBUTING.md`` has the map of the rooms behind them.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from oodbench.datasets.adapter import Card as Card
    from oodbench.datasets.adapter import DataMissingError as DataMissingError
    from oodbench.datasets.adapter import LazyImages as LazyImages
    from oodbench.datasets.adapter import Pool as Pool
    from oodbench.datasets.adapter import Request as Request
    from oodbench.datasets.adapter import dataset as dataset
    from oodbench.detectors.plugin import detector as detector
    from oodbench.errors import CellSkippedError as CellSkippedError
    from oodbench.errors import OodbenchError as OodbenchError
    from oodbench.errors import UsageError as UsageError
    from oodbench.evidence.evidence import Evidence as Evidence
    from oodbench.evidence.parts import evidence_part as evidence_part
    from oodbench.execution.run import run as run
    from oodbench.imports.importing import import_scores as import_scores
    from oodbench.protocols.case import Case as Case
    from oodbench.records.reading import Results as Results
    from oodbench.records.reading import read_results as read_results
    from oodbench.records.record import Record as Record

# Loaded on first use, so that `import oodbench` loads no torch.
_PUBLIC = {
    "run": "oodbench.execution.run",
    "read_results": "oodbench.records.reading",
    "import_scores": "oodbench.imports.importing",
    "Results": "oodbench.records.reading",
    "Record": "oodbench.records.record",
    "Evidence": "oodbench.evidence.evidence",
    "detector": "oodbench.detectors.plugin",
    "evidence_part": "oodbench.evidence.parts",
    "dataset": "oodbench.datasets.adapter",
    "Card": "oodbench.datasets.adapter",
    "DataMissingError": "oodbench.datasets.adapter",
    "LazyImages": "oodbench.datasets.adapter",
    "Pool": "oodbench.datasets.adapter",
    "Request": "oodbench.datasets.adapter",
    "Case": "oodbench.protocols.case",
    "UsageError": "oodbench.errors",
    "OodbenchError": "oodbench.errors",
    "CellSkippedError": "oodbench.errors",
}
__all__ = [
    "Card",
    "Case",
    "CellSkippedError",
    "DataMissingError",
    "Evidence",
    "LazyImages",
    "OodbenchError",
    "Pool",
    "Record",
    "Request",
    "Results",
    "UsageError",
    "dataset",
    "detector",
    "evidence_part",
    "import_scores",
    "read_results",
    "run",
]


def __getattr__(name: str) -> Any:  # noqa: ANN401
    if name not in _PUBLIC:
        raise AttributeError(f"module 'oodbench' has no attribute {name!r}")
    return getattr(import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
