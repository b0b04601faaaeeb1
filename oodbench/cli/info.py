"""``oodbench info``."""

import difflib
import inspect
from pathlib import Path
from typing import Any

import click

from oodbench import registry
from oodbench.cli.options import data_option, plugin_option
from oodbench.errors import UsageError
from oodbench.registry.parameters import defaults, split_spec

FITTED_ON = {
    "nothing": "nothing",
    "training": "the known training split",
    "meta": "the known meta split",
    "exposed": "the known meta split, and exposed samples where a protocol has them",
}


@click.command(name="info", short_help="Say what a plugin is.")
@click.argument("name")
@click.option(
    "--sheet",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE.png",
    help="Of a data set, draw a contact sheet of images as a suite's classifier sees them.",
)
@click.option(
    "-s",
    "--suite",
    metavar="NAME|FILE",
    help="The suite whose input the sheet shows. Default: the first one that has the data set.",
)
@data_option
@click.option("--download", is_flag=True, help="Download the data set if it is not there.")
@plugin_option
def command(
    name: str, sheet: Path | None, suite: str | None, data: Path | None, download: bool, plugins: tuple[Path, ...]
) -> None:
    """Say what a detector, data set, classifier, protocol or suite is, with its parameters.

    NAME of a data set may have parameters: 'imagefolder:PATH', 'digits:classes=…'.
    """
    for file in plugins:
        registry.load_file(file)
    plain = split_spec(name)[0]
    kinds = [kind for kind in registry.KINDS if _is_known(kind, plain)]
    if not kinds:
        registered = [known for kind in registry.KINDS for known in registry.entries(kind)]
        close = difflib.get_close_matches(plain, registered, n=3, cutoff=0.5)
        raise UsageError(
            f"nothing is named {plain!r}; "
            + (f"did you mean {' or '.join(close)}?" if close else "see `oodbench list`.")
        )
    if sheet is not None:
        if "datasets" not in kinds:
            raise UsageError(f"{plain!r} is no data set, so there is no contact sheet of it.")
        from oodbench.classifiers.contact_sheet import draw_sheet
        from oodbench.files.folders import data_folder

        sheet_suite = draw_sheet(name, suite, data_folder(data), sheet, download=download)
        click.echo(f"{sheet}: {name} as the classifier of the suite {sheet_suite} sees it.")
        return
    for kind in kinds:
        click.echo("\n".join(_describe(registry.get(kind, plain))))


def _is_known(kind: registry.Kind, name: str) -> bool:
    try:
        registry.get(kind, name)
    except UsageError:
        return False
    return True


def _describe(entry: registry.PluginEntry) -> list[str]:
    from oodbench.conformance.loading import load_plugin

    plugin = load_plugin(entry.kind, entry.name)
    lines = [f"{entry.name}: {registry.singular(entry.kind)} of {entry.distribution} {entry.version} ({entry.target})"]
    if entry.kind == "suites":
        return [*lines, "", plugin.text.rstrip()]
    function = getattr(plugin, "target", None) or getattr(plugin, "function", None) or plugin
    lines += ["", *(inspect.getdoc(function) or "no description").splitlines()]
    card = getattr(plugin, "card", None)
    if card is not None:
        size = ", ".join(f"{n:,} {split}" for split, n in card.size.items()) or "as many as asked for"
        lines += ["", card.summary, f"  shape     {card.shape}", f"  size      {size}", f"  licence   {card.licence}",
                  f"  citation  {card.citation}", f"  source    {card.source}"]  # fmt: skip
    if entry.kind == "detectors":
        from oodbench.detectors.plugin import CHOICE, KNOWN_SPLITS

        others = [choice for choice in KNOWN_SPLITS if plugin.fitted_on in KNOWN_SPLITS and choice != plugin.fitted_on]
        or_else = "".join(f" (or {FITTED_ON[choice]}: {CHOICE}={choice})" for choice in others)
        fitted_on = FITTED_ON[plugin.fitted_on] + or_else
        lines += ["", f"needs: {', '.join(plugin.needs)}", f"fitted on: {fitted_on}"]
    if entry.kind == "evidence":
        passes = {"forward": "the forward pass", "backward": "the forward pass and backward passes"}
        lines += ["", f"taken from: {passes[plugin.needs]}", f"of each sample: {plugin.per_sample or 'not said'}"]
    offered = defaults(function) if entry.kind in ("detectors", "datasets") else {}
    if offered:
        lines += ["", "parameters:", *(f"  {_parameter(parameter)}" for parameter in offered.values())]
    return lines


def _parameter(parameter: inspect.Parameter) -> str:
    annotation: Any = parameter.annotation
    kind = annotation if isinstance(annotation, str) else getattr(annotation, "__name__", str(annotation))
    if str(annotation).startswith(("typing.", "tuple")) or "|" in str(annotation):
        kind = str(annotation).removeprefix("typing.")
    default = "" if parameter.default is inspect.Parameter.empty else f" = {parameter.default!r}"
    return f"{parameter.name}: {kind}{default}"
