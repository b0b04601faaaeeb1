"""The detectors of pytorch-ood, run by their own code on the shared evidence and fitted on the known training split.

Their parameters keep their names; arguments that depend on the classifier are filled in from the evidence. As here, a
larger score means more likely unknown.
"""

import inspect
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from copy import copy
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import pytorch_ood.detector as theirs
import torch
from torch import Tensor, nn
from torch.utils.data import BatchSampler, DataLoader, Dataset, SequentialSampler

from oodbench.detectors.plugin import DetectorPlugin, detector
from oodbench.errors import CellSkippedError, one_line
from oodbench.evidence import Evidence
from oodbench.evidence.batches import BATCH, halving
from oodbench.evidence.inputs import Inputs
from oodbench.machine.device import CPU
from oodbench.registry.isolation import isolated

# Parameters that users cannot set: callables, and the device, which is that of the evidence.
NOT_OFFERED = ("detector", "criterion", "param_filter", "feature_reduce", "device")

# Parameters that their method to fit does not use.
ONLY_IN_SCORING = {"KNN": ("k",), "NCI": ("alpha",)}

# Exceptions that they raise if samples are too few, or lack a class.
THEIR_REFUSALS = (ValueError, AssertionError, torch.linalg.LinAlgError)  # type: ignore[attr-defined]


@dataclass(frozen=True)
class Interface:
    """The methods by which a kind of detectors of pytorch-ood is called.

    Attributes:
        part: The part of the evidence that is scored.
        fit: Name of the method that fits on the part and the labels; None for ``fit`` on a DataLoader.
        predict: Name of the method that scores the part.
    """

    part: Literal["logits", "features", "feature_maps", "inputs"]
    fit: str | None
    predict: str


LOGITS = Interface("logits", "fit_logits", "predict_logits")
FEATURES = Interface("features", "fit_features", "predict_features")
FEATURE_MAPS = Interface("feature_maps", "fit_feature_maps", "predict_feature_maps")
INPUTS = Interface("inputs", None, "predict")

Arguments = Mapping[str, Callable[[Evidence], Any]]
"""Arguments of a constructor that are made from the evidence, by name."""


class Adapted:
    """A detector of pytorch-ood. Subclasses, made by ``_adapt``, say which class it is and how it is called."""

    theirs: ClassVar[type]
    interface: ClassVar[Interface]
    arguments: ClassVar[Arguments]
    seeded: ClassVar[bool] = False

    def __init__(self, **parameters: Any) -> None:  # noqa: ANN401
        self._seed: int = parameters.pop("seed", 0)
        self._parameters = parameters
        self._detector: Any = None
        self._device = CPU

    def fit(self, evidence: Evidence, labels: Tensor) -> None:
        """Make a new detector from the classifier of the evidence, and fit it if it requires that."""
        arguments = self._arguments(evidence)
        self._device = evidence.device
        self._detector = self.theirs(**arguments, **self._parameters).to(self._device)
        # ReAct sets _is_fitted if its threshold is a parameter.
        if self._detector.requires_fit and not getattr(self._detector, "_is_fitted", False):
            try:
                with self._seeded(), torch.enable_grad():
                    self._learn(evidence, labels)
            except THEIR_REFUSALS as cause:
                raise CellSkippedError(f"it cannot be fitted on this training split: {one_line(cause)}") from cause

    def score(self, evidence: Evidence) -> Tensor:
        """Score the samples in batches."""
        predict = getattr(self._detector, self.interface.predict)
        samples: Tensor = self._samples(evidence)

        def in_batches_of(batch: int) -> Tensor:
            with torch.enable_grad():
                return torch.cat([self._predicted(predict, chunk) for chunk in torch.split(samples, batch)]).detach()

        return halving(min(BATCH, len(samples)), f"scores of {self.theirs.__name__}", in_batches_of)[0]

    def _arguments(self, evidence: Evidence) -> dict[str, Any]:
        return {name: make(evidence) for name, make in self.arguments.items()}

    def _samples(self, evidence: Evidence) -> Any:  # noqa: ANN401
        return getattr(evidence, self.interface.part)

    def _learn(self, evidence: Evidence, labels: Tensor) -> None:
        samples = self._samples(evidence)
        if self.interface.fit is None:
            whole = _Labelled(samples, labels.to(CPU))  # where theirs expect those of a DataLoader
            batches = BatchSampler(SequentialSampler(whole), BATCH, drop_last=False)
            self._detector.fit(DataLoader(whole, sampler=batches, batch_size=None))
        else:
            getattr(self._detector, self.interface.fit)(samples, labels)

    def _predicted(self, predict: Callable[[Tensor], Tensor], chunk: Tensor) -> Tensor:
        with self._seeded():
            return predict(chunk)

    def _seeded(self) -> Any:  # noqa: ANN401
        return isolated(self._seed, self._device) if self.seeded else nullcontext()


@dataclass(frozen=True)
class _Labelled(Dataset[tuple[Tensor, Tensor]]):
    """Inputs with their labels, read when a batch of positions is asked for."""

    inputs: Tensor | Inputs
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, positions: list[int]) -> tuple[Tensor, Tensor]:
        chosen = torch.tensor(positions)
        return self.inputs[chosen], self.labels[chosen]


class _OnFeaturesAndInputs(Adapted):
    """A detector that is fitted on features and scores inputs."""

    def _learn(self, evidence: Evidence, labels: Tensor) -> None:
        self._detector.fit_features(evidence.features, labels)


At = Literal["feature-maps", "features"]


def _needs_at(parameters: Mapping[str, Any]) -> tuple[str, ...]:
    return ("feature_maps", "head") if parameters["at"] == "feature-maps" else ("features", "last_layer")


class _AtEither(Adapted):
    """A detector that changes activations, those of the feature maps or the penultimate features (``at=features``).

    Papers on pruned and clipped activations differ in where; OpenOOD and many authors' code take the features.
    """

    def __init__(self, at: At = "feature-maps", **parameters: Any) -> None:  # noqa: ANN401
        super().__init__(**parameters)
        self._at = at

    def _arguments(self, evidence: Evidence) -> dict[str, Any]:
        if self._at == "feature-maps":
            return super()._arguments(evidence)
        return {"backbone": None, "head": nn.Sequential(nn.Flatten(), evidence.last_layer)}

    def _samples(self, evidence: Evidence) -> Any:  # noqa: ANN401
        return evidence.feature_maps if self._at == "feature-maps" else evidence.features[:, :, None, None]


class _WithCommonLimits(_AtEither):
    """VRA, with limits for each activation, or the same for all (``over=all``, as in OpenOOD)."""

    def __init__(self, over: Literal["each", "all"] = "each", **parameters: Any) -> None:  # noqa: ANN401
        super().__init__(**parameters)
        self._over = over

    def _learn(self, evidence: Evidence, labels: Tensor) -> None:
        samples = self._samples(evidence)
        if self._over == "all":
            labels = labels.repeat_interleave(samples[0].numel())
            samples = samples.reshape(-1, 1, 1, 1)
        self._detector.fit_feature_maps(samples, labels)


class _WithDropout(Adapted):
    """A detector that runs the classifier with dropout."""

    def fit(self, evidence: Evidence, labels: Tensor) -> None:
        """Check that the classifier has dropout; there is nothing to learn."""
        if not any(isinstance(module, nn.modules.dropout._DropoutNd) for module in evidence.classifier.modules()):
            raise CellSkippedError("it samples with dropout, and the classifier has none")
        super().fit(evidence, labels)


class _WithEveryClass(Adapted):
    """A detector that needs every class to be predicted somewhere in the batch (pytorch-ood 0.4)."""

    def _predicted(self, predict: Callable[[Tensor], Tensor], chunk: Tensor) -> Tensor:
        one_hot = torch.eye(chunk.shape[1], dtype=chunk.dtype, device=chunk.device)
        return predict(torch.cat([chunk, one_hot]))[: len(chunk)]


class _OfAllProbabilities(Adapted):
    """GEN, which cuts probabilities off at 1e-7, or takes them as they are, as its authors do (``cut=false``).

    Where a classifier is sure, most probabilities are below that.
    """

    def __init__(self, cut: bool = True, **parameters: Any) -> None:  # noqa: ANN401
        super().__init__(**parameters)
        self._cut = cut

    def score(self, evidence: Evidence) -> Tensor:
        """Σ pᵞ(1 − p)ᵞ over the M largest probabilities."""
        if self._cut:
            return super().score(evidence)
        gamma, m = self._parameters["gamma"], self._parameters["M"]
        ascending = evidence.logits.double().softmax(dim=1).sort(dim=1).values
        probabilities = ascending.flip(1)[:, :m]
        others = 1 - probabilities
        # The difference to 1 of a probability near it is what the others sum to.
        others[:, 0] = ascending[:, :-1].sum(dim=1)
        return (probabilities.pow(gamma) * others.pow(gamma)).sum(dim=1)


class _Unusable(Adapted):
    """A detector that needs something that no classifier of a suite has."""

    lacks: ClassVar[str]

    def fit(self, evidence: Evidence, labels: Tensor) -> None:
        """Skip the cell, with the reason."""
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


class _WithHalfTheDimensions(Adapted):
    """A detector whose subspace has half as many dimensions as the features, unless a parameter sets them."""

    def fit(self, evidence: Evidence, labels: Tensor) -> None:
        """Fit with the default number of dimensions filled in."""
        chosen = self._parameters
        self._parameters = {**chosen, "d": chosen["d"] or evidence.features.shape[1] // 2}
        try:
            super().fit(evidence, labels)
        finally:
            self._parameters = chosen


def _any_weight(name: str) -> bool:
    return True


def _all_weights(evidence: Evidence) -> Callable[[str], bool]:
    """The same as the default of pytorch-ood, but picklable."""
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


@dataclass(frozen=True)
class _Randomness:
    """How a detector uses random numbers.

    Attributes:
        seeded: Whether it uses random numbers, so that it gets a parameter ``seed``.
        stochastic: Whether its scores are random.
    """

    seeded: bool = False
    stochastic: bool = False


_DETERMINISTIC = _Randomness()
_SEEDED = _Randomness(seeded=True)
_STOCHASTIC = _Randomness(seeded=True, stochastic=True)


def _adapt(
    name: str,
    of: str,
    interface: Interface,
    arguments: Arguments,
    base: type[Adapted] = Adapted,
    *,
    parameters: Mapping[str, tuple[Any, Any]] | None = None,
    lacks: str = "",
    randomness: _Randomness = _DETERMINISTIC,
    no_effect_on_scores: tuple[str, ...] = (),
    needs: tuple[str, ...] = (),
) -> DetectorPlugin:
    """Make a detector plugin of a class of pytorch-ood.

    Args:
        name: Name of the plugin.
        of: Name of the class in ``pytorch_ood.detector``.
        interface: The methods by which it is called.
        arguments: Arguments of its constructor that are made from the evidence.
        base: Subclass of ``Adapted`` with special behaviour.
        parameters: Types and defaults that differ from those of its constructor, or are missing there.
        lacks: For ``_Unusable``: why it cannot run on any suite.
        randomness: How it uses random numbers.
        no_effect_on_scores: Parameters that change no score.
        needs: Further parts of the evidence.
    """
    class_ = getattr(theirs, of)
    seed = {"seed": (int, 0)} if randomness.seeded else {}
    signature = _signature(class_, arguments, {**(parameters or {}), **seed})
    attributes = {
        "theirs": class_,
        "interface": interface,
        "arguments": dict(arguments),
        "seeded": randomness.seeded,
        "lacks": lacks,
        "__doc__": _description(class_),
        "__module__": __name__,
        "__qualname__": name.replace("-", "_"),
        "__signature__": signature,
    }
    scoring = ONLY_IN_SCORING.get(of, ())
    attributes |= {parameter: _of_theirs(parameter) for parameter in scoring}
    parts = dict.fromkeys([interface.part, *needs, *(part for make in arguments.values() for part in PARTS_OF[make])])
    either = issubclass(base, _AtEither)
    declare = detector(
        name,
        needs=_needs_at if either else tuple(parts),
        fitted_on="training" if class_.requires_fit else "meta",
        stochastic=randomness.stochastic,
        no_effect_on_scores=no_effect_on_scores,
        search_space={
            key: values
            for key, values in getattr(class_, "hyperparameter_space", {}).items()
            if key in signature.parameters
        },
        only_in_scoring=scoring,
    )
    return declare(type(name.replace("-", "_"), (base,), attributes))


def _signature(class_: Any, arguments: Arguments, changed: Mapping[str, tuple[Any, Any]]) -> inspect.Signature:  # noqa: ANN401
    """The parameters that users may set: those of the constructor, with changed types and defaults."""
    offered = {
        key: (parameter.annotation, parameter.default)
        for key, parameter in inspect.signature(class_, eval_str=True).parameters.items()
        if key not in arguments and key not in NOT_OFFERED and parameter.kind is not parameter.VAR_KEYWORD
    }
    return inspect.Signature([
        inspect.Parameter(key, inspect.Parameter.KEYWORD_ONLY, annotation=annotation, default=default)
        for key, (annotation, default) in (offered | dict(changed)).items()
    ])  # fmt: skip


def _of_theirs(parameter: str) -> property:
    """An attribute of a detector that is a parameter of theirs; a new value is set on a copy of it."""

    def change(adapted: Adapted, value: object) -> None:
        adapted._detector = copy(adapted._detector)
        setattr(adapted._detector, parameter, value)

    return property(lambda adapted: getattr(adapted._detector, parameter), change)


def _description(class_: Any) -> str:  # noqa: ANN401
    paper = class_.info.paper if class_.info else None
    source = f" ({paper.title}, {paper.venue} {paper.year}, {paper.url})" if paper else ""
    return f"{class_.__name__} of pytorch-ood{source}."


_no_model: Arguments = {"model": _nothing}
_no_encoder: Arguments = {"encoder": _nothing}
_with_last_layer: Arguments = {"encoder": _nothing, "head": _last_layer}
_with_weights: Arguments = {"encoder": _nothing, "w": _weight, "b": _bias}
_with_head: Arguments = {"backbone": _nothing, "head": _head}
_with_classifier: Arguments = {"model": _classifier}
_with_all_weights: Arguments = {"model": _classifier, "param_filter": _all_weights}

energy_based = _adapt("energy-based", "EnergyBased", LOGITS, _no_model)
entropy = _adapt("entropy", "Entropy", LOGITS, _no_model)
gen = _adapt(
    "gen", "GEN", LOGITS, _no_model, _OfAllProbabilities, parameters={"M": (int | None, None), "cut": (bool, True)}
)
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
    _Unusable,
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
    _Unusable,
    lacks="it needs text embeddings of the classes from a vision-language model, which no suite's classifier is",
)
nci = _adapt("nci", "NCI", FEATURES, _with_last_layer)
nn_guide = _adapt("nn-guide", "NNGuide", FEATURES, _with_last_layer)
pnml = _adapt("pnml", "PNML", FEATURES, _with_last_layer)
rmd = _adapt("rmd", "RMD", FEATURES, _no_encoder)
she = _adapt("she", "SHE", FEATURES, _with_last_layer)
vim = _adapt("vim", "ViM", FEATURES, _with_weights, _WithHalfTheDimensions, parameters={"d": (int | None, None)})

ash = _adapt(
    "ash",
    "ASH",
    FEATURE_MAPS,
    _with_head,
    _AtEither,
    parameters={"variant": (Literal["ash-s", "ash-p", "ash-b"], "ash-s"), "at": (At, "feature-maps")},
)
rank_feat = _adapt("rank-feat", "RankFeat", FEATURE_MAPS, _with_head)
react = _adapt("react", "ReAct", FEATURE_MAPS, _with_head, _AtEither, parameters={"at": (At, "feature-maps")})
scale = _adapt("scale", "SCALE", FEATURE_MAPS, _with_head, _AtEither, parameters={"at": (At, "feature-maps")})
vra = _adapt(
    "vra",
    "VRA",
    FEATURE_MAPS,
    _with_head,
    _WithCommonLimits,
    parameters={"at": (At, "feature-maps"), "over": (Literal["each", "all"], "each")},
)

grad_norm = _adapt("grad-norm", "GradNorm", INPUTS, _with_all_weights, no_effect_on_scores=("micro_batch_size",))
grad_uncertainty = _adapt("grad-uncertainty", "GradUncertainty", INPUTS, _with_all_weights)
mcd = _adapt(
    "mcd",
    "MCD",
    INPUTS,
    _with_classifier,
    _WithDropout,
    parameters={"mode": (Literal["var", "mean"], "var")},
    randomness=_STOCHASTIC,
    no_effect_on_scores=("batch_norm",),
)
odin = _adapt("odin", "ODIN", INPUTS, _with_classifier)
mahalanobis_odin = _adapt(
    "mahalanobis-odin",
    "MahalanobisODIN",
    INPUTS,
    {"encoder": _encoder},
    _OnFeaturesAndInputs,
    needs=("features",),
    no_effect_on_scores=("norm_std",),  # by itself: with eps = 0, nothing is perturbed
)
nacue = _adapt("nacue", "NACUE", INPUTS, {"model": _whole, "layers": _stages})
gram = _adapt(
    "gram", "Gram", INPUTS, {"head": _head, "feature_layers": _stages, "num_classes": _classes}, randomness=_SEEDED
)
multi_mahalanobis = _adapt("multi-mahalanobis", "MultiMahalanobis", INPUTS, {"model": _stages})
