"""A suite under one seed: its splits and the trained classifier."""

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from oodbench.datasets.splits import Split
from oodbench.errors import CellSkippedError, OodbenchError, UsageError
from oodbench.evidence import Evidence
from oodbench.evidence.collector import EvidenceCollector
from oodbench.records.record import ClassifierIdentity
from oodbench.registry.isolation import UNLIMITED, TimeLimit
from oodbench.runs.model_checks import find_strange
from oodbench.runs.spec import RunSpec
from oodbench.suites.schema import Group

logger = logging.getLogger(__name__)

# A trained classifier below this multiple of the accuracy of guessing is warned of.
HARDLY = 1.5


@dataclass(frozen=True)
class SuiteIdentity:
    """What records say of the suite of a trial.

    Attributes:
        name: Name of the suite.
        version: Its version.
        groups: The group of each data set.
        plugins: Distribution and version of all plugins but detectors, by kind and name.
        missing: Names of its unknown sets that were left out since their files are missing.
        weights_from: What its classifier's weights are called; None if it is trained.
    """

    name: str
    version: int
    groups: Mapping[str, Group]
    plugins: Mapping[str, str]
    missing: tuple[str, ...] = ()
    weights_from: str | None = None


@dataclass(frozen=True)
class TrainedClassifier:
    """A classifier of the suite, trained with one of its seeds.

    Attributes:
        identity: What decides its evidence, as records have it.
        collector: The classifier and its evidence.
    """

    identity: ClassifierIdentity
    collector: EvidenceCollector


@dataclass(frozen=True)
class Trial:
    """What detectors are fitted and tested on: the splits of a suite and a classifier that was trained with one seed.

    Attributes:
        suite: What records say of the suite.
        seed: The seed of the classifier's training.
        spec: What is run.
        classifier: What decides the evidence of the classifier, as records have it.
        collector: The trained classifier and its evidence.
        train: Known samples that the classifier was trained on; None if there are none.
        meta: Known samples that detectors are fitted on.
        test: Known samples that detectors are tested on.
        exposed: Unknown samples that detectors may be fitted on, by data set.
        unknown: Unknown samples that detectors are tested on, by data set.
        evidence_ms: Milliseconds for each sample that some parts of the evidence take; None if they were not measured.
        time_limit: How long a detector may take.
        is_trained: Whether the classifier was trained for the run, and not given with its weights.
        probe: Numbers that stand for the classifier's outputs on fixed pictures and samples of each test set.
        held_back: Number of samples of each unknown set that are kept for exposure.
        validation: Unknown samples that parameters are chosen by, by data set.
        covariate: Known samples under a shift that detectors are tested on, by data set.
        classes: The class that each output of the classifier stands for.
        members: Makes the classifiers of all seeds of the suite, by seed, when an ensemble first asks for them.
    """

    suite: SuiteIdentity
    seed: int
    spec: RunSpec
    classifier: ClassifierIdentity
    collector: EvidenceCollector
    train: Split | None
    meta: Split
    test: Split
    exposed: Mapping[str, Split]
    unknown: Mapping[str, Split]
    evidence_ms: Callable[[tuple[str, ...]], float | None]
    time_limit: TimeLimit = UNLIMITED
    is_trained: bool = True
    probe: Mapping[str, list[float]] = field(default_factory=dict)
    held_back: Mapping[str, int] = field(default_factory=dict)
    validation: Mapping[str, Split] = field(default_factory=dict)
    covariate: Mapping[str, Split] = field(default_factory=dict)
    classes: Sequence[str] = ()
    members: Callable[[], Mapping[int, TrainedClassifier]] = dict

    def tested(self) -> list[Split]:
        """All test sets of the run, the known one first, then known ones under a shift."""
        return [self.test, *self.covariate.values(), *self.unknown.values()]

    def scored(self) -> list[Split]:
        """All splits that detectors score: to choose a threshold, and to be tested."""
        return [self.meta, *self.exposed.values(), *self.tested()]

    def fitting(self, exposed: Sequence[str]) -> list[Split]:
        """The known meta split, and the exposed samples of some unknown sets."""
        return [self.meta, *(self.exposed[name] for name in exposed)]

    def choosing(self) -> list[Split]:
        """The splits that parameters are chosen by: known and unknown samples that are never tested on.

        Raises:
            CellSkippedError: The suite has no such unknown samples.
        """
        if not self.validation:
            raise CellSkippedError(f"the suite {self.suite.name} has no sets in [validation] to choose parameters by")
        return [self.meta, *self.validation.values()]

    def evidence(self, split: Split, needs: Collection[str]) -> Evidence:
        """Those needed parts of the evidence of a split that have a value for each sample."""
        evidence = self.collector.evidence(split, needs)
        if "member_logits" not in needs:
            return evidence
        logits = {str(seed): one.collector.evidence(split, ()).logits for seed, one in self._trusted_members().items()}
        return Evidence(**evidence.parts, member_logits=logits)

    def predictions(self, split: Split) -> Tensor:
        """The predicted classes, int64 (N,)."""
        return self.collector.evidence(split, ()).predictions

    def wrong(self, split: Split) -> NDArray[np.bool_]:
        """Whether each sample is wrongly classified or unknown, bool (N,)."""
        is_wrong: NDArray[np.bool_] = (self.predictions(split) != torch.from_numpy(split.labels)).numpy()
        return is_wrong

    def collect_evidence(
        self, needs: Collection[str], of_training: Collection[str], of_validation: Collection[str]
    ) -> None:
        """Collect evidence in one pass over each split, where it was not collected before.

        Args:
            needs: The parts that are needed of all splits that detectors score.
            of_training: The parts that are needed of the training split.
            of_validation: The parts that are needed of the validation sets.

        Raises:
            UsageError: The classifier's outputs on known samples are strange, and the user does not trust it.
        """
        self._refuse_strange(self.strange)
        for split in self.scored():
            self.collector.collect(split, needs)
        if self.train is not None and of_training:
            self.collector.collect(self.train, of_training)
        for split in self.validation.values() if of_validation else ():
            self.collector.collect(split, of_validation)

        if "member_logits" in needs:
            with suppress(OodbenchError):  # it costs the ensemble's cells, which say so
                self._collect_members(trains=bool(of_training))

        classes = len(np.unique(self.test.labels))
        if self.is_trained and self.accuracy < HARDLY / classes:
            logger.warning(
                "the classifier %s with seed %d is right on %.1f %% of the known test samples of %d classes, which is "
                "hardly better than chance: train it for more epochs, or look at its input.",
                self.collector.classifier.name,
                self.seed,
                100 * self.accuracy,
                classes,
            )

    def _collect_members(self, *, trains: bool) -> None:
        """Collect the logits of an ensemble's members, on the training split too if a detector is fitted on it."""
        for member in self._trusted_members().values():
            for split in [*self.scored(), *([self.train] if trains and self.train else [])]:
                member.collector.collect(split, ())

    def _trusted_members(self) -> Mapping[int, TrainedClassifier]:
        """The members of an ensemble.

        Raises:
            OodbenchError: One cannot be had, or its outputs are strange, and the user does not trust it.
        """
        members = self.members()
        for seed in members.keys() - self._checked:
            collector = members[seed].collector
            found = find_strange(collector, self.meta, self.test, self.classes, is_given=not self.is_trained)
            self._refuse_strange([f"the network of seed {seed}, a member of the ensemble: {one}" for one in found])
            self._checked.add(seed)
        return members

    @cached_property
    def _checked(self) -> set[int]:
        """Seeds of members whose outputs were looked at."""
        return {self.seed}

    def _refuse_strange(self, found: Sequence[str]) -> None:
        if found and not self.spec.trust_model:
            raise UsageError(f"{' '.join(found)} To go on all the same, use --trust-model.")

    @cached_property
    def strange(self) -> list[str]:
        """What is strange about the classifier's outputs on known samples, a sentence for each finding."""
        return find_strange(self.collector, self.meta, self.test, self.classes, is_given=not self.is_trained)

    @cached_property
    def accuracy(self) -> float:
        """Accuracy of the classifier on the known test samples."""
        return float(1 - self.wrong(self.test).mean())
