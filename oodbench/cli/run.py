"""``oodbench run``."""

import json
import sys
from contextlib import redirect_stdout
from pathlib import Path

import click


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
    "--data",
    type=click.Path(path_type=Path),
    envvar="OODBENCH_DATA",
    metavar="DIR",
    help="Folder of the data sets. Default: $OODBENCH_DATA, else a folder of the user.",
)
@click.option("--download", is_flag=True, help="Download data sets that are not there.")
@click.option(
    "--set",
    "replacements",
    multiple=True,
    metavar="DATASET=ADAPTER:PATH",
    help="Read a data set of the suite by another adapter.",
)
@click.option(
    "--plugin",
    "plugins",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Python file that declares plugins.",
)
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
@click.option("--json", "as_json", is_flag=True, help="Print records and claims as JSON.")  # fmt: skip
def command(
    detectors: tuple[str, ...],
    suite: str,
    protocols: tuple[str, ...],
    seeds: tuple[int, ...],
    data: Path | None,
    download: bool,
    replacements: tuple[str, ...],
    plugins: tuple[Path, ...],
    out: Path,
    limit: int | None,
    skip_missing: bool,
    as_json: bool,
) -> int:
    """Run detectors on a suite and print a table for each protocol.

    Results go to stdout, progress and messages to stderr. Every cell is kept as a record in --out.
    """
    from oodbench.benchmark import run
    from oodbench.cli.terminal import print_results, progress
    from oodbench.comparison.claims import claims
    from oodbench.records.verification import with_scores

    pairs = dict(_pair(text) for text in replacements)
    # What a plugin prints is no result.
    with redirect_stdout(sys.stderr), progress() as track:
        records = run(
            suite,
            detectors or ("*",),
            protocols or ("*",),
            seeds or None,
            data=data,
            download=download,
            replace=pairs,
            plugins=plugins,
            out=out,
            limit=limit,
            skip_missing=skip_missing,
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
