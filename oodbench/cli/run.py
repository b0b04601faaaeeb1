"""``oodbench run``."""

import json
from pathlib import Path
from typing import Literal

import click

from oodbench.cli.options import data_option, plugin_option
from oodbench.cli.output import results_only


@click.command(name="run", short_help="Run detectors on a suite.")
@click.option(
    "-d",
    "--detector",
    "detectors",
    multiple=True,
    metavar="NAME",
    help="Name, glob ('grad-*') or name with parameters ('grad-l2:layer=conv1'). Default: all.",
)
@click.option("-s", "--suite", default="digits", show_default=True, metavar="NAME|FILE", help="Suite or TOML file.")
@click.option("-p", "--protocol", "protocols", multiple=True, metavar="NAME", help="Name or glob. Default: all.")
@click.option(
    "--seed",
    "seeds",
    multiple=True,
    type=click.IntRange(min=0, max=2**63 - 1),
    metavar="N",
    help="Seed of the classifier's training. Default: the suite's.",
)
@click.option(
    "--classifier",
    metavar="NAME",
    help="Another classifier than the suite's: a plugin, module:factory, file.py:factory, torchvision:NAME, timm:NAME.",
)
@click.option(
    "--weights",
    metavar="FILE",
    help="Weights of the classifier (.safetensors, .pt), or 'pretrained'; {seed} in it stands for the seed.",
)
@click.option("--penultimate", metavar="LAYER", help="Linear layer whose input are the features. Default: it is found.")
@data_option
@click.option("--download", is_flag=True, help="Download data sets and pretrained weights that are not there.")
@click.option(
    "--set",
    "replacements",
    multiple=True,
    metavar="DATASET=ADAPTER:PATH",
    help="Read a data set of the suite by another adapter.",
)
@plugin_option
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("oodbench-results"),
    show_default=True,
    metavar="DIR",
    help="Folder of the results.",
)
@click.option(
    "--limit",
    type=click.IntRange(min=2),
    metavar="N",
    help="At most N samples of each split that is fitted or tested on; for trying out, never for a board.",
)
@click.option("--skip-missing", is_flag=True, help="Go on without unknown sets that are not there.")
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    metavar="SECONDS",
    help="A detector that takes longer to be loaded, or to be fitted and to score, fails.",
)
@click.option(
    "--rerun",
    type=click.Choice(["missing", "failed", "all"]),
    default="failed",
    show_default=True,
    help="Cells to run: those without a record in --out, also those that failed, or all. A finished record stays.",
)
@click.option("--importance", is_flag=True, help="Also say which inputs each `meta` detector relies on.")
@click.option("--json", "as_json", is_flag=True, help="Print records and claims as JSON.")  # fmt: skip
def command(
    detectors: tuple[str, ...],
    suite: str,
    protocols: tuple[str, ...],
    seeds: tuple[int, ...],
    classifier: str | None,
    weights: str | None,
    penultimate: str | None,
    data: Path | None,
    download: bool,
    replacements: tuple[str, ...],
    plugins: tuple[Path, ...],
    out: Path,
    limit: int | None,
    skip_missing: bool,
    timeout: float | None,
    rerun: Literal["missing", "failed", "all"],
    importance: bool,
    as_json: bool,
) -> int:
    """Run detectors on a suite and print a table for each protocol.

    Results go to stdout, progress and messages to stderr. Every cell is kept as a record in --out.
    """
    from oodbench.benchmark import run
    from oodbench.cli.terminal import print_importance, print_results, progress
    from oodbench.comparison.claims import claims
    from oodbench.records.verification import with_scores

    pairs = dict(_pair(text) for text in replacements)
    with results_only(), progress() as track:
        records = run(
            suite,
            detectors or ("*",),
            protocols or ("*",),
            seeds or None,
            classifier=classifier,
            weights=weights,
            penultimate=penultimate,
            data=data,
            download=download,
            replace=pairs,
            plugins=plugins,
            out=out,
            limit=limit,
            skip_missing=skip_missing,
            timeout=timeout,
            rerun=rerun,
            track=track,
        )
    cells = with_scores(out, records)
    if as_json:
        answer = {
            "records": [record.model_dump(mode="json") for record in records],
            "claims": [claim.model_dump(mode="json") for claim in claims(cells)],
        }
        click.echo(json.dumps(answer, indent=1))
    else:
        print_results(cells)
        if importance:
            print_importance(records)
    failed = sum(record.status == "failed" for record in records)
    skipped = sum(record.status == "skipped" for record in records)
    click.echo(
        f"{len(records)} record{'s' if len(records) != 1 else ''} in {out} ({failed} failed, {skipped} skipped).",
        err=True,
    )
    return 1 if failed else 0


def _pair(text: str) -> tuple[str, str]:
    name, equals, adapter = text.partition("=")
    if not (name and equals and adapter):
        raise click.BadParameter(f"{text!r} is not DATASET=ADAPTER:PATH", param_hint="--set")
    return name, adapter
