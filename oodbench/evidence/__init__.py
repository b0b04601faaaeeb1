"""Evidence: logits, features and gradient metrics of each sample, collected once for all detectors.

This room must not know detectors, protocols or scores.
"""

from oodbench.evidence.evidence import Evidence
from oodbench.evidence.parts import NetworkPass

__all__ = ["Evidence", "NetworkPass"]
