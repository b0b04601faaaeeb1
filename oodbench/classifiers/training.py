"""Training of classifiers, reproducible: the same data, hyper-parameters and seed give the same weights."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from oodbench.journal.passes import told
from oodbench.machine.device import FLOAT32, Computing, forked_random, seed_random
from oodbench.machine.progress import Track
from oodbench.machine.threads import in_order, operator_threads, processors
from oodbench.suites.schema import Training

# Fixed, since the rounding of sums over a batch depends on the number of threads.
THREADS = 2
# Batches that are read ahead.
AHEAD = 4

Read = Callable[[Tensor], Tensor]
"""Reads and prepares the samples at some positions (N,): float32 (N, C, H, W)."""

Normalisation = tuple[tuple[float, ...], tuple[float, ...]]
"""Mean and standard deviation of each channel, for values from 0 to 1."""


def to_input(images: Tensor, normalisation: Normalisation | None = None) -> Tensor:
    """Convert uint8 images (N, C, H, W) to float32 from 0 to 1, the classifier's input, and normalise them if asked.

    Images of float32 come from a transform, and are the input already.
    """
    if images.is_floating_point():
        return images
    values = images.float() / 255
    if normalisation is None:
        return values
    mean, std = (torch.tensor(channels)[:, None, None] for channels in normalisation)
    return (values - mean) / std


def train(
    build: Callable[[], nn.Module],
    read: Read,
    labels: Tensor,
    settings: Training,
    seed: int,
    track: Track,
    computing: Computing = FLOAT32,
) -> nn.Module:
    """Minimise the cross-entropy by AdamW with a 1cycle learning rate schedule.

    Args:
        build: Makes the untrained network.
        read: Reads inputs; batches are read beside the training, on other threads.
        labels: int64 (N,).
        settings: Hyper-parameters.
        seed: Seed of the initial weights, of dropout and of the order of the samples.
        track: Shows progress.
        computing: Where, and in which precision.

    Returns:
        The network in eval mode, on the device.
    """
    n, batch, device = len(labels), settings.batch_size, computing.device
    sizes = batch_sizes(n, batch)
    with forked_random(device), operator_threads(THREADS), ThreadPoolExecutor(processors()) as pool:
        seed_random(seed, device)
        network = build().to(device).train()
        optimizer = torch.optim.AdamW(
            network.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay
        )
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, max_lr=settings.learning_rate, total_steps=max(2, settings.epochs * len(sizes))
        )

        def batches() -> Iterator[tuple[Tensor, Tensor]]:
            # Read ahead within an epoch only, as the order of the next comes after the random numbers of this one.
            for _ in range(settings.epochs):
                chosen = torch.split(torch.randperm(n), sizes)
                yield from zip(in_order(pool, read, chosen, AHEAD), (labels[some] for some in chosen), strict=True)

        for inputs, of_inputs in told(batches(), sizes * settings.epochs, track, f"training, seed {seed}"):
            with computing.autocast():
                logits = network(inputs.to(device))
            loss = F.cross_entropy(logits.float(), of_inputs.to(device))
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
    return network.eval()


def batch_sizes(n: int, batch: int) -> list[int]:
    """Sizes of the batches of an epoch; a single sample that is left joins the batch before, as BatchNorm needs two."""
    sizes = [min(batch, n - start) for start in range(0, n, batch)]
    return [*sizes[:-2], batch + 1] if len(sizes) > 1 and batch > 1 and sizes[-1] == 1 else sizes
