"""Meta classifiers: supervised models over the scores of other detectors."""

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

from oodbench.detectors.logits import entropy
from oodbench.detectors.plugin import detector
from oodbench.errors import CellSkippedError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from oodbench.evidence import Evidence

# Strongest regularisation first: it wins a tie.
STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
FOLDS = 5


class LogisticMeta(ABC):
    """Logistic regression that tells wrong or unknown samples from right ones.

    Inputs go through a signed logarithm (gradient metrics are heavy-tailed) and are standardised; constant ones are
    dropped; classes are weighted by their frequency; the strength of the regularisation is chosen by the AUROC in
    cross-validation. All of that inside the fitting split only. The weights of the classes are taken out of the score
    again, so that it is the log-odds at the fitting split's own frequency of errors (King, Zeng 2001, §4.1).
    """

    log_odds = True
    strengths: tuple[float, ...] = STRENGTHS

    def __init__(self) -> None:
        self.learnt: dict[str, float] = {}
        self._model: Any = None
        self._prior = 0.0

    @abstractmethod
    def inputs(self, evidence: "Evidence") -> "NDArray[np.float64]":
        """Inputs of the regression, (N, K)."""

    def fit(self, evidence: "Evidence", labels: "Tensor") -> None:
        """Learn from wrong or unknown (1) and right (0) samples."""
        import numpy as np

        target = evidence.wrong(labels).numpy()
        fewest = int(min(target.sum(), (~target).sum()))
        if fewest < 2:
            raise CellSkippedError(
                f"a meta classifier needs two samples of each class, and {int(target.sum())} of the {len(target)} in "
                "the fitting split are wrong or unknown"
            )
        self._model = _pipeline(self.strengths, folds=min(FOLDS, fewest)).fit(self.inputs(evidence), target)
        self._prior = float(np.log(target.sum() / (~target).sum()))
        self.learnt = {"C": float(self._model[-1].C_)}

    def score(self, evidence: "Evidence") -> "Tensor":
        """Log-odds of being wrong or unknown."""
        import torch

        return torch.from_numpy(self._model.decision_function(self.inputs(evidence)) + self._prior).float()


def _pipeline(strengths: tuple[float, ...], folds: int) -> Any:  # noqa: ANN401
    from sklearn.feature_selection import VarianceThreshold
    from sklearn.linear_model import LogisticRegressionCV
    from sklearn.model_selection import StratifiedKFold
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    from oodbench.detectors.signed_log import SignedLog

    regression = LogisticRegressionCV(
        Cs=strengths,
        cv=StratifiedKFold(folds, shuffle=True, random_state=0),
        scoring="roc_auc",
        class_weight="balanced",
        solver="newton-cholesky",
        max_iter=200,
        l1_ratios=(0.0,),
        use_legacy_attributes=False,
    )
    return make_pipeline(VarianceThreshold(0.0), SignedLog(), StandardScaler(), regression)


def _gradients(evidence: "Evidence") -> "NDArray[np.float64]":
    import numpy as np

    return np.stack([column.double().numpy() for column in evidence.gradients.values()], axis=1)


def _entropy(evidence: "Evidence") -> "NDArray[np.float64]":
    values: NDArray[np.float64] = entropy(evidence.logits).numpy()[:, None]
    return values


@detector("entropy-meta", needs="logits", fitted_on="exposed")
class entropy_meta(LogisticMeta):  # noqa: N801 - the name of the plugin
    """Logistic regression on the entropy alone: the entropy thresholding of Oberdiek, Rottmann, Gottschalk 2018."""

    # No strength changes the order of one input, but a strong one states the same probability for all.
    strengths = (STRENGTHS[-1],)

    def inputs(self, evidence: "Evidence") -> "NDArray[np.float64]":
        """The entropy."""
        return _entropy(evidence)


@detector("grad-all", needs="gradients", fitted_on="exposed")
class grad_all(LogisticMeta):  # noqa: N801 - the name of the plugin
    """Logistic regression on all gradient metrics, over all weights and of every layer."""

    def inputs(self, evidence: "Evidence") -> "NDArray[np.float64]":
        """All gradient metrics."""
        return _gradients(evidence)


@detector("grad-combo", needs=("logits", "gradients"), fitted_on="exposed")
class grad_combo(LogisticMeta):  # noqa: N801 - the name of the plugin
    """Logistic regression on the entropy and all gradient metrics, over all weights and of every layer."""

    def inputs(self, evidence: "Evidence") -> "NDArray[np.float64]":
        """Entropy and all gradient metrics."""
        import numpy as np

        return np.concatenate([_entropy(evidence), _gradients(evidence)], axis=1)
