"""Training: the same weights for the same data, hyper-parameters and seed, whatever else the machine does."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from oodbench.progress import Track
from oodbench.suites.suite import Training
from oodbench.threads import operator_threads

# Fixed, since sums over a batch depend on the number of threads they are spread over.
THREADS = 2


Normalisation = tuple[tuple[float, ...], tuple[float, ...]]
"""Mean and standard deviation of each channel, of values from 0 to 1."""


def to_input(images: Tensor, normalisation: Normalisation | None = None) -> Tensor:
    """uint8 images (N, C, H, W) to float32 from 0 to 1, as classifiers get them; normalised if they want that."""
    values = images.float() / 255
    if normalisation is None:
        return values
    mean, std = (torch.tensor(one)[:, None, None] for one in normalisation)
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
    """Minimise the cross-entropy by AdamW with a one-cycle learning rate.

    Args:
        build: Makes the untrained network.
        images: uint8 (N, C, H, W).
        labels: int64 (N,).
        settings: Hyper-parameters.
        seed: Of the initial weights, of dropout, and of the order of the samples.
        track: Shows progress.
        normalisation: Of the images, if the network wants one.

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
        plan = (order for _ in range(settings.epochs) for order in torch.split(torch.randperm(n), batch))
        for chosen in track(plan, settings.epochs * steps, f"training, seed {seed}"):
            loss = F.cross_entropy(network(to_input(images[chosen], normalisation)), labels[chosen])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
    return network.eval()
