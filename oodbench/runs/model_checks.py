"""What can be seen of a classifier that is not what the run takes it for, from its outputs on known samples.

Each finding is a sentence that stops the run, unless the user trusts the classifier. A finding needs more than chance:
whatever is claimed to fit better has to do so on samples that it was not chosen on.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from oodbench.classifiers.classifier import Classifier
from oodbench.classifiers.training import Normalisation, to_input
from oodbench.datasets.splits import Split
from oodbench.errors import listed
from oodbench.evidence.batches import batch_of
from oodbench.evidence.collector import EvidenceCollector
from oodbench.machine.threads import operator_threads

# Test samples that other normalisations are tried on.
TRIED = 256
# Outputs that sum to one, or whose exponentials do, are no logits.
SUM_TOLERANCE = 1e-3
# Outputs from 0 to 1 are suspect if one is at least this.
SPREAD = 0.6
# Least gain of accuracy, and the least number of its standard errors, that are told.
BETTER, SURE = 0.05, 3.0
# An order of outputs that is right on fewer samples fits nothing.
FITS = 0.5
# Accuracy below this share of the way from chance to certainty is near chance; with fewer samples, nothing is said.
NEAR_CHANCE, ENOUGH = 0.1, 30
_COMMON: dict[int, dict[str, Normalisation]] = {
    1: {"of MNIST": ((0.1307,), (0.3081,)), "to −1 … 1": ((0.5,), (0.5,))},
    3: {
        "of ImageNet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        "of CIFAR-10": ((0.4914, 0.4822, 0.4465), (0.247, 0.2435, 0.2616)),
        "to −1 … 1": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    },
}


def find_strange(
    collector: EvidenceCollector, meta: Split, test: Split, classes: Sequence[str], *, is_given: bool
) -> list[str]:
    """What is strange about a classifier: a sentence for each finding.

    Args:
        collector: The classifier.
        meta: The known meta split.
        test: The known test split.
        classes: The class that each output stands for.
        is_given: Whether its weights were given, so that it should know the known classes.
    """
    splits = [meta, test]
    logits = [collector.evidence(split, ()).logits.double() for split in splits]
    labels = [torch.from_numpy(split.labels) for split in splits]
    name = collector.classifier.name
    strange = _strange_outputs(name, torch.cat(logits))
    if strange or not is_given:
        return strange
    predictions = [of_split.argmax(dim=1).numpy() for of_split in logits]
    halves = [p == y.numpy() for p, y in zip(predictions, labels, strict=True)]
    right = np.concatenate(halves)
    found = _permutation(name, predictions, [y.numpy() for y in labels], classes)
    found += _normalisation(collector.classifier, splits[1], labels[1])
    # Each split by itself, too: the labels of one alone may be wrong.
    named = [
        ("known samples", right),
        *((f"samples of {split.dataset} ({split.use})", r) for split, r in zip(splits, halves, strict=True)),
    ]
    chance = 1 / len(np.unique(np.concatenate([y.numpy() for y in labels])))
    low = [one for one in named if len(one[1]) >= ENOUGH and one[1].mean() < chance + NEAR_CHANCE * (1 - chance)]
    if low and not found:
        what, of_split = low[0]
        found.append(
            f"the classifier {name} is right on {_percent(of_split)} of {len(of_split):,} {what}, which is near "
            f"chance ({100 * chance:.1f} %), although its weights are given: look at its preprocessing ([input]), the "
            "order of its outputs (`classes`), the labels, and whether the weights are trained."
        )
    return found


def _strange_outputs(name: str, logits: Tensor) -> list[str]:
    """Outputs that are the same for all images, or are no logits but probabilities."""
    spread = (logits.amax(dim=0) - logits.amin(dim=0)).max()
    if len(logits) > 1 and spread <= 1e-6 * logits.abs().max():
        return [
            f"the classifier {name} has the same outputs for all of {len(logits):,} known samples; look at its weights "
            "and preprocessing."
        ]
    if bool((logits >= 0).all()) and _is_one(logits.sum(dim=1)):
        return [_no_logits(name, "probabilities: they are not negative and sum to 1", "softmax")]
    if bool((logits <= SUM_TOLERANCE).all()) and _is_one(logits.exp().sum(dim=1)):
        return [_no_logits(name, "log-probabilities: their exponentials sum to 1", "log-softmax")]
    if len(logits) >= ENOUGH and logits.min() >= 0 and SPREAD <= logits.max() <= 1:
        return [_no_logits(name, "all from 0 to 1, as probabilities by themselves are", "sigmoid")]
    return []


def _is_one(sums: Tensor) -> bool:
    return bool(((sums - 1).abs() <= SUM_TOLERANCE).all())


def _no_logits(name: str, what: str, layer: str) -> str:
    return (
        f"the outputs of the classifier {name} are {what} for all known samples; expected logits, since entropy, "
        f"energy and gradients would be those of another function, so take off the {layer} at its end."
    )


def _permutation(
    name: str, predictions: list[NDArray[np.int64]], labels: list[NDArray[np.int64]], classes: Sequence[str]
) -> list[str]:
    """Whether the outputs fit far better in another order, chosen on one half of the samples and tried on the other."""
    right = np.concatenate([p == y for p, y in zip(predictions, labels, strict=True)])
    moved = [_assignment(p, y, len(classes)) for p, y in zip(predictions, labels, strict=True)]
    tried = np.concatenate([
        moved[1][predictions[0]] == labels[0],
        moved[0][predictions[1]] == labels[1],
    ])  # fmt: skip
    if not _is_better(tried, right) or tried.mean() < FITS:
        return []
    order = _assignment(np.concatenate(predictions), np.concatenate(labels), len(classes))
    others = [output for output in range(len(classes)) if order[output] != output]
    shown = listed(
        [f"output {output} for {classes[order[output]]} instead of {classes[output]}" for output in others], 3
    )
    return [
        f"the classifier {name} is right on {_percent(right)} of {len(right):,} known samples if its outputs stand for "
        f"the known classes in the order {', '.join(classes[:4])}{', …' if len(classes) > 4 else ''}, and on "
        f"{_percent(tried)} in another order ({shown}): say which output is which class by `classes` in the "
        "suite."
    ]


def _assignment(predictions: NDArray[np.int64], labels: NDArray[np.int64], n: int) -> NDArray[np.int64]:
    """The class for each output that fits the most samples; outputs that nothing speaks for keep their place."""
    from scipy.optimize import linear_sum_assignment

    counts = np.zeros((n, n))
    np.add.at(counts, (predictions, labels), 1)
    _, assigned = linear_sum_assignment(-(counts + 0.5 * np.eye(n)))
    return np.asarray(assigned)


def _normalisation(classifier: Classifier, split: Split, labels: Tensor) -> list[str]:
    """Whether a common normalisation fits better, where the suite has none."""
    if classifier.preprocessing.normalisation is not None or classifier.preprocessing.transform is not None:
        return []
    images, labels = torch.from_numpy(split.read(split.indices[:TRIED])), labels[:TRIED]
    of_training = _accuracy_of(classifier, images, labels, None)
    # Image by image, since all of them in float64 take eight times their memory.
    moments = torch.stack([torch.stack([(image / 255.0) ** k for k in (1, 2)]).mean(dim=(2, 3)) for image in images])
    mean, square = moments.double().mean(dim=0)
    own = tuple(mean.tolist()), tuple((square - mean**2).clamp(min=1e-6).sqrt().tolist())
    candidates = {**_COMMON[images.shape[1]], "of these images": own}
    rights = {name: _accuracy_of(classifier, images, labels, values) for name, values in candidates.items()}
    best = max(rights, key=lambda name: rights[name].mean())
    if not _is_better(rights[best], of_training):
        return []
    centre, spread = ([round(value, 4) for value in part] for part in candidates[best])
    return [
        f"the classifier {classifier.name} is right on {_percent(of_training)} of {len(images):,} known samples "
        f"without normalisation, and on {_percent(rights[best])} with that {best}: give mean = {centre} and std = "
        f"{spread}, or those of its training, in [input]."
    ]


def _accuracy_of(
    classifier: Classifier, images: Tensor, labels: Tensor, normalisation: Normalisation | None
) -> NDArray[np.bool_]:
    """Whether each sample is classified right, with another normalisation."""
    right = []
    size, device = batch_of(images.shape[1:], classifier.computing), classifier.computing.device
    with torch.no_grad(), operator_threads(1):
        for start in range(0, len(images), size):
            inputs = to_input(images[start : start + size], normalisation).to(device)
            right.append(classifier.network(inputs).argmax(dim=1).cpu() == labels[start : start + size])
    return torch.cat(right).numpy()


def _is_better(candidate: NDArray[np.bool_], now: NDArray[np.bool_]) -> bool:
    """Whether one is right more often, by more than a trifle and more than chance, on the same samples."""
    gain = candidate.astype(float) - now
    error = gain.std() / np.sqrt(len(gain))
    return bool(gain.mean() >= BETTER and gain.mean() >= SURE * error)


def _percent(right: NDArray[np.bool_]) -> str:
    return f"{100 * right.mean():.1f} %"
