"""Measures the cost of evidence on this machine, relative to one forward and one backward pass.

All candidates are measured in turn in one process, since machines are noisy: in each of a few rounds the best of some
repetitions counts, and a ratio is the median over the rounds of ratios within a round.
"""

import ctypes
import importlib.util
import os
import platform
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from oodbench.bench.networks import find_network
from oodbench.evidence.one_pass import over_batches
from oodbench.gradients import forward, gradient_metrics
from oodbench.gradients.copying import copied
from oodbench.gradients.entries import path
from oodbench.machine.device import CPU, synchronise
from oodbench.machine.memory import forget_peak, peak_mib, resident_mib
from oodbench.machine.progress import Track, silent
from oodbench.machine.threads import processors

ROUNDS = 3
REPETITIONS = 5
# A candidate whose first run takes longer is not run again: noise of a few per cent does not matter to it.
LONG = 5.0
# Samples of which the batch-1 loop takes the time; its cost for each does not depend on their number.
LOOP = 8
REFERENCE = "forward + backward"


@dataclass(frozen=True)
class Cost:
    """The cost of a candidate.

    Attributes:
        name: The candidate.
        ms: Milliseconds for each image; None if it was not measured.
        ratio: Cost relative to one forward and backward pass.
        memory: Peak memory beyond that in use before, in MiB; None if the platform does not tell.
        note: Why it was not measured, or how.
    """

    name: str
    ms: float | None
    ratio: float | None
    memory: float | None
    note: str = ""


@dataclass(frozen=True)
class Report:
    """The costs of all candidates on one network.

    Attributes:
        network: Name of the network.
        batch: Images in a batch.
        parameters: Number of its parameters.
        costs: The cost of each candidate.
        limit_ms: Milliseconds an image that the arithmetic and the memory traffic of the evidence pass would take at
            this machine's own peak rates.
        machine: The machine and software that it was measured on.
    """

    network: str
    batch: int
    parameters: int
    costs: list[Cost]
    limit_ms: float
    machine: dict[str, Any]


def measure(name: str, batch: int | None = None, track: Track = silent, device: torch.device = CPU) -> Report:
    """Measure all candidates on a network.

    Args:
        name: One of ``NETWORKS``.
        batch: Images in a batch; by default the network's.
        track: Shows progress.
        device: Where the network computes.

    Raises:
        UsageError: There is no such network.
    """
    network = find_network(name)
    n = batch or network.batch
    torch.manual_seed(0)
    model, inputs = network.build().eval().to(device), torch.randn(n, *network.shape).to(device)
    candidates, absent = _candidates(model, inputs)
    # The first run warms up, and shows which candidates are long.
    memory, first = {}, {}
    for key, (run, _) in track(candidates.items(), len(candidates), f"{name}, memory"):
        memory[key], first[key] = _first_run(run, device)
    short = {key: run for key, (run, _) in candidates.items() if first[key] <= LONG}
    rounds = []
    for _ in track(range(ROUNDS), ROUNDS, f"{name}, time"):
        best = first | _best_in_turn(short, device)
        rounds.append({key: best[key] / images for key, (_, images) in candidates.items()})
    costs = [_cost(key, rounds, memory[key], "" if key in short else "one run") for key in candidates] + absent
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return Report(name, n, parameters, costs, _limit(model, inputs), machine(device))


def machine(device: torch.device) -> dict[str, Any]:
    """The machine and software that measurements are made on."""
    on_gpu = {"device": torch.cuda.get_device_name(device)} if device.type == "cuda" else {"device": str(device)}
    return {
        **({} if device.type == "cpu" else on_gpu),
        "processor": _processor_name(),
        "processors": processors(),
        "torch": version("torch"),
        "statistics": path() if device.type == "cpu" else "torch",
        "platform": platform.platform(),
    }


def _candidates(model: nn.Module, inputs: Tensor) -> tuple[dict[str, tuple[Callable[[], object], int]], list[Cost]]:
    """The candidates, with the number of images of one run; and those that are not installed."""
    n, workers = len(inputs), processors()
    batches = [inputs] * workers
    candidates: dict[str, tuple[Callable[[], object], int]] = {
        "forward": (partial(_forward, model, inputs), n),
        "forward + backward, operators spread": (partial(forward_and_backward, model, inputs), n),
        "forward + backward, samples spread": (partial(_spread, model, batches, forward_and_backward), n * workers),
        "evidence pass": (partial(_spread, model, batches, _evidence), n * workers),
        "evidence pass, confounding label too": (partial(_spread, model, batches, _all_evidence), n * workers),
        "gradient_metrics, one call": (partial(gradient_metrics, model, inputs), n),
        "batch-1 loop": (partial(_loop, model, inputs[:LOOP]), min(n, LOOP)),
        "vmap, chunks of 32": (partial(_vmap, model, inputs), n),
    }
    absent = []
    if importlib.util.find_spec("gradient_metrics"):
        candidates[f"gradient-metrics {version('gradient-metrics')}"] = (partial(_authors_package, model, inputs), n)
    else:
        absent.append(Cost("gradient-metrics", None, None, None, "not installed"))
    if importlib.util.find_spec("pytorch_ood"):
        candidates[f"pytorch-ood {version('pytorch-ood')} GradNorm"] = (partial(_gradnorm, model, inputs), n)
    else:
        absent.append(Cost("pytorch-ood GradNorm", None, None, None, "not installed"))
    return candidates, absent


def _cost(name: str, rounds: Sequence[Mapping[str, float]], memory: float | None, note: str) -> Cost:
    """Medians over the rounds; the reference is the faster forward and backward pass of each round."""
    ratios = [
        of_round[name] / min(value for key, value in of_round.items() if key.startswith(REFERENCE))
        for of_round in rounds
    ]
    return Cost(name, 1e3 * median(of_round[name] for of_round in rounds), median(ratios), memory, note)


def _best_in_turn(runs: Mapping[str, Callable[[], object]], device: torch.device) -> dict[str, float]:
    """The best seconds over some repetitions, each of which runs all candidates, so that noise hits all alike."""
    repetitions = [{key: _seconds(run, device) for key, run in runs.items()} for _ in range(REPETITIONS)]
    return {key: min(seconds[key] for seconds in repetitions) for key in runs}


def _seconds(run: Callable[[], object], device: torch.device) -> float:
    # Peers warn of operations that vmap has no batched form of; that they are slow is what is measured.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        synchronise(device)
        start = time.perf_counter()
        run()
        synchronise(device)
        return time.perf_counter() - start


def _forward(model: nn.Module, inputs: Tensor) -> None:
    with torch.no_grad():
        model(inputs)


def forward_and_backward(model: nn.Module, inputs: Tensor) -> None:
    """The gradient of all weights, summed over the batch, as in a step of training."""
    model.zero_grad()
    logits = model(inputs)
    F.cross_entropy(logits, logits.argmax(dim=1)).backward()  # type: ignore[no-untyped-call]
    model.zero_grad()


def _evidence(model: nn.Module, inputs: Tensor) -> object:
    with forward(model, inputs) as run:
        return run.logits, run.features, run.metrics("predicted")


def _all_evidence(model: nn.Module, inputs: Tensor) -> object:
    with forward(model, inputs) as run:
        return run.logits, run.features, run.metrics("predicted"), run.squared_norm("confounding")


def _spread(model: nn.Module, batches: Sequence[Tensor], step: Callable[[nn.Module, Tensor], object]) -> None:
    def measured(replica: nn.Module, inputs: Tensor, _: Tensor) -> object:
        return step(replica, inputs)

    for _ in over_batches(
        partial(copied, model),
        batches,
        lambda inputs: inputs,
        measured,
        CPU,
        [len(inputs) for inputs in batches],
        silent,
        "",
    ):
        pass


def _loop(model: nn.Module, inputs: Tensor) -> None:
    """One backward pass for each sample, with the statistics over all weights alone."""
    parameters = list(model.parameters())
    for i in range(len(inputs)):
        logits = model(inputs[i : i + 1])
        gradients = torch.autograd.grad(F.cross_entropy(logits, logits.argmax(dim=1)), parameters)
        _statistics(torch.cat([gradient.flatten() for gradient in gradients])[None])


def _vmap(model: nn.Module, inputs: Tensor) -> None:
    """Per-sample gradients by torch.func, with the statistics over all weights alone."""
    parameters = {name: parameter.detach() for name, parameter in model.named_parameters()}
    buffers = dict(model.named_buffers())

    def loss(weights: dict[str, Tensor], image: Tensor, label: Tensor) -> Tensor:
        logits = torch.func.functional_call(model, (weights, buffers), (image[None],))
        return F.cross_entropy(logits, label[None])

    with torch.no_grad():
        labels = model(inputs).argmax(dim=1)
    gradient = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0, 0))
    for start in range(0, len(inputs), 32):
        chunk = slice(start, start + 32)
        gradients = gradient(parameters, inputs[chunk], labels[chunk])
        _statistics(torch.cat([of_layer.flatten(1) for of_layer in gradients.values()], dim=1))


def _statistics(gradients: Tensor) -> None:
    """The seven statistics of gradients (N, K)."""
    gradients.abs().sum(1), gradients.norm(dim=1), gradients.aminmax(dim=1)
    mean, std = gradients.mean(1, keepdim=True), gradients.std(1, correction=0)
    (gradients - mean).pow_(3).mean(1).div_(std**3)


def _authors_package(model: nn.Module, inputs: Tensor) -> None:
    """The package of the paper's author with all its metrics, used as its README shows."""
    from gradient_metrics import GradientMetricCollector  # type: ignore[import-untyped]
    from gradient_metrics.metrics import Max, MeanStd, Min, PNorm  # type: ignore[import-untyped]

    metrics = [PNorm(model, p=1), PNorm(model, p=2), Min(model), Max(model), MeanStd(model)]
    logits = model(inputs)
    GradientMetricCollector(metrics)(F.cross_entropy(logits, logits.argmax(dim=1), reduction="none"))


def _gradnorm(model: nn.Module, inputs: Tensor) -> None:
    from pytorch_ood.detector import GradNorm

    GradNorm(model).predict(inputs)


def _first_run(run: Callable[[], object], device: torch.device = CPU) -> tuple[float | None, float]:
    """Peak memory of a run in MiB beyond that in use before, of the device (None if not known), and its seconds."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device) / 2**20
        seconds = _seconds(run, device)
        return torch.cuda.max_memory_allocated(device) / 2**20 - before, seconds
    if device.type != "cpu":
        return None, _seconds(run, device)
    with suppress(AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
    resident = resident_mib() if forget_peak() else None
    seconds = _seconds(run, device)
    peak = peak_mib()
    return None if resident is None or peak is None else max(0.0, peak - resident), seconds


def _limit(model: nn.Module, inputs: Tensor) -> float:
    """Milliseconds an image at the machine's peak rates, whichever of arithmetic and memory takes longer.

    Arithmetic is counted by torch over one evidence pass. Memory traffic is, for each layer, its input and output
    written and read in the forward pass, and the input read and the output gradient written and read in the backward
    pass; the entries of weight gradients need never reach memory.
    """
    from torch.utils.flop_counter import FlopCounterMode

    few = inputs[: min(len(inputs), 16)]
    with FlopCounterMode(display=False) as counter:
        gradient_metrics(model, few)
    with forward(model, few) as run:
        parts = [part for calls in run.recording.calls.values() for call in calls for part in call]
        numbers = sum(3 * part.input.numel() + 3 * torch.Size(part.output_shape).numel() for part in parts)
    seconds: float = max(
        counter.get_total_flops() / _peak_flops(inputs.device), 4 * numbers / _bandwidth(inputs.device)
    )
    return 1e3 * seconds / len(few)


def _peak_flops(device: torch.device) -> float:
    """Operations a second of a large float32 matrix product."""
    n = 2048
    left, right, out = (torch.randn(n, n).to(device) for _ in range(3))
    (best,) = _best_in_turn({"product": partial(torch.mm, left, right, out=out)}, device).values()
    return 2.0 * n**3 / best


def _bandwidth(device: torch.device) -> float:
    """Bytes a second that a large copy reads and writes."""
    source, target = (torch.ones(64 * 2**20).to(device) for _ in range(2))
    (best,) = _best_in_turn({"copy": partial(target.copy_, source)}, device).values()
    return 2.0 * 4 * source.numel() / best


def _processor_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or os.uname().machine
