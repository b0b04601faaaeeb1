"""``oodbench plan``."""

from importlib.metadata import version
from pathlib import Path
from typing import Any

import click

from oodbench.cli.options import asked_for, asked_options, data_option, download_option
from oodbench.cli.output import results_only


@click.command(name="plan", short_help="Print a plan that workers share.")
@asked_options
@data_option
@download_option
def command(data: Path | None, download: bool, **asked: Any) -> None:  # noqa: ANN401
    """Print what `oodbench run` with the same options would do, as JSON, for `oodbench worker`.

    Each cell is named by all that decides its numbers, the trained weights too: classifiers that are not in the cache
    are trained first.
    """
    from oodbench.cli.terminal import progress
    from oodbench.execution.asked import Asked
    from oodbench.execution.shards import PlanFile, planned
    from oodbench.plan import look_up, read_data

    wanted = asked_for(asked)
    with results_only(), progress() as track:
        benchmark = read_data(look_up(**wanted), data=data, download=download, track=track)
        jobs = [job for _, job in planned(benchmark)]
    texts = {"plugins": [str(file) for file in wanted["plugins"]]}
    plan = PlanFile(oodbench=version("oodbench"), asked=Asked.model_validate({**wanted, **texts}), jobs=jobs)
    click.echo(plan.model_dump_json(indent=1))
    cells = sum(len(job.cells) for job in jobs)
    click.echo(f"{len(jobs)} jobs of {cells} cells, seeds {', '.join(map(str, benchmark.seeds))}.", err=True)
