"""Collects the evidence of a trained classifier: each part of each split when it is first asked for."""

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from oodbench.cache.entries import Cache
from oodbench.classifiers.classifier import Classifier
from oodbench.classifiers.network_parts import NETWORK_PARTS, NetworkParts
from oodbench.classifiers.probe import Probe, outputs_of, picture_inputs, sample_inputs
from oodbench.datasets.splits import Split
from oodbench.errors import CellSkippedError
from oodbench.evidence.batches import batch_of, halving
from oodbench.evidence.caching import evidence_of
from oodbench.evidence.evidence import OF_ONE_PASS, Evidence
from oodbench.evidence.one_pass import feature_maps
from oodbench.gradients.copying import copied
from oodbench.machine.progress import Track

FORWARD = ("logits", "features")


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
        self._collected: dict[tuple[str, ...], Evidence] = {}
        self._feature_maps: dict[tuple[str, ...], Tensor] = {}
        self._probes: dict[tuple[str, ...], Probe] = {}

    def evidence(self, split: Split, needs: Sequence[str] | None = None) -> Evidence:
        """The evidence of a split: the logits, and those needed parts that have a value for each sample.

        Args:
            split: The samples.
            needs: The parts that are needed; None for those parts of one pass that the classifier has.

        Raises:
            CellSkippedError: The classifier has no feature maps, or no penultimate features.
        """
        if needs is None:
            return self._collected_of(split, OF_ONE_PASS)
        not_per_sample = ("scores", *NETWORK_PARTS)
        return Evidence(**{part: self._part(split, part) for part in ("logits", *needs) if part not in not_per_sample})

    def probe(self, split: Split) -> Probe:
        """What the classifier computes on the fixed pictures and on the first samples of a split."""
        key = split.dataset, split.use
        if key not in self._probes:
            inputs = sample_inputs(self.classifier.preprocessing, split.images)
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

    def _part(self, split: Split, part: str) -> Any:  # noqa: ANN401
        if part == "inputs":
            return self.classifier.to_input(torch.from_numpy(split.images))
        if part == "feature_maps":
            return self._feature_maps_of(split)
        # The training split is large, and most detectors need only the forward pass on it.
        is_light = split.use == "train" and part in FORWARD
        parts = self._collected_of(split, FORWARD if is_light else OF_ONE_PASS).parts
        if part == "features" and part not in parts:
            raise CellSkippedError(
                "it needs penultimate features, and the classifier has no Linear layer with its outputs after them: "
                "end it in one, or name the layer whose input they are (penultimate)"
            )
        return parts[part]

    def _collected_of(self, split: Split, parts: tuple[str, ...]) -> Evidence:
        key = (split.dataset, split.use, *parts)
        if key not in self._collected:
            self._collected[key], batch = evidence_of(
                self.classifier, split, parts, self._cache, self._track, self.probe(split)
            )
            self._note_batch(split, batch)
        return self._collected[key]

    def _feature_maps_of(self, split: Split) -> Tensor:
        key = split.dataset, split.use
        if key not in self._feature_maps:
            backbone = nn.Sequential(*self._copy().stages)
            what = f"feature maps of {split.dataset} ({split.use})"
            to_input, track = self.classifier.to_input, self._track
            self._feature_maps[key], batch = halving(
                batch_of(split.images),
                what,
                lambda batch: feature_maps(backbone, split.images, to_input, track, what, batch=batch),
            )
            self._note_batch(split, batch)
        return self._feature_maps[key]

    def _note_batch(self, split: Split, batch: int) -> None:
        if batch < batch_of(split.images):
            self.batch = min(batch, self.batch or batch)

    def _copy(self) -> NetworkParts:
        return NetworkParts(copied(self.classifier.network), self._example, self.classifier.penultimate)
