"""All evidence of one trained classifier: each part of each split is collected when it is first asked for."""

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from oodbench.classifiers.pieces import PIECES, Pieces
from oodbench.classifiers.store import Classifier
from oodbench.datasets.splits import Split
from oodbench.evidence.batches import batch_of, halving
from oodbench.evidence.collection import feature_maps
from oodbench.evidence.evidence import OF_ONE_PASS, Evidence
from oodbench.evidence.store import evidence_of
from oodbench.progress import Track

FORWARD = ("logits", "features")


class Observatory:
    """A classifier and what was read off it so far.

    Args:
        classifier: The trained classifier.
        cache: The cache folder.
        image: uint8 (C, H, W), one of the training images, to see what shapes the classifier makes of it.
        track: Shows progress.

    Attributes:
        batch: How few images were taken at once where memory was too short for the usual number; None where it was not.
    """

    def __init__(self, classifier: Classifier, cache: Path, image: NDArray[np.uint8], track: Track) -> None:
        self.classifier = classifier
        self.batch: int | None = None
        self._example = classifier.to_input(torch.from_numpy(image[None]))
        self._cache = cache
        self._track = track
        self._known: dict[tuple[str, ...], Any] = {}

    def evidence(self, split: Split, needs: Sequence[str] = OF_ONE_PASS) -> Evidence:
        """The parts of the evidence of a split that have something for each sample; the logits always.

        Raises:
            CellSkippedError: The classifier has no such part.
        """
        wanted = {part: self._part(split, part) for part in ("logits", *needs) if part not in ("scores", *PIECES)}
        return Evidence(**wanted)

    def pieces(self, needs: Sequence[str]) -> Pieces | None:
        """A copy of the classifier that can be taken apart; None where nobody needs any of it."""
        if not any(part in PIECES for part in needs):
            return None
        return self._pieces()

    def _part(self, split: Split, part: str) -> Any:  # noqa: ANN401
        if part in OF_ONE_PASS:
            # The training split is large, and few want more of it than a forward pass gives.
            is_light = split.part == "train" and part in FORWARD
            parts = FORWARD if is_light else OF_ONE_PASS
            return getattr(self._once(split, parts, lambda: self._collected(split, parts)), part)
        if part == "inputs":
            return self.classifier.to_input(torch.from_numpy(split.images))
        return self._once(split, (part,), lambda: self._feature_maps(split))

    def _once(self, split: Split, parts: tuple[str, ...], make: Any) -> Any:  # noqa: ANN401
        key = (split.dataset, split.part, *parts)
        if key not in self._known:
            self._known[key] = make()
        return self._known[key]

    def _collected(self, split: Split, parts: tuple[str, ...]) -> Evidence:
        found, batch = evidence_of(self.classifier, split, parts, self._cache, self._track)
        self._took(split, batch)
        return found

    def _feature_maps(self, split: Split) -> Tensor:
        backbone = nn.Sequential(*self._pieces().stages)
        what = f"feature maps of {split.dataset} ({split.part})"
        found, batch = halving(
            batch_of(split.images),
            what,
            lambda batch: feature_maps(
                backbone, split.images, self.classifier.to_input, self._track, what, batch=batch
            ),
        )
        self._took(split, batch)
        return found

    def _took(self, split: Split, batch: int) -> None:
        if batch < batch_of(split.images):
            self.batch = min(batch, self.batch or batch)

    def _pieces(self) -> Pieces:
        return Pieces(copy.deepcopy(self.classifier.network), self._example, self.classifier.penultimate)
