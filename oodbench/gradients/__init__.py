"""Statistics of per-sample weight gradients, exactly, from one batched forward and backward pass."""

from oodbench.gradients.engine import forward, gradient_metrics
from oodbench.gradients.forms import Outer, Product, Vector, Windows
from oodbench.gradients.rules import rule
from oodbench.gradients.statistics import METRICS

__all__ = ["METRICS", "Outer", "Product", "Vector", "Windows", "forward", "gradient_metrics", "rule"]
