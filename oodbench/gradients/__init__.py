"""Statistics of per-sample weight gradients, exactly, from one batched forward and backward pass."""

from oodbench.gradients.engine import gradient_metrics
from oodbench.gradients.statistics import METRICS

__all__ = ["METRICS", "gradient_metrics"]
