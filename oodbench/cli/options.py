"""Options that several verbs share, and the specification and settings that they stand for.

An option is named as the field of ``RunSpec`` or ``RunSettings`` that it sets; one that is not given takes the field's
default.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from oodbench.files.folders import RESULTS

if TYPE_CHECKING:
    from oodbench.machine.progress import Track
    from oodbench.runs.settings import Executor, RunSettings
    from oodbench.runs.spec import RunSpec

data_option = click.option(
    "--data",
    type=click.Path(path_type=Path),
    envvar="OODBENCH_DATA",
    metavar="DIR",
    help="Folder of the data sets. Default: $OODBENCH_DATA, else a folder of the user.",
)
download_option = click.option(
    "--download", is_flag=True, help="Download data sets and pretrained weights that are not there."
)
plugin_option = click.option(
    "--plugin",
    "plugins",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Python file that declares plugins.",
)


_SPEC = (
    click.option(
        "-d",
        "--detector",
        "detectors",
        multiple=True,
        metavar="NAME",
        help="Name, glob ('grad-*') or name with parameters ('grad-l2:layer=conv1'). Default: all.",
    ),
    click.option("-s", "--suite", default="digits", show_default=True, metavar="NAME|FILE", help="Suite or TOML file."),
    click.option("-p", "--protocol", "protocols", multiple=True, metavar="NAME", help="Name or glob. Default: all."),
    click.option(
        "--seed",
        "seeds",
        multiple=True,
        type=click.IntRange(min=0, max=2**63 - 1),
        metavar="N",
        help="Seed of the classifier's training. Default: the suite's.",
    ),
    click.option(
        "--classifier",
        metavar="NAME",
        help="Another classifier than the suite's: a plugin, module:factory, file.py:factory, torchvision:NAME, "
        "timm:NAME or openood:NAME.",
    ),
    click.option(
        "--weights",
        metavar="FILE",
        help="Weights of the classifier (.safetensors, .pt, .th, .ckpt, …), or 'pretrained'; {seed} in it stands for "
        "the seed, and FILE#KEY takes what the file has under KEY.",
    ),
    click.option(
        "--transform",
        metavar="FILE.py:FUNCTION",
        help="A function of a PIL image to float32 (C, H, W), instead of the suite's preprocessing.",
    ),
    click.option(
        "--penultimate", metavar="LAYER", help="Linear layer whose input are the features. Default: it is found."
    ),
    click.option(
        "--set",
        "replace",
        multiple=True,
        callback=lambda context, option, values: dict(_pair(text) for text in values),
        metavar="DATASET=ADAPTER:PATH",
        help="Read a data set of the suite by another adapter.",
    ),
    plugin_option,
    click.option(
        "--limit",
        type=click.IntRange(min=2),
        metavar="N",
        help="At most N samples of each split that is fitted or tested on; for trying out, never for a board.",
    ),
    click.option("--skip-missing", is_flag=True, help="Go on without unknown sets that are not there."),
    click.option("--skip-unreadable", is_flag=True, help="Go on without images that cannot be read, which is counted."),
    click.option(
        "--drop-shared",
        is_flag=True,
        help="Take images that an unknown set shares with another set from it, which is counted.",
    ),
    click.option(
        "--trust-model",
        is_flag=True,
        help="Go on although the classifier's outputs on known samples are strange, which is recorded.",
    ),
    click.option(
        "--timeout",
        type=click.FloatRange(min=0, min_open=True),
        metavar="SECONDS",
        help="A detector that takes longer to be loaded, or to be fitted and to score, fails.",
    ),
    click.option(
        "--device",
        metavar="auto|cpu|cuda[:N]|mps",
        help="Where networks compute. Default: a GPU of CUDA if there is one, else the processor.",
    ),
    click.option(
        "--precision",
        type=click.Choice(["fp32", "amp"]),
        help="Of training and evidence: float32, or automatic mixed precision, which is recorded. Default: fp32.",
    ),
    click.option(
        "--batch",
        type=click.IntRange(min=1),
        metavar="N",
        help="Samples that the network gets at once. Default: as many as suit the images.",
    ),
)
_STORE = (
    click.option(
        "--out",
        type=click.Path(path_type=Path),
        default=RESULTS,
        show_default=True,
        metavar="DIR",
        help="Folder of the results.",
    ),
    click.option(
        "--rerun",
        type=click.Choice(["missing", "failed", "all"]),
        default="failed",
        show_default=True,
        help="Cells to run: those without a record in --out, also those that failed, or all. A finished record stays.",
    ),
    click.option(
        "--log-file",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="Also write what happens to FILE, a line of JSON for each event. For people: `oodbench status`.",
    ),
)


_EXECUTOR = (
    click.option(
        "--executor",
        type=click.Choice(["serial", "dask"]),
        default="serial",
        show_default=True,
        help="Who runs the jobs: this process, or several by Dask. The numbers are the same.",
    ),
    click.option(
        "--workers", type=click.IntRange(min=1), metavar="N", help="Processes of Dask. Default: one a processor."
    ),
    click.option("--scheduler", metavar="ADDRESS", help="A Dask scheduler that runs already, such as tcp://host:8786."),
    click.option(
        "--resource",
        "resources",
        multiple=True,
        metavar="NAME=AMOUNT",
        callback=lambda context, option, values: dict(_amount(text) for text in values),
        help="What a job takes of a Dask worker's resources, such as GPU=1.",
    ),
)


def spec_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of ``RunSpec``: suite, detectors, protocols and all else that decides the numbers."""
    return _decorated(command, _SPEC)


def store_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of the results folder: where records go, and which cells are run again."""
    return _decorated(command, _STORE)


def executor_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of the executor, which runs the jobs."""
    return _decorated(command, _EXECUTOR)


def spec_of(options: Mapping[str, Any]) -> "RunSpec":
    """The specification that the values of ``spec_options`` stand for.

    Raises:
        UsageError: A value cannot be used.
    """
    from oodbench.runs.spec import RunSpec, make_spec

    return make_spec({name: options[name] for name in RunSpec.model_fields if options[name] not in ((), None)})


def settings_of(options: Mapping[str, Any], executor: "Executor", track: "Track") -> "RunSettings":
    """The settings that a verb's options stand for; a verb may have only some of these options."""
    from oodbench.runs.settings import RunSettings

    names = {field.name for field in fields(RunSettings)}
    chosen = {name: value for name, value in options.items() if name in names}
    return RunSettings(**chosen | {"executor": executor, "track": track})


def _decorated(command: Callable[..., Any], options: Sequence[Callable[..., Any]]) -> Callable[..., Any]:
    for option in reversed(options):
        command = option(command)
    return command


def _pair(text: str) -> tuple[str, str]:
    name, equals, adapter = text.partition("=")
    if not (name and equals and adapter):
        raise click.BadParameter(f"{text!r} is not DATASET=ADAPTER:PATH", param_hint="--set")
    return name, adapter


def _amount(text: str) -> tuple[str, float]:
    name, _, amount = text.partition("=")
    try:
        return name, float(amount)
    except ValueError:
        raise click.BadParameter(f"{text!r} is not NAME=AMOUNT, such as GPU=1", param_hint="--resource") from None
