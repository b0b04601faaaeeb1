"""A monotone transform for heavy-tailed inputs of linear models."""

from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, TransformerMixin


class SignedLog(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """sign(x) log(1 + |x| / s) of each column, s being the median of its |x| on the fitting split.

    Unlike quantiles, it is strictly increasing beyond the range of the fitting split, where unknown samples may be.
    """

    def fit(self, x: NDArray[np.float64], y: Any = None) -> Self:  # noqa: ANN401
        """Learn the scale of each column of x (N, K)."""
        sizes = np.abs(x)
        medians = np.median(sizes, axis=0)
        means = sizes.mean(axis=0)
        self.scale_ = np.where(medians > 0, medians, np.where(means > 0, means, 1.0))
        return self

    def transform(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """Transform x (N, K)."""
        transformed: NDArray[np.float64] = np.sign(x) * np.log1p(np.abs(x) / self.scale_)
        return transformed
