"""Training of classifiers, reproducible: the same data, hyper-parameters and seed give the same weights."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from oodbench.machine.progress import Track
from oodbench.machine.threads import operator_threads
from oodbench.suites.schema import Training

# Fixed, since the rounding of sums over a batch depends on the number of threads.
THREADS = 2


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
    images: Tensor,
    labels: Tensor,
    settings: Training,
    seed: int,
    track: Track,
    normalisation: Normalisation | None = None,
) -> nn.Module:
    """Minimise the cross-entropy by AdamW with a 1cycle learning rate schedule.

    Args:
        build: Makes the untrained network.
        images: uint8 or float32 (N, C, H, W).
        labels: int64 (N,).
        settings: Hyper-parameters.
        seed: Seed of the initial weights, of dropout and of the order of the samples.
        track: Shows progress.
        normalisation: Mean and standard deviation of each channel; None for no normalisation.

    Returns:
        The network in eval mode.
    """
    n, batch = len(images), settings.batch_size
    steps = -(-n // batch)
    with torch.random.fork_rng(devices=[]), operator_threads(THREADS):
        torch.manual_seed(seed)
        network = build().train()
        optimizer = torch.optim.AdamW(
            network.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay
        )
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, max_lr=settings.learning_rate, total_steps=max(2, settings.epochs * steps)
        )
        batches = (indices for _ in range(settings.epochs) for indices in torch.split(torch.randperm(n), batch))
        for chosen in track(batches, settings.epochs * steps, f"training, seed {seed}"):
            loss = F.cross_entropy(network(to_input(images[chosen], normalisation)), labels[chosen])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
    return network.eval()
