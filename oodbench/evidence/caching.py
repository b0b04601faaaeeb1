"""Cache of evidence: an entry for each part, by the content of weights and images and the version of the engine."""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.metadata import version
from typing import Any

import torch
from torch import Tensor, nn

from oodbench.cache.entries import Cache, kept_of_same_network
from oodbench.cache.shards import Sharding, ShardPlan
from oodbench.cache.tensor_files import Kept, joined, kind_of
from oodbench.classifiers.classifier import Classifier
from oodbench.classifiers.network_parts import NetworkParts
from oodbench.classifiers.probe import Probe, without_probe
from oodbench.datasets.splits import Split
from oodbench.errors import OodbenchError
from oodbench.evidence.batches import batch_of, halving
from oodbench.evidence.one_pass import over_batches
from oodbench.evidence.parts import EvidencePart, PartFailedError, Values, parts_of_batch, pass_device, ready
from oodbench.gradients.entries import path
from oodbench.machine.memory import give_back
from oodbench.machine.progress import Track

# To be raised whenever the gradient engine gives other numbers.
ENGINE_VERSION = 2
# Samples of a shard: what a process that is killed loses at most.
SHARD = 1024


def engine(device: torch.device) -> str:
    """Identifies the gradient engine to the last bit on a device: its version and the implementation of its sums."""
    return f"{ENGINE_VERSION}, {path() if device.type == 'cpu' else 'torch'}"


def evidence_of(
    network: Callable[[torch.device], NetworkParts],
    classifier: Classifier,
    split: Split,
    parts: Sequence[EvidencePart],
    cache: Cache,
    track: Track,
    outputs: Probe,
) -> tuple[dict[str, Values], int]:
    """Parts of the evidence of a split: each from the cache, or else collected in a pass that all missing parts share.

    Args:
        network: Makes a copy of the network on a device.
        classifier: The trained classifier.
        split: The samples.
        parts: The parts.
        cache: Where evidence is kept.
        track: Shows progress.
        outputs: What the classifier computes on the fixed pictures and on samples of the split.

    Returns:
        The parts by name, and the batch size that they were collected with.
    """
    computing = classifier.computing
    of_all: dict[str, Any] = {
        "weights": classifier.weights_sha256,
        "architecture": architecture(classifier.network),
        "images": hashlib.sha256(split.digests.tobytes()).hexdigest(),
        "preprocessing": classifier.preprocessing.identity,
        "penultimate": classifier.penultimate,
        "code": classifier.code,
        "torch": version("torch"),
        **computing.identity,
    }
    what = f"evidence of {split.dataset} ({split.use})"
    by_name, device = {part.name: part for part in parts}, pass_device(parts, computing)

    def in_batches_of(batch: int) -> dict[str, Values]:
        identities = {part.name: {**of_all, "batch": batch, **_identity(part, device)} for part in parts}
        starts = range(0, len(split.labels), batch)
        per_shard = max(1, SHARD // batch)
        shards = [starts[i : i + per_shard] for i in range(0, len(starts), per_shard)]
        sharding = Sharding(
            len(shards),
            lambda plan: _collected(network, classifier, split, by_name, plan, shards, batch, track, what),
            outputs.tensors(),
            outputs.is_of,
        )
        kept = cache.kept_in_shards("evidence", identities, sharding)
        return {part: _from_tensors(*without_probe(of_part)) for part, of_part in kept.items()}

    return halving(batch_of(classifier.preprocessing.shape, computing), what, in_batches_of)


def _identity(part: EvidencePart, device: torch.device) -> dict[str, str]:
    """What a part depends on beside network and images."""
    identity = {"part": part.name} | ({"engine": engine(device)} if part.needs == "backward" else {})
    return {**identity, "part code": part.code} if part.code else identity


def _collected(
    network: Callable[[torch.device], NetworkParts],
    classifier: Classifier,
    split: Split,
    parts: Mapping[str, EvidencePart],
    plan: ShardPlan,
    shards: Sequence[range],
    batch: int,
    track: Track,
    what: str,
) -> Iterator[tuple[int, dict[str, Kept]]]:
    """Collect the parts that shards lack: yields the number of each shard, and its parts.

    Args:
        network: Makes a copy of the network on a device.
        classifier: The trained classifier.
        split: The samples.
        parts: The parts by name.
        plan: Shards by their number, with the parts that they lack.
        shards: The first samples of the batches of each shard.
        batch: The batch size.
        track: Shows progress.
        what: What is collected, for messages.
    """
    batches = [(start, missing) for shard, missing in plan for start in shards[shard]]
    sizes = [min(batch, len(split.labels) - start) for start, _ in batches]
    asked_for, computing = list(parts.values()), classifier.computing
    device = pass_device(asked_for, computing)

    def read(asked: tuple[int, Sequence[str]]) -> Tensor:
        return classifier.read_inputs(split, slice(asked[0], asked[0] + batch))

    def measure(replica: NetworkParts, inputs: Tensor, asked: tuple[int, Sequence[str]]) -> dict[str, Values]:
        return parts_of_batch(replica, inputs, [parts[name] for name in asked[1]], computing)

    measured = over_batches(
        lambda: ready(network(device), asked_for), batches, read, measure, device, sizes, track, what
    )
    kinds: dict[str, object] = {}
    for shard, missing in plan:
        chunks = [_to_tensors(next(measured)) for _ in shards[shard]]
        for chunk in chunks:
            for name in missing:
                kind = kind_of(chunk[name])
                _refuse_other_kind(name, kinds.setdefault(name, kind), kind)
        give_back()
        yield shard, {part: joined([chunk[part] for chunk in chunks]) for part in missing}
    next(measured, None)  # its end, which its progress counts as the end of the last batch


def _refuse_other_kind(part: str, first: object, kind: object) -> None:
    """Refuse values of a batch that are of other names, types or shapes than those of the first.

    Raises:
        PartFailedError: They are.
    """
    if first != kind:
        reason = f"its values have one type and shape in one batch, and others in another: {first} and {kind}"
        raise PartFailedError(part, OodbenchError(f"the part {part} of the evidence cannot be computed: {reason}"))


def network_number(classifier: Classifier, test: Split, cache: Cache, outputs: Probe) -> int:
    """Which of the networks that share name, code and weights a classifier is, told by what it computes.

    Args:
        classifier: The classifier.
        test: The known test split.
        cache: Where outputs of networks are kept.
        outputs: What the classifier computes on the fixed pictures and on samples of the test split.

    Returns:
        The number, 0 for the first network of its kind.
    """
    identity = {
        "weights": classifier.weights_sha256,
        "architecture": architecture(classifier.network),
        "code": classifier.code,
        "penultimate": classifier.penultimate,
        "preprocessing": classifier.preprocessing.identity,
        "images": test.sha256,
    }
    _, number = kept_of_same_network(cache, "networks", identity, lambda: (outputs.tensors(), {}), outputs.is_of)
    return number


def architecture(network: nn.Module) -> str:
    """The network's class and layers, as they print."""
    return f"{type(network).__module__} {network}"


def _to_tensors(parts: Mapping[str, Values]) -> dict[str, Kept]:
    """Parts as they are kept: samples are the first dimension of each tensor."""
    return {
        part: ({"values": values}, {})
        if isinstance(values, Tensor)
        else ({"values": torch.stack(list(values.values()), dim=1)}, {"names": json.dumps(list(values))})
        for part, values in parts.items()
    }


def _from_tensors(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> Values:
    values = tensors["values"]
    if "names" not in metadata:
        return values
    return dict(zip(json.loads(metadata["names"]), values.unbind(dim=1), strict=True))
