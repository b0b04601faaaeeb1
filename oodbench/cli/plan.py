"""``oodbench plan``."""

from importlib.metadata import version
from pathlib import Path
from typing import Any

import click

from oodbench.cli.options import data_option, download_option, spec_of, spec_options
from oodbench.cli.output import results_only


@click.command(name="plan", short_help="Print a plan that workers share.")
@spec_options
@data_option
@download_option
def command(data: Path | None, download: bool, **options: Any) -> None:  # noqa: ANN401
    """Print what `oodbench run` with the same options would do, as JSON, for `oodbench worker`.

    Each cell is named by all that decides its numbers, the trained weights too: classifiers that are not in the cache
    are trained first.
    """
    from oodbench.cli.terminal import progress
    from oodbench.runs.plan import Plan, plan_seed
    from oodbench.runs.prepared import prepare_run
    from oodbench.runs.resolved import resolve_run

    spec = spec_of(options)
    with results_only(), progress() as track:
        run = prepare_run(resolve_run(spec), data=data, download=download, track=track)
        run.say_remarks()
        seeds = {seed: plan_seed(run, seed) for seed in run.seeds}
    jobs = [planned for of_seed in seeds.values() for _, planned in of_seed.jobs]
    probes = {seed: dict(of_seed.probe) for seed, of_seed in seeds.items()}
    plan = Plan(oodbench=version("oodbench"), asked=spec, jobs=jobs, probes=probes)
    click.echo(plan.model_dump_json(indent=1))
    cells = sum(len(job.cells) for job in jobs)
    click.echo(f"{len(jobs)} jobs of {cells} cells, seeds {', '.join(map(str, run.seeds))}.", err=True)
