"""Meta classifiers: supervised models over the scores of other detectors."""

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from oodbench.detectors.logits import entropy
from oodbench.detectors.plugin import detector
from oodbench.detectors.supervised import STRENGTHS, Named, classifier_named, importance, logistic, prior_log_odds
from oodbench.errors import CellSkippedError
from oodbench.evidence import Evidence


class Supervised(ABC):
    """A meta classifier that tells wrong or unknown samples from right ones, by inputs that subclasses choose."""

    def __init__(self) -> None:
        self.learnt: dict[str, Any] = {}
        self._model: Any = None

    @abstractmethod
    def inputs(self, evidence: Evidence) -> NDArray[np.float64]:
        """Inputs of the meta classifier, (N, K)."""

    @abstractmethod
    def _learn(self, inputs: NDArray[np.float64], target: NDArray[np.bool_]) -> None:
        """Fit on inputs (N, K) and on whether each sample is wrong or unknown (N,), with at least two of each class."""

    def fit(self, evidence: Evidence, labels: Tensor) -> None:
        """Learn from wrong or unknown (1) and right (0) samples."""
        target = evidence.wrong(labels).numpy()
        if min(target.sum(), (~target).sum()) < 2:
            raise CellSkippedError(
                f"a meta classifier needs two samples of each class, and {int(target.sum())} of the {len(target)} in "
                "the fitting split are wrong or unknown"
            )
        inputs = self.inputs(evidence)
        if not (inputs != inputs[0]).any():
            raise CellSkippedError("all inputs of the meta classifier are constant on the fitting split")
        self._learn(inputs, target)


class LogisticMeta(Supervised):
    """Logistic regression.

    Inputs go through a signed logarithm (gradient metrics are heavy-tailed) and are standardised; constant ones are
    dropped; classes are weighted by their frequency; the strength of the regularisation is chosen by the AUROC in
    cross-validation, all on the fitting split only. The score is corrected for the class weights, so that it is the
    log-odds at the fitting split's own frequency of errors (King, Zeng 2001, §4.1).
    """

    log_odds = True
    strengths: tuple[float, ...] = STRENGTHS

    def _learn(self, inputs: NDArray[np.float64], target: NDArray[np.bool_]) -> None:
        self._model = logistic(inputs, target, self.strengths)
        self._prior = prior_log_odds(target)
        self.learnt = {"C": float(self._model[-1].C_)}

    def score(self, evidence: Evidence) -> Tensor:
        """Log-odds of being wrong or unknown."""
        return torch.from_numpy(self._model.decision_function(self.inputs(evidence)) + self._prior).float()


def _gradients(evidence: Evidence) -> NDArray[np.float64]:
    return np.stack([column.double().numpy() for column in evidence.gradients.values()], axis=1)


def _entropy(evidence: Evidence) -> NDArray[np.float64]:
    values: NDArray[np.float64] = entropy(evidence.logits).numpy()[:, None]
    return values


@detector("entropy-meta", needs="logits", fitted_on="exposed")
class entropy_meta(LogisticMeta):  # noqa: N801 - the name of the plugin
    """Logistic regression on the entropy alone: the entropy thresholding of Oberdiek, Rottmann, Gottschalk 2018."""

    # With a single input, no strength changes the order; a strong regularisation states equal probabilities.
    strengths = (STRENGTHS[-1],)

    def inputs(self, evidence: Evidence) -> NDArray[np.float64]:
        """The entropy."""
        return _entropy(evidence)


@detector("grad-all", needs="gradients", fitted_on="exposed")
class grad_all(LogisticMeta):  # noqa: N801 - the name of the plugin
    """Logistic regression on all gradient metrics, over all weights and of every layer."""

    def inputs(self, evidence: Evidence) -> NDArray[np.float64]:
        """All gradient metrics."""
        return _gradients(evidence)


@detector("grad-combo", needs=("logits", "gradients"), fitted_on="exposed")
class grad_combo(LogisticMeta):  # noqa: N801 - the name of the plugin
    """Logistic regression on the entropy and all gradient metrics, over all weights and of every layer."""

    def inputs(self, evidence: Evidence) -> NDArray[np.float64]:
        """Entropy and all gradient metrics."""
        return np.concatenate([_entropy(evidence), _gradients(evidence)], axis=1)


# Samples of each class at least, so that two are left to fit on where a fold is held out.
MEASURABLE = 4

# Default inputs: detectors on the logits, the features and the gradients.
INPUTS = ("entropy", "energy", "feature-norm", "grad-l2", "grad-max")


@detector("meta", needs="scores", fitted_on="exposed", no_effect_on_scores=("seed",))
class meta(Supervised):  # noqa: N801 - the name of the plugin
    """A classifier over the scores of other detectors, which tells wrong or unknown samples from right ones.

    Inputs that learn from errors or exposed samples themselves are scored out of fold while it is fitted. It reports
    the permutation importance of each input: how much the AUROC falls, on parts of the fitting split that it was not
    fitted on, when the input's values are shuffled (Breiman 2001, §10). With fewer than four wrong or unknown samples,
    or right ones, that cannot be measured, and is left out.

    Args:
        inputs: Detectors by name, glob or with parameters: ``entropy+grad-*+knn:k=10``.
        classifier: ``logistic``, ``hist-gradient-boosting``, ``mlp``, or a scikit-learn classifier by its dotted name,
            such as ``sklearn.ensemble.RandomForestClassifier``.
        seed: Seed of the classifier and of the shuffling.
    """

    def __init__(self, inputs: tuple[str, ...] = INPUTS, classifier: Named | str = "logistic", seed: int = 0) -> None:
        super().__init__()
        self._make = classifier_named(classifier)
        self._seed = seed % 2**32  # all that scikit-learn takes

    def inputs(self, evidence: Evidence) -> NDArray[np.float64]:
        """The scores of the other detectors."""
        return np.stack([scores.double().numpy() for scores in evidence.scores.values()], axis=1)

    def fit(self, evidence: Evidence, labels: Tensor) -> None:
        """Learn, and measure the importance of each input."""
        self._names = list(evidence.scores)
        super().fit(evidence, labels)

    def _learn(self, inputs: NDArray[np.float64], target: NDArray[np.bool_]) -> None:
        self._model = self._make(inputs, target, self._seed)
        self.log_odds = self._model.states_log_odds
        self.learnt = {}
        if min(target.sum(), (~target).sum()) >= MEASURABLE:
            importances = importance(self._make, inputs, target, self._seed)
            self.learnt = {"importance": dict(zip(self._names, importances, strict=True))}

    def score(self, evidence: Evidence) -> Tensor:
        """Log-odds of being wrong or unknown if the classifier states probabilities, else its decision function."""
        return torch.from_numpy(self._model.decision(self.inputs(evidence))).float()
