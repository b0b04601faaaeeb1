"""Collects the evidence of a trained classifier: each part of each split when it is first asked for."""

from collections.abc import Collection, Sequence
from functools import cached_property, partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from oodbench.cache.entries import Cache
from oodbench.classifiers.classifier import Classifier
from oodbench.classifiers.network_parts import NETWORK_PARTS, NetworkParts
from oodbench.classifiers.probe import Probe, outputs_of, picture_inputs, sample_inputs
from oodbench.datasets.first_samples import first_samples
from oodbench.datasets.splits import Split
from oodbench.errors import CellSkippedError, OodbenchError
from oodbench.evidence.batches import batch_of, halving
from oodbench.evidence.caching import evidence_of
from oodbench.evidence.evidence import Evidence
from oodbench.evidence.inputs import Inputs
from oodbench.evidence.parts import EvidencePart, PartFailedError, Values, collected
from oodbench.gradients.copying import copied
from oodbench.machine.device import CPU
from oodbench.machine.progress import Track

# Modules of the network that parts are computed by, so that a network without them has no such parts.
MODULES = {"features": "encoder", "feature_maps": "stages"}
# What detectors need that go through the network; the last layer alone is small.
THROUGH_NETWORK = {"inputs", "feature_maps", *NETWORK_PARTS} - {"last_layer"}


def goes_through_network(needs: Collection[str]) -> bool:
    """Whether a detector with these needs goes through the network, so that it gets its evidence batch by batch."""
    return not THROUGH_NETWORK.isdisjoint(needs)


class EvidenceCollector:
    """A classifier and its evidence so far.

    Args:
        classifier: The trained classifier.
        cache: Where evidence is kept.
        image: A prepared image (C, H, W), to find the shapes of the classifier's activations.
        track: Shows progress.

    Attributes:
        track: Shows progress.
        batch: The batch size, if it is not the one that is usual for such images: it was asked for, or the memory was
            short (then the smallest); None if it is the usual one.
    """

    def __init__(self, classifier: Classifier, cache: Cache, image: NDArray[np.generic], track: Track) -> None:
        self.classifier = classifier
        self.batch: int | None = classifier.computing.batch
        self._example = classifier.to_input(torch.from_numpy(image[None]))
        self._cache = cache
        self.track = track
        self._collected: dict[tuple[str, str], dict[str, Values]] = {}
        self._failed: dict[str, OodbenchError | CellSkippedError] = {}
        self._probes: dict[tuple[str, str], Probe] = {}

    def collect(self, split: Split, needs: Collection[str]) -> None:
        """Collect the logits and those of the needed parts of a split that can be computed, in one pass.

        Parts that are not collected in passes over the samples are left to be made when they are asked for.
        """
        there = self._collected.setdefault((split.dataset, split.use), {})
        parts = [part for part in collected({"logits", *needs}) if part.name not in there]
        while missing := [part for part in parts if self._failure_of(part) is None]:
            try:
                found, batch = evidence_of(
                    self._copy, self.classifier, split, missing, self._cache, self.track, self.probe(split)
                )
            except PartFailedError as failed:
                # The others are collected without it, from the shard on in which it failed.
                self._failed[failed.part] = failed.reason
                continue
            there |= found
            self._note_batch(batch)
            return

    def evidence(self, split: Split, needs: Collection[str]) -> Evidence:
        """The evidence of a split: the logits, and those needed parts that have a value for each sample.

        Args:
            split: The samples.
            needs: The parts that are needed.

        Raises:
            CellSkippedError: The classifier has no feature maps, or no penultimate features.
            OodbenchError: A part cannot be computed.
        """
        parts = collected({"logits", *needs})
        self.collect(split, needs)
        for part in parts:
            failure = self._failure_of(part)
            if failure is not None:
                raise failure
        there = self._collected[split.dataset, split.use]
        found: dict[str, Any] = {part.name: there[part.name] for part in parts}
        if "inputs" in needs:
            found["inputs"] = Inputs(partial(self.classifier.read_inputs, split), len(split.labels))
        return Evidence(**found)

    def probe(self, split: Split) -> Probe:
        """What the classifier computes on the fixed pictures and on the first samples of a split."""
        key = split.dataset, split.use
        if key not in self._probes:
            preprocessing = self.classifier.preprocessing
            inputs = sample_inputs(preprocessing, first_samples(split, preprocessing, self._cache))
            what = f"evidence of {split.dataset} ({split.use})"
            of_samples, _ = halving(1, what, lambda _: self._outputs_of(inputs))
            self._probes[key] = self._of_pictures.followed_by(of_samples)
        return self._probes[key]

    @cached_property
    def _of_pictures(self) -> Probe:
        return self._outputs_of(picture_inputs(self.classifier.preprocessing))

    def _outputs_of(self, inputs: Tensor) -> Probe:
        return outputs_of(self.classifier.network, inputs, self.classifier.penultimate)

    def network_parts(self, needs: Sequence[str]) -> NetworkParts | None:
        """The modules of a copy of the classifier; None if ``needs`` names none of them."""
        return self._copy(self.device_for(needs)) if any(part in NETWORK_PARTS for part in needs) else None

    def device_for(self, needs: Collection[str]) -> torch.device:
        """Where a detector gets its evidence: where the classifier is, if it goes through it; else the processor."""
        return self.classifier.computing.device if goes_through_network(needs) else CPU

    def _failure_of(self, part: EvidencePart) -> OodbenchError | CellSkippedError | None:
        """Why a part cannot be computed, as far as that is known."""
        module = MODULES.get(part.name)
        if module is not None and part.name not in self._failed and (lack := self._lack_of(module)) is not None:
            self._failed[part.name] = lack
        return self._failed.get(part.name)

    def _lack_of(self, module: str) -> CellSkippedError | None:
        try:
            getattr(self._own_parts, module)
        except CellSkippedError as lack:
            return lack
        return None

    @cached_property
    def _own_parts(self) -> NetworkParts:
        classifier, device = self.classifier, self.classifier.computing.device
        return NetworkParts(classifier.network, self._example.to(device), classifier.penultimate)

    def _note_batch(self, batch: int) -> None:
        if batch < self.usual_batch:
            self.batch = min(batch, self.batch or batch)

    @property
    def usual_batch(self) -> int:
        """Number of samples that the network gets at once, where memory suffices."""
        return batch_of(self.classifier.preprocessing.shape, self.classifier.computing)

    def _copy(self, device: torch.device) -> NetworkParts:
        network = copied(self.classifier.network).to(device)
        return NetworkParts(network, self._example.to(device), self.classifier.penultimate)
