"""What records say of samples that were not tested on, and of classifiers that were trusted."""

from collections import Counter
from collections.abc import Sequence

from oodbench.errors import listed
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
    remarks += _ensembles(records)
    remarks += _chosen(records)
    remarks += _computed_on(records)
    remarks += _imported(records)
    trusted = dict.fromkeys(finding for record in records for finding in record.classifier.trusted)
    remarks += [f"Trusted all the same: {finding}" for finding in trusted]
    return remarks


def _chosen(records: Sequence[Record]) -> list[str]:
    """What searches chose, by how much, and which candidates could not be tried."""
    found: dict[str, None] = {}
    for record in sorted(records, key=lambda record: (record.detector.name, record.seed)):
        learnt = record.detector.learnt
        if record.detector.name != "tuned" or "chosen" not in learnt:
            continue
        said = f"{learnt['chosen']} (seed {record.seed}"
        if "preferred_to" in learnt:
            second = learnt["preferred_to"]
            said += f"; by {second['by']['auroc']:+.4f} AUROC before {second['candidate']}"
        failed = learnt.get("failed", {})
        said += f"; {len(failed)} of {len(failed) + len(learnt['candidates'])} could not be tried" if failed else ""
        found[f"{said})"] = None
    return [f"Chosen by the validation sets: {', '.join(found)}."] if found else []


def _ensembles(records: Sequence[Record]) -> list[str]:
    """That `ensemble` has the same scores in the cells of all seeds."""
    # Other detectors that get the members' logits may use those of the cell's own network, too.
    members = {
        ", ".join(record.classifier.members)
        for record in records
        if record.detector.name == "ensemble" and record.classifier.members
    }
    return [
        f"One ensemble of the networks of the seeds {seeds}, the same in the cells of each seed, so that a spread over "
        "seeds says nothing of other ensembles: ensemble."
        for seeds in sorted(members)
    ]


ASSUMED = "imported sets of the same name, labels and order are taken for the same samples"


def _imported(records: Sequence[Record]) -> list[str]:
    """Which figures are of scores that were computed elsewhere."""
    files: dict[str, dict[str, None]] = {}
    for record in sorted(records, key=lambda record: (record.detector.name, record.seed)):
        if record.imported is not None:
            read = f"{record.imported.format} ({record.imported.convention})"
            of_detector = files.setdefault(f"{record.detector.name} from {read}", {})
            of_detector[f"{record.imported.file} (seed {record.seed})"] = None
    if not files:
        return []
    said = "; ".join(f"{what}: {listed(list(names))}" for what, names in files.items())
    return [f"Imported, not computed here: {said}. Their weights, images and versions are not known; {ASSUMED}."]


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
    known = {one.dataset: one.n_known for one in results if one.role == "known" and one.group != "covariate"}
    shifted = {one.dataset: one.n_known for one in results if one.group == "covariate"}
    unknown = {result.dataset: result.n_unknown for result in results if result.role == "unknown"}
    n_known = next(iter(known.values()), None) or next((result.n_known for result in results), 0)
    kinds = {"known ones under a shift": shifted, "unknown ones": unknown}
    sets = [f"{what}: {', '.join(f'{n:,} of {name}' for name, n in of.items())}" for what, of in kinds.items() if of]
    return "; ".join([f"Tested on {n_known:,} known samples" + (f", and {sets[0]}" if sets else ""), *sets[1:]]) + "."
