"""Collects the evidence of a trained classifier: each part of each split when it is first asked for."""

from collections.abc import Collection, Sequence
from functools import cached_property, partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from oodbench.cache.entries import Cache
from oodbench.classifiers.classifier import Classifier
from oodbench.classifiers.network_parts import NETWORK_PARTS, NetworkParts
from oodbench.classifiers.probe import Probe, outputs_of, picture_inputs, sample_inputs
from oodbench.datasets.first_samples import first_samples
from oodbench.datasets.splits import Split
from oodbench.errors import CellSkippedError
from oodbench.evidence.batches import batch_of, halving
from oodbench.evidence.caching import evidence_of
from oodbench.evidence.evidence import Evidence
from oodbench.evidence.inputs import Inputs
from oodbench.evidence.one_pass import over_batches
from oodbench.evidence.parts import COLLECTED, Values
from oodbench.gradients.copying import copied
from oodbench.machine.progress import Track


class EvidenceCollector:
    """A classifier and its evidence so far.

    Args:
        classifier: The trained classifier.
        cache: Where evidence is kept.
        image: A prepared image (C, H, W), to find the shapes of the classifier's activations.
        track: Shows progress.

    Attributes:
        batch: The smallest batch size that was needed because memory was short; None if the usual size sufficed.
    """

    def __init__(self, classifier: Classifier, cache: Cache, image: NDArray[np.generic], track: Track) -> None:
        self.classifier = classifier
        self.batch: int | None = None
        self._example = classifier.to_input(torch.from_numpy(image[None]))
        self._cache = cache
        self._track = track
        self._collected: dict[tuple[str, str], dict[str, Values]] = {}
        self._feature_maps: dict[tuple[str, str], Tensor] = {}
        self._probes: dict[tuple[str, str], Probe] = {}

    def collect(self, split: Split, needs: Collection[str]) -> None:
        """Collect those of the needed parts of a split that the classifier has, in one pass, and the logits.

        Parts that are not collected in passes over the samples are left to be made when they are asked for.
        """
        self._collected_of(split, {"logits", *needs} - ({"features"} if self.probe(split).features is None else set()))

    def evidence(self, split: Split, needs: Collection[str]) -> Evidence:
        """The evidence of a split: the logits, and those needed parts that have a value for each sample.

        Args:
            split: The samples.
            needs: The parts that are needed.

        Raises:
            CellSkippedError: The classifier has no feature maps, or no penultimate features.
        """
        if "features" in needs and self.probe(split).features is None:
            raise CellSkippedError(
                "it needs penultimate features, and the classifier has no Linear layer with its outputs after them: "
                "end it in one, or name the layer whose input they are (penultimate)"
            )
        parts: dict[str, Any] = dict(self._collected_of(split, {"logits", *needs}))
        if "inputs" in needs:
            parts["inputs"] = Inputs(partial(self.classifier.read_inputs, split), len(split.labels))
        if "feature_maps" in needs:
            parts["feature_maps"] = self._feature_maps_of(split)
        return Evidence(**parts)

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
        return self._copy() if any(part in NETWORK_PARTS for part in needs) else None

    def _collected_of(self, split: Split, parts: Collection[str]) -> dict[str, Values]:
        """Those of the parts that are collected in passes over the samples."""
        there = self._collected.setdefault((split.dataset, split.use), {})
        wanted = [part for part in COLLECTED if part in parts]
        missing = [part for part in wanted if part not in there]
        if missing:
            found, batch = evidence_of(self.classifier, split, missing, self._cache, self._track, self.probe(split))
            there |= found
            self._note_batch(batch)
        return {part: there[part] for part in wanted}

    def _feature_maps_of(self, split: Split) -> Tensor:
        key = split.dataset, split.use
        if key not in self._feature_maps:
            backbone = nn.Sequential(*self._copy().stages)
            what = f"feature maps of {split.dataset} ({split.use})"

            def in_batches_of(batch: int) -> Tensor:
                def measure(replica: nn.Module, start: int) -> Tensor:
                    with torch.no_grad():
                        maps: Tensor = replica(self.classifier.read_inputs(split, slice(start, start + batch))).float()
                    return maps

                starts = range(0, len(split.labels), batch)
                return torch.cat(list(over_batches(backbone, starts, measure, self._track, what)))

            self._feature_maps[key], batch = halving(self.usual_batch, what, in_batches_of)
            self._note_batch(batch)
        return self._feature_maps[key]

    def _note_batch(self, batch: int) -> None:
        if batch < self.usual_batch:
            self.batch = min(batch, self.batch or batch)

    @property
    def usual_batch(self) -> int:
        """Number of samples that the network gets at once, where memory suffices."""
        return batch_of(self.classifier.preprocessing.shape)

    def _copy(self) -> NetworkParts:
        return NetworkParts(copied(self.classifier.network), self._example, self.classifier.penultimate)
