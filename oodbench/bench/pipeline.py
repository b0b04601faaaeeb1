"""Measures what an image costs from its file to its evidence, and which stage is the bottleneck.

Pictures of a usual size are written to a folder, and passes are made over them as a run makes them. Stages follow from
passes that lack some of them; the stages of one image add up on a processor, and overlap on a GPU.
"""

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image as Pillow
from torch import Tensor, nn

from oodbench.bench.measure import forward_and_backward
from oodbench.bench.networks import find_network
from oodbench.classifiers.network_parts import NetworkParts
from oodbench.classifiers.training import to_input
from oodbench.datasets.adapter import Decoding
from oodbench.datasets.decoding import read_pictures
from oodbench.datasets.preparation import Preprocessing
from oodbench.evidence.one_pass import over_batches
from oodbench.evidence.parts import EvidencePart, collected, parts_of_batch
from oodbench.gradients.copying import copied
from oodbench.machine.device import Computing, synchronise
from oodbench.machine.progress import Track, silent
from oodbench.machine.threads import processors
from oodbench.suites.schema import Input

# Number of pictures, and their width and height, about the mean of ImageNet's.
PICTURES, SIZE = 96, (500, 375)
# A pass is repeated so often, and the best counts.
REPETITIONS = 3

Positions = Sequence[int]
Read = Callable[[Positions], Tensor]
Measure = Callable[[NetworkParts, Tensor, Positions], object]


@dataclass(frozen=True)
class Stage:
    """A stage or a pass, and what it takes: milliseconds for each image."""

    name: str
    ms: float


@dataclass(frozen=True)
class Pipeline:
    """What images cost from their files to evidence.

    Attributes:
        network: Name of the network.
        pictures: Width and height of the pictures in the files.
        size: Width and height of its input.
        batch: Images at once.
        device: Where it computes.
        stages: Reading, decoding (with preparing), network (forward, and backward) and statistics.
        passes: Whole passes for the logits and for gradient metrics: from files, and of images in memory.
        bottleneck: The stage that takes longest, by what is collected.
    """

    network: str
    pictures: tuple[int, int]
    size: int
    batch: int
    device: str
    stages: list[Stage]
    passes: list[Stage]
    bottleneck: dict[str, str]


def measure_pipeline(name: str, computing: Computing, size: int | None = None, track: Track = silent) -> Pipeline:
    """Measure the stages from files to evidence.

    Args:
        name: Name of a network.
        computing: Where the network computes, and how many images at once.
        size: Width and height of its input; by default the network's.
        track: Shows progress.

    Raises:
        UsageError: There is no such network.
    """
    network = find_network(name)
    input = Input.model_validate({"channels": network.shape[0], "size": size or network.shape[1]})
    batch = computing.batch or network.batch
    preprocessing = Preprocessing(input)
    with tempfile.TemporaryDirectory() as folder:
        names = _written(Path(folder))
        pictures = read_pictures(Path(folder), names, Decoding(), invert=False)

        def read(positions: Positions) -> Tensor:
            return to_input(torch.from_numpy(preprocessing.prepare([pictures[i] for i in positions])))

        def read_bytes(positions: Positions) -> Tensor:
            return torch.tensor([len((Path(folder) / names[i]).read_bytes()) for i in positions])

        in_memory = read([i % PICTURES for i in range(batch)])
        logits, gradients = (partial(_evidence, computing, collected((part,))) for part in ("logits", "gradients"))
        model = network.build().eval()
        pass_over = partial(_ms_of_pass, model, in_memory[:1], computing)
        passes: dict[str, tuple[Read, Measure]] = {
            "reading": (read_bytes, _nothing),
            "reading and decoding": (read, _nothing),
            "forward": (lambda _: in_memory, logits),
            "forward and backward": (lambda _: in_memory, _backward),
            "gradients, images in memory": (lambda _: in_memory, gradients),
            "logits, files": (read, logits),
            "gradients, files": (read, gradients),
        }
        ms = {key: pass_over(batch, *of_pass) for key, of_pass in track(passes.items(), len(passes), f"{name}, files")}
    network_ms, both = ms["forward"], ms["forward and backward"]
    stages = {
        "reading": ms["reading"],
        "decoding": max(0.0, ms["reading and decoding"] - ms["reading"]),
        "network, forward": network_ms,
        "network, backward": max(0.0, both - network_ms),
        "statistics": max(0.0, ms["gradients, images in memory"] - both),
    }
    of_files = {key: stages[key] for key in ("reading", "decoding")}
    return Pipeline(
        network=name,
        pictures=SIZE,
        size=input.size,
        batch=batch,
        device=str(computing.device),
        stages=[Stage(*stage) for stage in stages.items()],
        passes=[
            Stage("logits, images in memory", network_ms),
            Stage("logits, from files", ms["logits, files"]),
            Stage("gradient metrics, images in memory", ms["gradients, images in memory"]),
            Stage("gradient metrics, from files", ms["gradients, files"]),
        ],
        bottleneck={
            "logits": _longest({**of_files, "the network": network_ms}),
            "gradient metrics": _longest({**of_files, "the network": both, "statistics": stages["statistics"]}),
        },
    )


def _longest(stages: dict[str, float]) -> str:
    return max(stages, key=lambda name: stages[name])


def _written(folder: Path) -> list[str]:
    """Write JPEG pictures with the detail of photographs, and return their names."""
    generator = np.random.default_rng(0)
    width, height = SIZE
    names = [f"{i}.jpg" for i in range(PICTURES)]
    for name in names:
        coarse = Pillow.fromarray(generator.integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8))
        smooth = np.asarray(coarse.resize(SIZE, Pillow.Resampling.BICUBIC), dtype=np.int16)
        grain = generator.integers(-8, 9, (height, width, 1), dtype=np.int16)
        Pillow.fromarray((smooth + grain).clip(0, 255).astype(np.uint8)).save(folder / name, quality=90)
    return names


def _ms_of_pass(
    model: nn.Module, example: Tensor, computing: Computing, batch: int, read: Read, measure: Measure
) -> float:
    """Milliseconds for each image of a pass, the best of a few after one that warms up."""
    device = computing.device
    images = max(PICTURES, 2 * processors() * batch)
    batches = [[i % PICTURES for i in range(start, start + batch)] for start in range(0, images - batch + 1, batch)]
    seconds = []
    for _ in range(1 + REPETITIONS):
        start = time.perf_counter()
        for _ in over_batches(
            lambda: NetworkParts(copied(model).to(device), example.to(device)),
            batches,
            read,
            measure,
            device,
            [batch] * len(batches),
            silent,
            "",
        ):
            pass
        synchronise(device)
        seconds.append(time.perf_counter() - start)
    return 1e3 * min(seconds[1:]) / (batch * len(batches))


def _nothing(network: NetworkParts, inputs: Tensor, positions: Positions) -> None:
    """What is measured of images that are only read."""


def _evidence(
    computing: Computing, parts: Sequence[EvidencePart], network: NetworkParts, inputs: Tensor, positions: Positions
) -> object:
    return parts_of_batch(network, inputs, parts, computing)


def _backward(network: NetworkParts, inputs: Tensor, positions: Positions) -> None:
    forward_and_backward(network.network, inputs)
