"""The boards in `leaderboards/` hold what they promise; `leaderboard check` says if they follow from their records."""

from pathlib import Path

import pytest

from oodbench import registry
from oodbench.comparison.families import family_labels
from oodbench.leaderboard.assembly import digest
from oodbench.records.files import record_files
from oodbench.records.record import Record

PUBLISHED = Path(__file__).parents[2] / "leaderboards"


# What no suite can run; a board says why.
SKIPPED = {"mcm", "weighted-ebo"}
# They run the classifier themselves, many times slower than all others; on emnist two seeds have to do.
COSTLY = {"grad-norm", "grad-uncertainty", "gram", "mahalanobis-odin", "mcd", "multi-mahalanobis", "nacue", "odin"}
# They came after these boards were made; `tuned` needs validation sets, which these suites have not, and `ensemble`
# has to be told a detector.
LATER = {
    *("adascale-a", "adascale-l", "cfood", "ensemble", "iodin", "relation", "residual", "tuned"),
    *("blood", "gaia-a", "gaia-z", "git-style", "gran-style", "grad-density", "grad-duo", "grood", "purview"),
}
# These suites have no covariate sets.
WITH_COVARIATE = {"covariate", "full-spectrum"}


def of(distribution, kind):
    """Names that stand for plugins of a distribution."""
    return {name for name, entry in registry.entries(kind).items() if entry.distribution == distribution}


@pytest.mark.parametrize("name", ["digits", "emnist"])
def test_published_boards_have_five_seeds_of_all_detectors_and_protocols(name):
    files = sorted((PUBLISHED / name / "records").glob("*.json"))
    records = [Record.model_validate_json(file.read_bytes()) for file in files]
    assert {record.suite.limit for record in records} == {None}
    assert {record.detector.name for record in records if record.status == "skipped"} == SKIPPED
    assert {record.status for record in records if record.detector.name not in SKIPPED} == {"ok"}
    whole = [record for record in records if record.detector.params.get("layer") is None]
    ours, theirs = (
        of("oodbench", "detectors") - LATER,
        {one for one in of("pytorch-ood", "detectors") if "/" not in one},
    )
    assert {record.detector.name for record in whole} == ours | theirs
    assert {record.protocol for record in whole if record.detector.name in ours} == (
        of("oodbench", "protocols") - WITH_COVARIATE
    )
    assert len({record.seed for record in whole}) == 5
    fewer = COSTLY if name == "emnist" else set()
    assert {record.seed for record in whole if record.detector.name in fewer} <= {0, 1}
    expected = 5 * (len(ours) * (1 + 1 + 5 + 4) + len(theirs - fewer) * (1 + 1)) + 2 * len(fewer) * (1 + 1)
    assert len(whole) == expected
    assert any(record.detector.params.get("layer") is not None for record in records)
    text = (PUBLISHED / f"{name}.md").read_text(encoding="utf-8")
    assert f"`{digest(records)[:16]}`" in text, "fields that came later change no digest"
    assert list(family_labels(records).values()) == ["cnn"]
    assert sum(text.count(f"**{outcome}**") for outcome in ("held", "did not hold", "not separable")) == 4
    assert all(f"{one}, seeds 0, 1, 2, 3, 4: skipped: " in text for one in SKIPPED)
    assert (PUBLISHED / f"{name}.html").stat().st_size < 1_000_000


FAMILY = {"blood", "gaia-a", "gaia-z", "git-style", "gran-style", "grad-density", "grad-duo", "grood", "purview"}


def test_the_board_of_cifar10_has_all_detectors_on_a_published_network():
    """OpenOOD's kinds of unknowns, a shift, and a search; its scores are not in the repository."""
    records = [file.read() for file in record_files(PUBLISHED / "cifar10")]
    assert not (PUBLISHED / "cifar10" / "scores").exists()
    # Its network has no dropout.
    assert {record.detector.name for record in records if record.status == "skipped"} == SKIPPED | {"mcd"}
    assert {record.status for record in records} == {"ok", "skipped"}
    told = {record.detector.name for record in records if record.detector.name == "tuned"}
    expected = {*of("oodbench", "detectors"), *(one for one in of("pytorch-ood", "detectors") if "/" not in one)}
    assert {record.detector.name for record in records} - told == expected - FAMILY - {"tuned", "ensemble"}
    assert {record.protocol for record in records} == {"known", "unknown-unknowns", *WITH_COVARIATE}
    assert {record.seed for record in records} == {0}
    assert {record.classifier.weights_from for record in records} == {"models/resnet20-12fca82f.th"}
    sizes = {name: dataset.n for record in records for name, dataset in record.datasets.items()}
    assert {name: sizes[name] for name in ("cifar10", "cifar100", "tin", "texture", "notmnist", "jpeg")} == {
        "cifar10": 9_000, "cifar100": 9_998, "tin": 7_793, "texture": 300, "notmnist": 10_000, "jpeg": 5_000,
    }  # fmt: skip
    entropy = {record.protocol: record for record in records if record.detector.name == "entropy"}
    accuracies = {one.dataset: 1 - one.n_wrong / one.n_known for one in entropy["covariate"].results}
    assert accuracies["cifar10"] - accuracies["jpeg"] > 0.1
    tuned = {record.detector.params["detector"]: record for record in records if record.detector.name == "tuned"}
    assert tuned.keys() == {"ash", "react", "knn"}
    assert all(one.detector.learnt["chosen"] for one in tuned.values())
    text = (PUBLISHED / "cifar10.md").read_text(encoding="utf-8")
    assert f"`{digest(records)[:16]}`" in text
    assert "one seed says nothing of other trainings" in text
    assert sum(file.stat().st_size for file in PUBLISHED.glob("cifar10/*.*") if file.is_file()) < 3_000_000
