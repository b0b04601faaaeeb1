"""Where networks compute: the device, the precision, and the device's random numbers and clock."""

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

from oodbench.errors import MissingPrerequisiteError, UsageError

Precision = Literal["fp32", "amp"]
"""``amp``: the network runs in torch's automatic mixed precision, in bfloat16 where that is accurate enough."""

CPU = torch.device("cpu")
EXPECTED = "auto, cpu, cuda, cuda:N or mps"


@dataclass(frozen=True)
class Computing:
    """How networks compute.

    Attributes:
        device: Where they compute.
        precision: Their precision in training and when evidence is collected; statistics and detectors have float32.
        batch: Number of samples that they get at once when evidence is collected; None for one that fits the images.
    """

    device: torch.device = CPU
    precision: Precision = "fp32"
    batch: int | None = None

    @property
    def identity(self) -> dict[str, str]:
        """What scores depend on beyond float32 accuracy or to the last bit; empty for float32 on the processor."""
        identity = {} if self.device.type == "cpu" else {"device": self.device.type}
        return identity if self.precision == "fp32" else {**identity, "precision": self.precision}

    @property
    def gradient_device(self) -> torch.device:
        """Where gradients are measured, which needs float64: not on the devices of Apple, but on the processor then."""
        return CPU if self.device.type == "mps" else self.device

    def autocast(self, device: torch.device | None = None) -> AbstractContextManager[Any]:
        """A context in which a network runs in the precision.

        Args:
            device: Where the network is, if not on ``device``.
        """
        if self.precision == "fp32":
            return nullcontext()
        return torch.autocast((device or self.device).type, dtype=torch.bfloat16)


FLOAT32 = Computing()
"""On the processor, in float32."""


def find_device(name: str, slot: int = 0) -> torch.device:
    """The device of a name.

    Args:
        name: ``auto`` takes a GPU of CUDA if there is one, otherwise the processor.
        slot: Which process of this machine this is: processes side by side take the GPUs in turn.

    Raises:
        UsageError: There is no such kind of device.
        MissingPrerequisiteError: This machine has no such device.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    kind, _, number = name.partition(":")
    try:
        # Not of the whole name: torch takes large numbers for others.
        device = torch.device(kind)
        torch.get_device_module(device)
        asked = int(number) if number or name != kind else None
        if (asked or 0) < 0 or (device.type == "cpu" and asked is not None):
            raise ValueError
    except (RuntimeError, AttributeError, ValueError):
        raise UsageError(f"the device is {name!r}; expected {EXPECTED}.") from None
    if device.type == "cpu":
        return CPU
    if device.type == "cuda":  # what the matrix products of CUDA need to be the same each time, read when it starts
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    count = device_count(device)
    index = slot % max(1, count) if asked is None else asked
    if index >= count:
        there = ", ".join(["cpu", *(f"{device.type}:{i}" for i in range(count))])
        raise MissingPrerequisiteError(f"the device {name} is not there; torch finds here: {there}.")
    return torch.device(device.type, index)


def device_count(device: torch.device) -> int:
    """How many devices of a type this machine has."""
    module = torch.get_device_module(device)
    is_there = torch.backends.mps.is_available() if device.type == "mps" else module.is_available()
    return int(module.device_count()) if is_there else 0


def device_of(network: nn.Module) -> torch.device:
    """Where a network's weights are."""
    return next((tensor.device for tensor in network.parameters()), CPU)


def synchronise(device: torch.device) -> None:
    """Wait until a device has done what it was given, for honest times."""
    if device.type != "cpu":
        torch.get_device_module(device).synchronize()


@contextmanager
def forked_random(device: torch.device = CPU) -> Iterator[None]:
    """Restore torch's random numbers, those of a device too, after the context."""
    of_device = None if device.type == "cpu" else torch.get_device_module(device)
    where = () if device.type == "mps" else (device,)
    state, on_device = torch.get_rng_state(), None if of_device is None else of_device.get_rng_state(*where)
    try:
        yield
    finally:
        torch.set_rng_state(state)
        if of_device is not None:
            of_device.set_rng_state(on_device, *where)


def seed_random(seed: int, device: torch.device = CPU) -> None:
    """Seed torch's random numbers, and those of a device."""
    # Not torch.manual_seed, which queues a call for each GPU that is not in use.
    torch.default_generator.manual_seed(seed)
    if device.type != "cpu":
        torch.get_device_module(device).manual_seed(seed)


def deterministic() -> tuple[bool, bool]:
    """Whether torch takes algorithms that give the same each time, and whether it only warns where there are none."""
    return torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()


def set_deterministic(chosen: tuple[bool, bool]) -> None:
    """Set what ``deterministic`` says."""
    if deterministic() != chosen:
        # Only if it changes, since the call imports torch's compiler.
        torch.use_deterministic_algorithms(chosen[0], warn_only=chosen[1])


@contextmanager
def full_precision(device: torch.device = CPU) -> Iterator[None]:
    """Compute in full float32, and alike each time, inside the context: no TF32, and no kernels that are tried out."""
    precision = torch.get_float32_matmul_precision()
    strict = deterministic()
    torch.set_float32_matmul_precision("highest")
    if device.type == "cuda":  # elsewhere it is so already
        set_deterministic((True, True))
    try:
        with torch.backends.cudnn.flags(
            enabled=torch.backends.cudnn.enabled, benchmark=False, deterministic=True, allow_tf32=False
        ):
            yield
    finally:
        torch.set_float32_matmul_precision(precision)
        set_deterministic(strict)
