"""The keys of a suite file with their defaults."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from oodbench.registry.parameters import split_spec

Group = Literal["near", "far", "covariate", "-"]
"""``covariate`` sets have labels of known classes, and images under a shift."""
# Largest seed that all random number generators accept.
MAX_SEED = 2**63 - 1
# Values of `weights` for those that torchvision or timm provide, and for those that are given as an object in Python.
PRETRAINED, GIVEN = "pretrained", "<given>"
# Values of `classes` that are no file.
CLASS_LISTS = ("imagenet-1k",)
Interpolation = Literal["nearest", "bilinear", "bicubic", "box", "lanczos"]


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Input(_Table):
    """How pictures are decoded, and the form that every image is converted to before the classifier gets it.

    Attributes:
        preset: ``model`` takes the preprocessing that belongs to the classifier's weights in torchvision or timm; keys
            beside it override it, one by one. ``none`` takes none. By default, ``model`` for pretrained weights.
        channels: 1 (grey) or 3 (RGB).
        size: Height and width in pixels.
        resize: If set, length in pixels that the short side is resized to, of which the centre of ``size`` is cut out.
            Otherwise the central square is resized to ``size``.
        interpolation: How images are resized. By default ``bilinear`` with ``resize``; without it, area averages where
            images are shrunk and ``bilinear`` where they are enlarged.
        resolution: If set, height and width in pixels that every image is resized to first, so that sharpness does
            not reveal the data set.
        levels: If set, number of grey values that are kept after that, for the same reason.
        mean: If set, mean that is subtracted from each channel, for values from 0 to 1.
        std: Standard deviation that each channel is then divided by.
        transform: ``file.py:function`` or ``module:function``, a PIL image to float32 (C, H, W): instead of all keys
            above.
        ground: Colour that transparent pixels are composited on: a name or ``#rrggbb``.
        orientation: ``stored`` takes pixels as they are stored, as torchvision and timm do; ``exif`` turns them as the
            EXIF data say.
        depth: Number of bits that pixels of more than 8 bits use; None takes 16.
    """

    preset: Literal["model", "none"] | None = None
    channels: Literal[1, 3] = 1
    size: int = Field(default=28, ge=8, le=1024)
    resize: int | None = Field(default=None, ge=8, le=2048)
    interpolation: Interpolation | None = None
    resolution: int | None = Field(default=None, ge=2, le=1024)
    levels: int | None = Field(default=None, ge=2, le=256)
    mean: list[Annotated[float, Field(ge=0, le=1)]] | None = None
    std: list[Annotated[float, Field(gt=0, le=1)]] | None = None
    transform: str | None = None
    ground: str = "white"
    orientation: Literal["stored", "exif"] = "stored"
    depth: int | None = Field(default=None, ge=9, le=16)

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
        exposed: Samples of each unknown set that detectors may be fitted on, if a protocol exposes it; 0 holds none
            back, so that all of the set is tested on.
        unknown: Samples of each unknown set that detectors are tested on.
    """

    train: int | None = Field(default=None, ge=1)
    meta: int | None = Field(default=None, ge=1)
    test: int | None = Field(default=None, ge=1)
    exposed: int | None = Field(default=None, ge=0)
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
        group: ``near`` or ``far`` for unknown sets, ``covariate`` for shifted known ones, ``-`` for the known set.
        split: Name of the split that is tested on; None leaves the choice to the adapter.
        parameters: Parameters of the adapter.
    """

    model_config = ConfigDict(frozen=True)
    adapter: str
    group: Group = "-"
    split: str | None = None
    parameters: dict[str, Any] = {}


class Suite(_Table):
    """The content of a suite file.

    Attributes:
        classifier: Name of a plugin, ``module:factory``, ``file.py:factory``, ``torchvision:NAME``, ``timm:NAME`` or
            ``openood:NAME``.
        weights: File of its weights, or ``pretrained``; None trains it. ``{seed}`` in the file name stands for the
            seed, so that each seed has its own file.
        penultimate: Name of the Linear layer whose input is the penultimate features; None finds the layer.
        classes: Name of the class that each output of the classifier stands for: a file with a name on each line, a
            list, ``imagenet-1k``, or the number of outputs where labels are their numbers. By default the known classes
            in sorted order.
        drawing: What the splits are drawn by: the ``source`` images, so that classifiers with other preprocessing get
            the same samples, or the ``prepared`` ones, as the suites that were published first do.
        duplicates: Whether only the first of equal images of a data set is used, or all of them (``keep``), as in
            benchmarks that count every line of their lists. Splits never share an image.
        known: The known data set: an adapter with parameters, or a table with the key ``adapter``.
        seeds: A classifier is trained for each seed.
        unknown: Table of each unknown data set, by its name; those of the group ``covariate`` are known under a shift.
        validation: Table of each unknown data set that ``tuned`` chooses parameters by. They are never tested on.
    """

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    version: int = Field(ge=1)
    classifier: str = "cnn"
    weights: str | None = None
    penultimate: str | None = None
    classes: str | Annotated[int, Field(ge=2)] | Annotated[list[str], Field(min_length=2)] | None = None
    drawing: Literal["source", "prepared"] = "source"
    duplicates: Literal["drop", "keep"] = "drop"
    known: str | dict[str, Any]
    seeds: list[Annotated[int, Field(ge=0, le=MAX_SEED)]] = Field(default=[0, 1, 2], min_length=1)
    unknown: dict[str, dict[str, Any]] = Field(min_length=1)
    validation: dict[str, dict[str, Any]] = {}
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

    @property
    def has_preset(self) -> bool:
        """Whether the preprocessing is that of the classifier's own weights, perhaps with keys that override it."""
        if self.input.preset is not None:
            return self.input.preset == "model"
        return self.weights == PRETRAINED and self.input.transform is None

    def sources(self) -> dict[str, Source]:
        """The data sets by name: first the known set, then the unknown sets, then those of ``validation``."""
        known = {"adapter": self.known} if isinstance(self.known, str) else self.known
        others = {**self.unknown, **self.validation}
        return {self.known_name: source_of(self.known_name, known)} | {
            name: source_of(name, table | ({"of": known} if self.shifts_known(name) else {}))
            for name, table in others.items()
        }

    def shifts_known(self, name: str) -> bool:
        """Whether a data set is made from the suite's known set, as it does not say from which one."""
        table = self.unknown.get(name, {})
        adapter, parameters = split_spec(str(table.get("adapter", name)))
        return adapter == "corruption" and "of" not in {**parameters, **table}


def source_of(name: str, table: dict[str, Any]) -> Source:
    """The data set that a table of a suite file describes; its adapter defaults to ``name``."""
    rest = {key: value for key, value in table.items() if key not in ("adapter", "group", "name")}
    adapter, parameters = split_spec(str(table.get("adapter", name)))
    parameters |= rest
    split = parameters.pop("split", None)
    return Source(adapter=adapter, group=table.get("group", "-"), split=split, parameters=parameters)
