"""Evidence: what is read off the classifier for each sample, once, for all detectors."""

from oodbench.evidence.evidence import Evidence

__all__ = ["Evidence"]
