"""Classifiers that are told apart in one folder, and those that are not."""

import pytest
from small import small_suite

import oodbench
from oodbench.comparison.families import families_of, of_one_family
from oodbench.comparison.merging import merged, refuse_conflicts
from oodbench.errors import UsageError
from oodbench.records.scored import ScoredRecord
from oodbench.records.verification import read_verified


@pytest.fixture(scope="module")
def cells(tmp_path_factory):
    folder = tmp_path_factory.mktemp("families")
    oodbench.run(small_suite(folder), ["entropy", "random"], ["known"], [0, 1], out=folder / "out")
    scored, rejected = read_verified([folder / "out"], resample=False)
    assert not rejected
    return scored


def of(cells, **changed):
    """The same records of another classifier, with weights of its own: of other cells, in the same folder."""

    def record(one):
        about = {"weights_sha256": f"{changed} {one.record.seed}"} | changed
        classifier = one.record.classifier.model_copy(update=about)
        return one.record.model_copy(update={"cell_id": f"of {changed}", "classifier": classifier})

    return [ScoredRecord(record(one), one.file, one.samples, one.known) for one in cells]


def test_one_classifier_is_called_by_its_name_and_its_seeds_are_one_family(cells):
    assert {name: len(own) for name, own in families_of(cells).items()} == {"cnn": 4}


def test_classifiers_are_told_apart_by_name_and_checkpoints_of_one_name_by_their_weights(cells):
    several = [*cells, *of(cells, name="mlp"), *of(cells, weights_from="b/w.pt"), *of(cells, weights_from="a/w.pt")]
    found = families_of(several)
    assert {name: len(own) for name, own in found.items()} == {
        "cnn (a/w.pt)": 4, "cnn (b/w.pt)": 4, "cnn (trained)": 4, "mlp": 4
    }  # fmt: skip
    assert list(found) == sorted(found)


def test_the_same_weights_are_one_family_wherever_they_were(cells):
    """Files move, and old records do not say where weights are from."""
    first = cells[0].record
    moved = of(cells[:1], weights_from="new/w.pt", weights_sha256=first.classifier.weights_sha256)
    further = of(cells, weights_from="new/w.pt")
    for order in ([*cells, *moved, *further], [*further, *moved, *cells]):
        assert list(families_of(order)) == ["cnn"]
    apart = families_of([*cells, *further])
    assert list(apart) == ["cnn (new/w.pt)", "cnn (trained)"]


def test_a_contradiction_in_a_family_is_refused_and_another_family_is_none(cells):
    for name, own in families_of([*cells, *of(cells, name="mlp")]).items():
        refuse_conflicts(own)
        assert len(own) == 4, name
    with pytest.raises(UsageError, match=r"are both of (entropy|random) under known, seed [01], with other weights"):
        refuse_conflicts(families_of([*cells, *of(cells)])["cnn"])


def test_folders_with_several_classifiers_merge(cells, tmp_path):
    def elsewhere(records):
        return [ScoredRecord(one.record, tmp_path / one.file.name, one.samples, one.known) for one in records]

    kept, rejected = merged([*cells, *elsewhere(of(cells, name="mlp"))])
    assert (len(kept), rejected) == (8, [])
    kept, rejected = merged([*cells, *elsewhere(of(cells))])
    assert len(kept) == 4
    assert {one.reason.partition(" from ")[0] for one in rejected} == {"its cell is already there"}


def test_of_several_classifiers_one_is_chosen(cells):
    several = [*cells, *of(cells, name="mlp")]
    assert of_one_family([cells], None) == cells
    assert [one.record.classifier.name for one in of_one_family([several], "mlp")] == ["mlp"] * 4
    with pytest.raises(UsageError, match="several classifiers; choose one by --classifier: cnn, mlp"):
        of_one_family([several], None)
    with pytest.raises(UsageError, match="no record is of the classifier 'vgg'; there are: cnn, mlp"):
        of_one_family([several], "vgg")
