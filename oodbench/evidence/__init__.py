"""Evidence: logits, features and gradient metrics of each sample, collected once for all detectors.

This room must not know detectors, protocols or scores.
"""

from oodbench.evidence.evidence import Evidence

__all__ = ["Evidence"]
