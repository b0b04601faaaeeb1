"""``oodbench bench``."""

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from oodbench.bench.measure import Cost, Report
    from oodbench.bench.pipeline import Pipeline

HEADER = ["", "ms per image", "× forward + backward", "peak MiB", ""]
FROM_FILES = ["", "ms per image", "images a second"]


@click.command(name="bench", short_help="Measure what evidence costs on this machine.")
@click.option(
    "--model", "models", multiple=True, metavar="NAME", help="cnn, wide-cnn, resnet18 or vit. Default: all of them."
)
@click.option("--batch", type=click.IntRange(min=1), metavar="N", help="Images in a batch. Default: the network's.")
@click.option("--device", default="auto", metavar="auto|cpu|cuda[:N]|mps", help="Where the networks compute.")
@click.option(
    "--files",
    is_flag=True,
    help="Measure the way from files to evidence instead: reading, decoding, network and statistics.",
)
@click.option(
    "--size",
    type=click.IntRange(min=8),
    metavar="N",
    help="With --files: width and height that images are prepared to (resnet18 takes any). Default: the network's.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--markdown", is_flag=True, help="Print markdown.")
def command(
    models: tuple[str, ...],
    batch: int | None,
    device: str,
    files: bool,
    size: int | None,
    as_json: bool,
    markdown: bool,
) -> None:
    """Measure the evidence pass against one forward and backward pass, a batch-1 loop, vmap and peers.

    Takes some minutes: all candidates run in turn, the best of five each, three times. With --files, it says what takes
    the time from files to evidence.
    """
    from oodbench.bench.measure import machine, measure
    from oodbench.bench.networks import NETWORKS
    from oodbench.bench.pipeline import measure_pipeline
    from oodbench.cli.terminal import progress
    from oodbench.machine.device import Computing, find_device, full_precision

    if size is not None and not files:
        raise click.UsageError("--size is the size of images that are read from files; give --files, too.")
    where = find_device(device)
    reports: list[Report | Pipeline] = []
    with full_precision(where):
        for name in models or tuple(NETWORKS):
            with progress() as track:
                report = (
                    measure_pipeline(name, Computing(where, batch=batch), size, track)
                    if files
                    else measure(name, batch, track, where)
                )
            reports.append(report)
            if not as_json:
                _print(report, markdown)
    if as_json:
        click.echo(json.dumps([asdict(report) for report in reports], indent=1))
    else:
        click.echo(f"Measured on: {', '.join(f'{key} {value}' for key, value in machine(where).items())}.")


def _print(report: "Report | Pipeline", markdown: bool) -> None:
    from tabulate import tabulate

    from oodbench.bench.pipeline import Pipeline
    from oodbench.cli.terminal import print_table, stdout

    if isinstance(report, Pipeline):
        header, title, note = FROM_FILES, _title_of_files(report), _bottleneck(report)
        rows = [[one.name, f"{one.ms:.3f}", f"{1e3 / one.ms:,.0f}" if one.ms else "—"]
                for one in (*report.stages, *report.passes)]  # fmt: skip
    else:
        header, title, note, rows = HEADER, _title(report), _limit(report), [_row(cost) for cost in report.costs]
    if markdown:
        drawn = tabulate(rows, header, tablefmt="github", disable_numparse=True)
        click.echo(f"**{title}**\n\n{drawn}\n\n{note}\n")
    else:
        print_table(stdout(), header, rows, title, note)


def _title(report: "Report") -> str:
    return f"{report.network}, {report.parameters:,} parameters, batch {report.batch}"


def _title_of_files(report: "Pipeline") -> str:
    return (
        f"{report.network}, from JPEG files of {' × '.join(map(str, report.pictures))} pixels to evidence, "
        f"{report.size}×{report.size}, batch {report.batch}"
    )


def _bottleneck(report: "Pipeline") -> str:
    said = [f"{stage} for {what}" for what, stage in report.bottleneck.items()]
    return f"What takes the most time: {', and '.join(said)}."


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
