"""Options that several verbs have."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

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


_ASKED = (
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
        help="Another classifier than the suite's: a plugin, module:factory, file.py:factory, torchvision:NAME or "
        "timm:NAME.",
    ),
    click.option(
        "--weights",
        metavar="FILE",
        help="Weights of the classifier (.safetensors, .pt), or 'pretrained'; {seed} in it stands for the seed.",
    ),
    click.option(
        "--penultimate", metavar="LAYER", help="Linear layer whose input are the features. Default: it is found."
    ),
    click.option(
        "--set",
        "replacements",
        multiple=True,
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
    click.option(
        "--timeout",
        type=click.FloatRange(min=0, min_open=True),
        metavar="SECONDS",
        help="A detector that takes longer to be loaded, or to be fitted and to score, fails.",
    ),
)
_STORE = (
    click.option(
        "--out",
        type=click.Path(path_type=Path),
        default=Path("oodbench-results"),
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


def asked_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """What is run: suite, detectors, protocols and all that decides the numbers."""
    return _decorated(command, _ASKED)


def store_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Where records go, and which cells are run again."""
    return _decorated(command, _STORE)


def asked_for(options: Mapping[str, Any]) -> dict[str, Any]:
    """The values of ``asked_options`` as arguments of ``oodbench.run``.

    Raises:
        click.BadParameter: ``--set`` is no DATASET=ADAPTER:PATH.
    """
    given = {**options, "replace": dict(_pair(text) for text in options["replacements"])}
    del given["replacements"]
    return given | {
        "detectors": options["detectors"] or ("*",),
        "protocols": options["protocols"] or ("*",),
        "seeds": options["seeds"] or None,
    }


def _decorated(command: Callable[..., Any], options: Sequence[Callable[..., Any]]) -> Callable[..., Any]:
    for option in reversed(options):
        command = option(command)
    return command


def _pair(text: str) -> tuple[str, str]:
    name, equals, adapter = text.partition("=")
    if not (name and equals and adapter):
        raise click.BadParameter(f"{text!r} is not DATASET=ADAPTER:PATH", param_hint="--set")
    return name, adapter
