"""``oodbench import``."""

from pathlib import Path
from typing import Any

import click

from oodbench.files.folders import RESULTS

HELP = """Make records of scores that were computed elsewhere, so that compare, plot and leaderboard work on them.

A file has the scores of one seed: that of its name (scale_s0.pkl, or s0/scores/scale.pkl), or of --seed. What it does
not say stays empty in the records, such as hashes of weights and data: imported records are compared with each other
only, and sets of the same name, labels and order are taken for the same samples. Their suite has the version 0.
Importing a file again changes nothing.

\b
openood   a pickle of OpenOOD's --save-score, of which nothing is executed:
          {id: {test, val}, ood: {near: {NAME}, far: {NAME}}} of [pred, conf, gt];
          larger conf = more known, so the sign is turned; a threshold is chosen
          on id/val if it is there
csv,      a row for each sample, with the columns
parquet     dataset      name of the set
            label        of known samples from 0 on, of unknown ones -1
            prediction   of unknown samples -1 where it is not known
            score        larger = more unknown
            index        perhaps: position in the set, by which rows are sorted
            group        perhaps: near, far or -
          and no others; one set is known
npz       arrays, larger score = more unknown:
            NAME/score, NAME/label, NAME/prediction   the known set
            [near/|far/]NAME/score                    an unknown set
          and perhaps NAME/index for all, NAME/prediction for unknown sets
"""


@click.command(name="import", help=HELP, short_help="Make records of scores that were computed elsewhere.")
@click.argument("form", type=click.Choice(["openood", "npz", "csv", "parquet"]), metavar="openood|npz|csv|parquet")
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="FILE...")
@click.option("-s", "--suite", required=True, metavar="NAME", help="The suite that tables and boards name.")
@click.option(
    "-d",
    "--detector",
    required=True,
    metavar="NAME",
    help="The detector that tables and boards name, perhaps with parameters ('scale:percentile=85').",
)
@click.option(
    "-p",
    "--protocol",
    "protocols",
    multiple=True,
    type=click.Choice(["known", "unknown-unknowns"]),
    help="Wrong against right on known samples, or unknown against known ones. Default: both.",
)
@click.option(
    "--seed",
    "seeds",
    multiple=True,
    type=click.IntRange(min=0, max=2**63 - 1),
    metavar="N",
    help="Seed of each file, in order. Default: that of its name.",
)
@click.option(
    "--known", default="known", show_default=True, metavar="NAME", help="Name of the known set of OpenOOD's files."
)
@click.option("--classifier", default="", metavar="NAME", help="Name of the classifier, if it is known.")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=RESULTS,
    show_default=True,
    metavar="DIR",
    help="Folder of the results.",
)
def command(form: str, files: tuple[Path, ...], **options: Any) -> int:  # noqa: ANN401
    """Import scores and print a table for each protocol."""
    from oodbench.cli.terminal import print_results, progress
    from oodbench.imports.importing import import_scores
    from oodbench.records.scored import with_scores

    chosen = {name: value for name, value in options.items() if value != ()}
    with progress() as track:
        records = import_scores(form, files, chosen.pop("suite"), chosen.pop("detector"), track=track, **chosen)
    print_results(with_scores(options["out"], records))
    click.echo(f"{len(records)} record{'s' if len(records) != 1 else ''} in {options['out']}, imported.", err=True)
    return 0
