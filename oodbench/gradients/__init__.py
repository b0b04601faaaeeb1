"""Gradients: exact statistics of per-sample weight gradients, from a single batched forward and backward pass.

This room must not know classifiers, data or detectors: it takes any network that maps inputs to logits.
"""

from oodbench.gradients.engine import forward, gradient_metrics
from oodbench.gradients.forms import Outer, Product, Vector, Windows
from oodbench.gradients.rules import rule
from oodbench.gradients.statistics import METRICS

__all__ = ["METRICS", "Outer", "Product", "Vector", "Windows", "forward", "gradient_metrics", "rule"]
