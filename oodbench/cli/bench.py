"""``oodbench bench``."""

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from oodbench.bench.measure import Cost, Report

HEADER = ["", "ms per image", "× forward + backward", "peak MiB", ""]


@click.command(name="bench", short_help="Measure what evidence costs on this machine.")
@click.option(
    "--model", "models", multiple=True, metavar="NAME", help="cnn, wide-cnn, resnet18 or vit. Default: all of them."
)
@click.option("--batch", type=click.IntRange(min=1), metavar="N", help="Images in a batch. Default: the network's.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--markdown", is_flag=True, help="Print markdown.")
def command(models: tuple[str, ...], batch: int | None, as_json: bool, markdown: bool) -> None:
    """Measure the evidence pass against one forward and backward pass, a batch-1 loop, vmap and peers.

    Takes some minutes: all candidates run in turn, the best of five each, three times.
    """
    from oodbench.bench.measure import NETWORKS, measure
    from oodbench.cli.terminal import progress

    reports = []
    for name in models or tuple(NETWORKS):
        with progress() as track:
            reports.append(measure(name, batch, track))
        if not as_json:
            _print(reports[-1], markdown)
    if as_json:
        click.echo(json.dumps([asdict(report) for report in reports], indent=1))
    else:
        click.echo(f"Measured on: {', '.join(f'{key} {value}' for key, value in reports[0].machine.items())}.")


def _print(report: "Report", markdown: bool) -> None:
    from tabulate import tabulate

    from oodbench.cli.terminal import print_table, stdout

    rows = [_row(cost) for cost in report.costs]
    if markdown:
        drawn = tabulate(rows, HEADER, tablefmt="github", disable_numparse=True)
        click.echo(f"**{_title(report)}**\n\n{drawn}\n\n{_limit(report)}\n")
    else:
        print_table(stdout(), HEADER, rows, _title(report), _limit(report))


def _title(report: "Report") -> str:
    return f"{report.network}, {report.parameters:,} parameters, batch {report.batch}"


def _row(cost: "Cost") -> list[str]:
    def number(value: float | None, digits: int) -> str:
        return "—" if value is None else f"{value:.{digits}f}"

    return [cost.name, number(cost.ms, 3), number(cost.ratio, 2), number(cost.memory, 0), cost.note]


def _limit(report: "Report") -> str:
    (evidence,) = [cost.ms for cost in report.costs if cost.name == "evidence pass"]
    share = "" if not evidence else f"; the evidence pass reaches {report.limit_ms / evidence:.0%} of that rate"
    return (
        f"At this machine's peak rates the arithmetic and memory traffic of the evidence pass take "
        f"{report.limit_ms:.3f} ms per image{share}."
    )
