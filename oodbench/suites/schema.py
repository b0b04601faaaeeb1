"""The keys of a suite file with their defaults."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from oodbench.registry.parameters import split_spec

Group = Literal["near", "far", "-"]
# Largest seed that all random number generators accept.
MAX_SEED = 2**63 - 1
# Value of `weights` for those that torchvision or timm provide.
PRETRAINED = "pretrained"


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Input(_Table):
    """The form that every image is converted to before the classifier gets it.

    Attributes:
        channels: 1 (grey) or 3 (RGB).
        size: Height and width in pixels.
        resolution: If set, height and width in pixels that every image is resized to first, so that sharpness does
            not reveal the data set.
        levels: If set, number of grey values that are kept after that, for the same reason.
        mean: If set, mean that is subtracted from each channel, for values from 0 to 1.
        std: Standard deviation that each channel is then divided by.
    """

    channels: Literal[1, 3] = 1
    size: int = Field(default=28, ge=8, le=1024)
    resolution: int | None = Field(default=None, ge=2, le=1024)
    levels: int | None = Field(default=None, ge=2, le=256)
    mean: list[Annotated[float, Field(ge=0, le=1)]] | None = None
    std: list[Annotated[float, Field(gt=0, le=1)]] | None = None

    @property
    def normalisation(self) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
        """Mean and standard deviation of each channel; None if the suite does not normalise."""
        return None if self.mean is None or self.std is None else (tuple(self.mean), tuple(self.std))


class Sizes(_Table):
    """Maximum number of samples in each split; None takes all that are available.

    Attributes:
        train: Known samples that the classifier is trained on.
        meta: Known samples that detectors are fitted on (the known meta split).
        test: Known samples that detectors are tested on.
        exposed: Samples of each unknown set that detectors may be fitted on, if a protocol exposes it.
        unknown: Samples of each unknown set that detectors are tested on.
    """

    train: int | None = Field(default=None, ge=1)
    meta: int | None = Field(default=None, ge=1)
    test: int | None = Field(default=None, ge=1)
    exposed: int | None = Field(default=None, ge=1)
    unknown: int | None = Field(default=None, ge=1)


class Training(_Table):
    """Hyper-parameters of the classifier's training (AdamW with a 1cycle learning rate schedule)."""

    epochs: int = Field(default=5, ge=1)
    batch_size: int = Field(default=128, ge=1)
    learning_rate: float = Field(default=2e-3, gt=0)
    weight_decay: float = Field(default=1e-4, ge=0)


class Source(BaseModel):
    """A data set of a suite: an adapter with its parameters, and the group of the data set.

    Attributes:
        adapter: Name of the adapter.
        group: ``near`` or ``far`` for unknown sets, ``-`` for the known set.
        parameters: Parameters of the adapter.
    """

    model_config = ConfigDict(frozen=True)
    adapter: str
    group: Group = "-"
    parameters: dict[str, Any] = {}


class Suite(_Table):
    """The content of a suite file.

    Attributes:
        classifier: Name of a plugin, ``module:factory``, ``file.py:factory``, ``torchvision:NAME`` or ``timm:NAME``.
        weights: File of its weights, or ``pretrained``; None trains it. ``{seed}`` in the file name stands for the
            seed, so that each seed has its own file.
        penultimate: Name of the Linear layer whose input is the penultimate features; None finds the layer.
        known: The known data set: an adapter with parameters, or a table with the key ``adapter``.
        seeds: A classifier is trained for each seed.
        unknown: Table of each unknown data set, by its name.
    """

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    version: int = Field(ge=1)
    classifier: str = "cnn"
    weights: str | None = None
    penultimate: str | None = None
    known: str | dict[str, Any]
    seeds: list[Annotated[int, Field(ge=0, le=MAX_SEED)]] = Field(default=[0, 1, 2], min_length=1)
    unknown: dict[str, dict[str, Any]] = Field(min_length=1)
    input: Input = Input()
    sizes: Sizes = Sizes()
    training: Training = Training()

    @property
    def known_name(self) -> str:
        """Name of the known set in tables and records."""
        if isinstance(self.known, str):
            return split_spec(self.known)[0]
        return str(self.known.get("name", self.known.get("adapter")))

    @property
    def is_one_training(self) -> bool:
        """Whether all seeds share the same weights, from a single training."""
        return self.weights is not None and "{seed}" not in self.weights

    def sources(self) -> dict[str, Source]:
        """The data sets by name: first the known set, then the unknown sets."""
        known = {"adapter": self.known} if isinstance(self.known, str) else self.known
        return {self.known_name: source_of(self.known_name, known)} | {
            name: source_of(name, table) for name, table in self.unknown.items()
        }


def source_of(name: str, table: dict[str, Any]) -> Source:
    """The data set that a table of a suite file describes; its adapter defaults to ``name``."""
    rest = {key: value for key, value in table.items() if key not in ("adapter", "group", "name")}
    adapter, parameters = split_spec(str(table.get("adapter", name)))
    return Source(adapter=adapter, group=table.get("group", "-"), parameters=parameters | rest)
