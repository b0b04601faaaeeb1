"""Supervised models of meta classifiers: inputs (N, K) to how likely each sample is wrong or unknown."""

import importlib
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from oodbench.errors import MissingPrerequisiteError, UsageError, one_line
from oodbench.registry.code import forget_stale, imported_files, own_module

# Inverse strengths of regularisation (C); the strongest is first, since the first wins a tie.
STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
FOLDS = 5
# Probabilities are clipped by this much, since log-odds of 0 and 1, as forests state them, are infinite.
SURE = 1e-6

Inputs = NDArray[np.float64]
Target = NDArray[np.bool_]


@dataclass(frozen=True)
class FittedModel:
    """A fitted model.

    Attributes:
        model: The fitted classifier of scikit-learn.
        by_probability: Whether the decision is the log-odds of its probability, or its decision function plus offset.
        states_log_odds: Whether decisions are log-odds.
        offset: Added to its decision function.
    """

    model: Any
    by_probability: bool
    states_log_odds: bool
    offset: float = 0.0

    def decision(self, inputs: Inputs) -> Inputs:
        """How likely each sample is wrong or unknown, (N,)."""
        decisions: Inputs
        if self.by_probability:
            p = self.model.predict_proba(inputs)[:, 1].clip(SURE, 1 - SURE)
            decisions = np.log(p) - np.log1p(-p)
        else:
            decisions = self.model.decision_function(inputs) + self.offset
        return decisions


Named = Literal["logistic", "hist-gradient-boosting", "mlp"]
Make = Callable[[Inputs, Target, int], FittedModel]
"""Fits a model on inputs (N, K), target (N,) and a seed."""


def classifier_named(name: str) -> Make:
    """Look up a classifier by name.

    Args:
        name: A key of ``CLASSIFIERS``, or the dotted name of a class that follows scikit-learn's contract.

    Raises:
        UsageError: There is no such classifier.
        MissingPrerequisiteError: Its package cannot be imported.
    """
    if name in CLASSIFIERS:
        return CLASSIFIERS[name]
    return partial(_fit_class, _import_class(name))


def _import_class(name: str) -> Any:  # noqa: ANN401
    from sklearn.base import is_classifier

    module, _, attribute = name.rpartition(".")
    offered = f"expected one of: {', '.join(CLASSIFIERS)}, or a dotted name such as sklearn.svm.LinearSVC"
    if not module:
        raise UsageError(f"no classifier of meta classifiers is named {name!r}; {offered}.")
    file = own_module(module)
    if file is not None:
        forget_stale({**imported_files(file), module: file})
    try:
        class_ = getattr(importlib.import_module(module), attribute)
    except (ImportError, TypeError, ValueError) as cause:
        raise MissingPrerequisiteError(f"the classifier {name!r} cannot be imported: {one_line(cause)}.") from cause
    except AttributeError as cause:
        raise UsageError(f"{module} has no classifier {attribute!r}; {offered}.") from cause
    try:
        is_usable = isinstance(class_, type) and is_classifier(class_())
    except TypeError as cause:
        raise UsageError(f"the classifier {name!r} cannot be made without arguments: {cause}.") from cause
    if not is_usable:
        raise UsageError(f"{name!r} is no scikit-learn classifier; {offered}.")
    return class_


def logistic(inputs: Inputs, target: Target, strengths: tuple[float, ...] = STRENGTHS) -> Any:  # noqa: ANN401
    """Logistic regression on standardised signed logarithms, with balanced classes.

    Args:
        inputs: (N, K).
        target: (N,), at least two of each class.
        strengths: Candidates for C, the inverse strength of regularisation, chosen by the AUROC in cross-validation.
    """
    from sklearn.feature_selection import VarianceThreshold
    from sklearn.linear_model import LogisticRegressionCV
    from sklearn.preprocessing import StandardScaler

    from oodbench.detectors.signed_log import SignedLog

    regression = LogisticRegressionCV(
        Cs=strengths,
        cv=_folds(target, seed=0),
        scoring="roc_auc",
        class_weight="balanced",
        solver="newton-cholesky",
        max_iter=200,
        l1_ratios=(0.0,),
        use_legacy_attributes=False,
    )
    return _fit_pipeline(inputs, target, VarianceThreshold(0.0), SignedLog(), StandardScaler(), regression)


def prior_log_odds(target: Target) -> float:
    """The prior log-odds, which balancing the classes removed from the log-odds (King, Zeng 2001, §4.1)."""
    return float(np.log(target.sum() / (~target).sum()))


def importance(make: Make, inputs: Inputs, target: Target, seed: int) -> list[float]:
    """Permutation importance: the mean fall of the AUROC on held-out folds when an input is shuffled.

    Args:
        make: Fits the model.
        inputs: (N, K).
        target: (N,), at least two of each class.
        seed: Seed of the folds and of the shuffling.

    Returns:
        The importance of each of the K inputs.
    """
    from oodbench.evaluation.metrics import auroc

    generator = np.random.default_rng(seed)
    falls = []
    for rest, fold in _folds(target, seed).split(inputs, target):
        trained = make(inputs[rest], target[rest], seed)
        whole = auroc(trained.decision(inputs[fold]), target[fold]) or 0.5
        shuffled = inputs[fold][generator.permutation(len(fold))]
        falls.append([
            whole - (auroc(trained.decision(_replaced(inputs[fold], shuffled, k)), target[fold]) or 0.5)
            for k in range(inputs.shape[1])
        ])  # fmt: skip
    means: NDArray[np.float64] = np.mean(falls, axis=0)
    return [float(fall) for fall in means]


def _replaced(inputs: Inputs, replacement: Inputs, column: int) -> Inputs:
    changed = inputs.copy()
    changed[:, column] = replacement[:, column]
    return changed


def _fit_class(class_: Any, inputs: Inputs, target: Target, seed: int) -> FittedModel:  # noqa: ANN401
    seeded = {"random_state": seed} if "random_state" in class_().get_params() else {}
    model = class_(**seeded).fit(inputs, target)
    probable = hasattr(model, "predict_proba")
    return FittedModel(model, by_probability=probable, states_log_odds=probable)


def _logistic(inputs: Inputs, target: Target, seed: int) -> FittedModel:
    return FittedModel(
        logistic(inputs, target), by_probability=False, states_log_odds=True, offset=prior_log_odds(target)
    )


def _hist_gradient_boosting(inputs: Inputs, target: Target, seed: int) -> FittedModel:
    from sklearn.ensemble import HistGradientBoostingClassifier

    model = HistGradientBoostingClassifier(random_state=seed).fit(inputs, target)
    return FittedModel(model, by_probability=True, states_log_odds=True)


def _mlp(inputs: Inputs, target: Target, seed: int) -> FittedModel:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.neural_network import MLPClassifier
    from sklearn.preprocessing import StandardScaler

    from oodbench.detectors.signed_log import SignedLog

    # No early stopping: errors are few, and a held-out tenth of them would stop the training by chance.
    network = MLPClassifier((16,), solver="lbfgs", alpha=1.0, max_iter=300, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model = _fit_pipeline(inputs, target, SignedLog(), StandardScaler(), network)
    return FittedModel(model, by_probability=True, states_log_odds=True)


CLASSIFIERS: dict[Named | str, Make] = {
    "logistic": _logistic,
    "hist-gradient-boosting": _hist_gradient_boosting,
    "mlp": _mlp,
}


def _fit_pipeline(inputs: Inputs, target: Target, *steps: Any) -> Any:  # noqa: ANN401
    from sklearn.pipeline import make_pipeline

    return make_pipeline(*steps).fit(inputs, target)


def _folds(target: Target, seed: int) -> Any:  # noqa: ANN401
    from sklearn.model_selection import StratifiedKFold

    fewest = int(min(target.sum(), (~target).sum()))
    return StratifiedKFold(min(FOLDS, fewest), shuffle=True, random_state=seed)
