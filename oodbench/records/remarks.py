"""What records say of samples that were not tested on, and of classifiers that were trusted."""

from collections import Counter
from collections.abc import Sequence

from oodbench.records.record import Record


def remarks_on(records: Sequence[Record]) -> list[str]:
    """A sentence for each thing that a reader of the figures has to know.

    They say which samples were left out, converted, or held back for exposure, where networks computed if not on the
    processor in float32, and what was strange about a classifier.
    """
    datasets = {name: dataset for record in records for name, dataset in record.datasets.items()}
    remarks = []
    for what, counts in (
        ("Left out", {name: dataset.left_out for name, dataset in datasets.items()}),
        ("Converted or assumed", {name: dataset.converted for name, dataset in datasets.items()}),
    ):
        said = {
            f"{name.partition(' (')[0]}: {', '.join(f'{n:,} {reason}' for reason, n in of_set.items())}": None
            for name, of_set in counts.items()
            if of_set
        }
        remarks += [f"{what}: {'; '.join(said)}."] if said else []
    held_back = {name: dataset.held_back for name, dataset in datasets.items() if dataset.held_back}
    if held_back:
        counts_of = ", ".join(f"{n:,} of {name}" for name, n in held_back.items())
        remarks.append(f"Held back for exposure, and not tested on: {counts_of}.")
    remarks += _computed_on(records)
    trusted = dict.fromkeys(finding for record in records for finding in record.classifier.trusted)
    remarks += [f"Trusted all the same: {finding}" for finding in trusted]
    return remarks


def _computed_on(records: Sequence[Record]) -> list[str]:
    """Where networks computed and how, if not all of them did so in float32 on the processor."""
    counts = Counter((record.classifier.device or "cpu", record.classifier.precision or "fp32") for record in records)
    if set(counts) <= {("cpu", "fp32")}:
        return []
    said = ", ".join(f"{n:,} records on {device} in {precision}" for (device, precision), n in sorted(counts.items()))
    return [f"Computed: {said}."]


def tested_on(records: Sequence[Record]) -> str:
    """How many known and unknown samples the figures are of."""
    results = [result for record in records for result in record.results]
    known = {result.dataset: result.n_known for result in results if result.role == "known"}
    unknown = {result.dataset: result.n_unknown for result in results if result.role == "unknown"}
    n_known = next(iter(known.values()), None) or next((result.n_known for result in results), 0)
    sets = ", ".join(f"{n:,} of {name}" for name, n in unknown.items())
    return f"Tested on {n_known:,} known samples" + (f", and unknown ones: {sets}." if sets else ".")
