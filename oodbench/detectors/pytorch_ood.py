"""The detectors of pytorch-ood: their own code, on shared evidence where it takes any, fitted on the training split.

What they take as parameters is passed through under the same name; what they take of the classifier they are given.
Larger = more unknown is their convention too.
"""

import inspect
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import pytorch_ood.detector as theirs
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from oodbench.detectors.plugin import DetectorPlugin, detector
from oodbench.errors import CellSkippedError, one_line
from oodbench.evidence import Evidence
from oodbench.evidence.batches import BATCH, halving
from oodbench.isolation import isolated

# Callables cannot be typed on a command line, and the device is the evidence's.
NOT_OFFERED = ("detector", "criterion", "param_filter", "feature_reduce", "device", "norm_std")

# How they say that the samples are too few, or lack a class.
THEIR_REFUSALS = (ValueError, AssertionError, torch.linalg.LinAlgError)  # type: ignore[attr-defined]


@dataclass(frozen=True)
class Interface:
    """How detectors of one kind are spoken to.

    Attributes:
        part: The part of the evidence that is scored.
        fit: Method that is fitted on the part and the labels; None where there is nothing to fit.
        predict: Method that scores the part.
    """

    part: Literal["logits", "features", "feature_maps", "inputs"]
    fit: str | None
    predict: str


LOGITS = Interface("logits", "fit_logits", "predict_logits")
FEATURES = Interface("features", "fit_features", "predict_features")
FEATURE_MAPS = Interface("feature_maps", "fit_feature_maps", "predict_feature_maps")
INPUTS = Interface("inputs", None, "predict")

Given = Mapping[str, Callable[[Evidence], Any]]
"""Arguments of a constructor that are made of the evidence."""


class Adapted:
    """A detector of pytorch-ood; subclasses say which."""

    theirs: ClassVar[type]
    interface: ClassVar[Interface]
    given: ClassVar[Given]
    seeded: ClassVar[bool] = False

    def __init__(self, **parameters: Any) -> None:  # noqa: ANN401
        self._seed: int = parameters.pop("seed", 0)
        self._parameters = parameters
        self._detector: Any = None

    def fit(self, evidence: Evidence, labels: Tensor) -> None:
        """Make a new detector of the evidence's classifier, and fit it where it wants that."""
        given = {name: make(evidence) for name, make in self.given.items()}
        self._detector = self.theirs(**given, **self._parameters).to("cpu")
        # ReAct says that it is fitted where its threshold is given.
        if self._detector.requires_fit and not getattr(self._detector, "_is_fitted", False):
            try:
                with self._chance(), torch.enable_grad():
                    self._learn(evidence, labels)
            except THEIR_REFUSALS as cause:
                raise CellSkippedError(f"it cannot be fitted on this training split: {one_line(cause)}") from cause

    def score(self, evidence: Evidence) -> Tensor:
        """Score some samples at a time."""
        predict = getattr(self._detector, self.interface.predict)
        samples: Tensor = getattr(evidence, self.interface.part)

        def in_batches_of(batch: int) -> Tensor:
            with torch.enable_grad():
                return torch.cat([self._predicted(predict, some) for some in torch.split(samples, batch)]).detach()

        return halving(BATCH, f"scores of {self.theirs.__name__}", in_batches_of)[0]

    def _learn(self, evidence: Evidence, labels: Tensor) -> None:
        samples: Tensor = getattr(evidence, self.interface.part)
        if self.interface.fit is None:
            self._detector.fit(DataLoader(TensorDataset(samples, labels), batch_size=BATCH))
        else:
            getattr(self._detector, self.interface.fit)(samples, labels)

    def _predicted(self, predict: Callable[[Tensor], Tensor], some: Tensor) -> Tensor:
        with self._chance():
            return predict(some)

    def _chance(self) -> Any:  # noqa: ANN401
        return isolated(self._seed) if self.seeded else nullcontext()


class _OnFeaturesAndInputs(Adapted):
    """Fitted on features, it scores inputs."""

    def _learn(self, evidence: Evidence, labels: Tensor) -> None:
        self._detector.fit_features(evidence.features, labels)


class _ByDropout(Adapted):
    """It runs the classifier with dropout."""

    def fit(self, evidence: Evidence, labels: Tensor) -> None:
        """Nothing to learn, but the classifier needs dropout."""
        if not any(isinstance(module, nn.modules.dropout._DropoutNd) for module in evidence.classifier.modules()):
            raise CellSkippedError("it samples with dropout, and the classifier has none")
        super().fit(evidence, labels)


class _WithEveryClass(Adapted):
    """It knows the distance to a class only if that is predicted somewhere in the batch (pytorch-ood 0.4)."""

    def _predicted(self, predict: Callable[[Tensor], Tensor], some: Tensor) -> Tensor:
        every = torch.eye(some.shape[1], dtype=some.dtype)
        return predict(torch.cat([some, every]))[: len(some)]


class _Lacking(Adapted):
    """It needs what no classifier of a suite has."""

    lacks: ClassVar[str]

    def fit(self, evidence: Evidence, labels: Tensor) -> None:
        """Refuse."""
        raise CellSkippedError(self.lacks)


def _nothing(evidence: Evidence) -> None:
    return None


def _head(evidence: Evidence) -> nn.Module:
    return evidence.head


def _last_layer(evidence: Evidence) -> nn.Linear:
    return evidence.last_layer


def _weight(evidence: Evidence) -> Tensor:
    return evidence.last_layer.weight.detach()


def _bias(evidence: Evidence) -> Tensor:
    bias = evidence.last_layer.bias
    return evidence.last_layer.weight.new_zeros(evidence.last_layer.out_features) if bias is None else bias.detach()


def _classifier(evidence: Evidence) -> nn.Module:
    return evidence.classifier


def _encoder(evidence: Evidence) -> nn.Module:
    return evidence.encoder


def _stages(evidence: Evidence) -> list[nn.Module]:
    return list(evidence.stages)


def _whole(evidence: Evidence) -> nn.Module:
    return nn.Sequential(*evidence.stages, evidence.head)


def _classes(evidence: Evidence) -> int:
    return evidence.logits.shape[1]


class _OfHalf(Adapted):
    """Its subspace has half as many dimensions as the features, unless it is told how many."""

    def fit(self, evidence: Evidence, labels: Tensor) -> None:
        """Fit with a number of dimensions."""
        chosen = self._parameters
        self._parameters = {**chosen, "d": chosen["d"] or evidence.features.shape[1] // 2}
        try:
            super().fit(evidence, labels)
        finally:
            self._parameters = chosen


def _any_weight(name: str) -> bool:
    return True


def _all_weights(evidence: Evidence) -> Callable[[str], bool]:
    """Their own default, but one that can be pickled."""
    return _any_weight


PARTS_OF: Mapping[Callable[[Evidence], Any], tuple[str, ...]] = {
    _nothing: (),
    _head: ("head",),
    _last_layer: ("last_layer",),
    _weight: ("last_layer",),
    _bias: ("last_layer",),
    _classifier: ("classifier",),
    _encoder: ("encoder",),
    _stages: ("stages",),
    _whole: ("stages", "head"),
    _classes: (),
    _all_weights: (),
}


def _adapt(
    name: str,
    of: str,
    interface: Interface,
    given: Given,
    base: type[Adapted] = Adapted,
    *,
    parameters: Mapping[str, tuple[Any, Any]] | None = None,
    lacks: str = "",
    seeded: bool = False,
    by_chance: bool = False,
    inert: tuple[str, ...] = (),
    needs: tuple[str, ...] = (),
) -> DetectorPlugin:
    """Make a plugin of one of their classes.

    Args:
        name: Its name.
        of: Their class.
        interface: How it is spoken to.
        given: Arguments of its constructor that are made of the evidence.
        base: What is special about it.
        parameters: Types and defaults that differ from those of its constructor, or are missing there.
        lacks: Why it cannot run on any suite.
        seeded: Whether it draws random numbers.
        by_chance: Whether its scores are drawn.
        inert: Parameters that change no score.
        needs: Further parts of the evidence.
    """
    class_ = getattr(theirs, of)
    offered = [
        parameter
        for key, parameter in inspect.signature(class_, eval_str=True).parameters.items()
        if key not in given and key not in NOT_OFFERED and parameter.kind is not parameter.VAR_KEYWORD
    ]
    changed = dict(parameters or {}) | ({"seed": (int, 0)} if seeded else {})
    known = {parameter.name: (parameter.annotation, parameter.default) for parameter in offered} | changed
    signature = inspect.Signature([
        inspect.Parameter(key, inspect.Parameter.KEYWORD_ONLY, annotation=annotation, default=default)
        for key, (annotation, default) in known.items()
    ])  # fmt: skip
    attributes = {
        "theirs": class_,
        "interface": interface,
        "given": dict(given),
        "seeded": seeded,
        "lacks": lacks,
        "__doc__": _description(class_),
        "__module__": __name__,
        "__qualname__": name.replace("-", "_"),
        "__signature__": signature,
    }
    parts = [interface.part, *needs, *(part for make in given.values() for part in PARTS_OF[make])]
    declare = detector(
        name,
        needs=tuple(dict.fromkeys(parts)),
        fitted_on="training" if class_.requires_fit else "meta",
        by_chance=by_chance,
        inert=inert,
    )
    return declare(type(name.replace("-", "_"), (base,), attributes))


def _description(class_: Any) -> str:  # noqa: ANN401
    paper = class_.info.paper if class_.info else None
    source = f" ({paper.title}, {paper.venue} {paper.year}, {paper.url})" if paper else ""
    return f"{class_.__name__} of pytorch-ood{source}."


_no_model: Given = {"model": _nothing}
_no_encoder: Given = {"encoder": _nothing}
_with_last_layer: Given = {"encoder": _nothing, "head": _last_layer}
_with_weights: Given = {"encoder": _nothing, "w": _weight, "b": _bias}
_with_head: Given = {"backbone": _nothing, "head": _head}
_with_classifier: Given = {"model": _classifier}
_with_all_weights: Given = {"model": _classifier, "param_filter": _all_weights}

energy_based = _adapt("energy-based", "EnergyBased", LOGITS, _no_model)
entropy = _adapt("entropy", "Entropy", LOGITS, _no_model)
gen = _adapt("gen", "GEN", LOGITS, _no_model, parameters={"M": (int | None, None)})
kl_matching = _adapt("kl-matching", "KLMatching", LOGITS, _no_model)
max_logit = _adapt("max-logit", "MaxLogit", LOGITS, _no_model)
max_softmax = _adapt("max-softmax", "MaxSoftmax", LOGITS, _no_model)
open_max = _adapt("open-max", "OpenMax", LOGITS, _no_model, _WithEveryClass)
temperature_scaling = _adapt("temperature-scaling", "TemperatureScaling", LOGITS, _no_model)
weighted_ebo = _adapt(
    "weighted-ebo",
    "WeightedEBO",
    LOGITS,
    {"model": _nothing, "weights": _nothing},
    _Lacking,
    lacks="it needs a weight for each class that is learnt in training with its loss, which no suite's training has",
)

dice = _adapt("dice", "DICE", FEATURES, _with_weights, parameters={"p": (float, 0.9)})
fdbd = _adapt("fdbd", "fDBD", FEATURES, _with_last_layer)
gmm = _adapt("gmm", "GMM", FEATURES, _no_encoder)
knn = _adapt("knn", "KNN", FEATURES, _no_encoder)
lts = _adapt("lts", "LTS", FEATURES, _with_last_layer)
mahalanobis = _adapt("mahalanobis", "Mahalanobis", FEATURES, _no_encoder)
mcm = _adapt(
    "mcm",
    "MCM",
    FEATURES,
    {"encoder": _nothing, "text_embeddings": _nothing},
    _Lacking,
    lacks="it needs text embeddings of the classes from a vision-language model, which no suite's classifier is",
)
nci = _adapt("nci", "NCI", FEATURES, _with_last_layer)
nn_guide = _adapt("nn-guide", "NNGuide", FEATURES, _with_last_layer)
pnml = _adapt("pnml", "PNML", FEATURES, _with_last_layer)
rmd = _adapt("rmd", "RMD", FEATURES, _no_encoder)
she = _adapt("she", "SHE", FEATURES, _with_last_layer)
vim = _adapt("vim", "ViM", FEATURES, _with_weights, _OfHalf, parameters={"d": (int | None, None)})

ash = _adapt(
    "ash",
    "ASH",
    FEATURE_MAPS,
    _with_head,
    parameters={"variant": (Literal["ash-s", "ash-p", "ash-b"], "ash-s")},
)
rank_feat = _adapt("rank-feat", "RankFeat", FEATURE_MAPS, _with_head)
react = _adapt("react", "ReAct", FEATURE_MAPS, _with_head)
scale = _adapt("scale", "SCALE", FEATURE_MAPS, _with_head)
vra = _adapt("vra", "VRA", FEATURE_MAPS, _with_head)

grad_norm = _adapt("grad-norm", "GradNorm", INPUTS, _with_all_weights, inert=("micro_batch_size",))
grad_uncertainty = _adapt("grad-uncertainty", "GradUncertainty", INPUTS, _with_all_weights)
mcd = _adapt(
    "mcd",
    "MCD",
    INPUTS,
    _with_classifier,
    _ByDropout,
    parameters={"mode": (Literal["var", "mean"], "var")},
    seeded=True,
    by_chance=True,
    inert=("batch_norm",),
)
odin = _adapt("odin", "ODIN", INPUTS, _with_classifier)
mahalanobis_odin = _adapt(
    "mahalanobis-odin", "MahalanobisODIN", INPUTS, {"encoder": _encoder}, _OnFeaturesAndInputs, needs=("features",)
)
nacue = _adapt("nacue", "NACUE", INPUTS, {"model": _whole, "layers": _stages})
gram = _adapt("gram", "Gram", INPUTS, {"head": _head, "feature_layers": _stages, "num_classes": _classes}, seeded=True)
multi_mahalanobis = _adapt("multi-mahalanobis", "MultiMahalanobis", INPUTS, {"model": _stages})
