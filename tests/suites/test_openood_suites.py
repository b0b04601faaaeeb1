"""OpenOOD's benchmarks in its own layout: from lists, images and checkpoints to a board, and what may be wrong."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from in_process import command_line
from PIL import Image as Pillow
from torchvision import models

from oodbench.classifiers.lookup import find_classifier
from oodbench.datasets.adapter import Request, load_dataset
from oodbench.datasets.sources import resolve_sources
from oodbench.records.verification import read_verified
from oodbench.suites.reading import read_suite

# As OpenOOD has them: number of classes, seeds, folder of the known set, lines of its lists, and each set with its
# folder, list, group and official number of lines.
CLASSIC, LARGE = "images_classic", "images_largescale"
OF_CIFAR = [
    ("mnist", CLASSIC, "test_mnist", "far", 70_000),
    ("svhn", CLASSIC, "test_svhn", "far", 26_032),
    ("texture", CLASSIC, "test_texture", "far", 5_640),
]
OF_IMAGENET = [
    ("ssb_hard", LARGE, "test_ssb_hard", "near", 49_000),
    ("ninco", LARGE, "test_ninco", "near", 5_879),
    ("inaturalist", LARGE, "test_inaturalist", "far", 10_000),
    ("textures", CLASSIC, "test_textures", "far", 5_160),
    ("openimage_o", LARGE, "test_openimage_o", "far", 15_869),
]
BENCHMARKS = {
    "cifar10": (10, [0, 1, 2], CLASSIC, {"train": 50_000, "val": 1_000, "test": 9_000}, [
        ("cifar100", CLASSIC, "test_cifar100", "near", 9_000),
        ("tin", CLASSIC, "test_tin", "near", 7_793),
        *OF_CIFAR,
        ("places365", CLASSIC, "test_places365", "far", 35_195),
        ("cifar10c", CLASSIC, "test_cifar10c", "covariate", 10_000),
        ("tin-val", CLASSIC, "val_tin", None, 1_000),
    ]),
    "cifar100": (100, [0, 1, 2], CLASSIC, {"train": 50_000, "val": 1_000, "test": 9_000}, [
        ("cifar10", CLASSIC, "test_cifar10", "near", 10_000),
        ("tin", CLASSIC, "test_tin", "near", 6_526),
        *OF_CIFAR,
        ("places365", CLASSIC, "test_places365", "far", 33_773),
        ("tin-val", CLASSIC, "val_tin", None, 972),
    ]),
    "imagenet200": (200, [0, 1, 2], LARGE, {"val": 1_000, "test": 9_000}, [
        *OF_IMAGENET,
        ("imagenet-v2", LARGE, "test_imagenet200_v2", "covariate", 2_000),
        ("imagenet-c", LARGE, "test_imagenet200_c", "covariate", 2_000),
        ("imagenet-r", LARGE, "test_imagenet200_r", "covariate", 30_000),
        ("openimage_o-val", LARGE, "val_openimage_o", None, 1_763),
    ]),
    "imagenet": (1000, [0], LARGE, {"val": 5_000, "test": 45_000}, [
        *OF_IMAGENET,
        ("imagenet-v2", LARGE, "test_imagenet_v2", "covariate", 10_000),
        ("imagenet-c", LARGE, "test_imagenet_c", "covariate", 10_000),
        ("imagenet-r", LARGE, "test_imagenet_r", "covariate", 30_000),
        ("openimage_o-val", LARGE, "val_openimage_o", None, 1_763),
    ]),
}  # fmt: skip
NETWORKS = {
    "cifar10": "openood:resnet18_32x32",
    "cifar100": "openood:resnet18_32x32",
    "imagenet200": "openood:resnet18_224x224",
    "imagenet": "openood:resnet50",
}


class Tree:
    """The benchmark's files below a folder: few random images a set, and checkpoints of random weights."""

    def __init__(self, folder, benchmark):
        self.folder, self.benchmark = Path(folder), benchmark
        self.random = np.random.default_rng(0)
        self.classes, self.seeds, known_root, _, sets = BENCHMARKS[benchmark]
        labels = [0, 1, self.classes - 1]
        for split, n in (("train", 6), ("val", 3), ("test", 6)):
            self.write(f"{split}_{benchmark}", known_root, f"{benchmark}/{split}", [labels[i % 3] for i in range(n)])
        for name, root, file, group, _ in sets:
            self.write(file, root, name, labels if group == "covariate" else [-1] * 4)

    def list(self, file):
        return self.folder / "benchmark_imglist" / self.benchmark / f"{file}.txt"

    def write(self, file, root, name, labels):
        lines = []
        for number, label in enumerate(labels):
            image = self.folder / root / name / f"{number}.png"
            image.parent.mkdir(parents=True, exist_ok=True)
            Pillow.fromarray(self.random.integers(0, 256, (34, 36, 3), dtype=np.uint8)).save(image)
            lines.append(f"{name}/{number}.png {label}\n")
        self.list(file).parent.mkdir(parents=True, exist_ok=True)
        self.list(file).write_text("".join(lines))

    def save_weights(self):
        for seed in self.seeds:
            torch.manual_seed(seed)
            network = find_classifier(NETWORKS[self.benchmark], []).build(3, 32, self.classes)
            file = self.folder / "checkpoints" / f"s{seed}" / "best.ckpt"
            file.parent.mkdir(parents=True)
            torch.save(network.state_dict(), file)

    def run(self, out, *options, detectors=("entropy", "knn:k=2"), suite=None):
        weights = f"{self.folder}/checkpoints/s{{seed}}/best.ckpt"
        asked = [f"-d{detector}" for detector in detectors]
        return command_line(
            "run", "-s", suite or f"openood-{self.benchmark}", "--data", self.folder, "--weights", weights,
            "--seed", "0", *asked, "-p", "unknown-unknowns", "--trust-model", "--out", out, *options,
        )  # fmt: skip


def board_of(out):
    built = command_line("leaderboard", "build", out, "--format", "md", "-o", f"{out}.md")
    assert built.returncode == 0, built.stderr
    return Path(f"{out}.md").read_text()


def records_of(out):
    return [json.loads(file.read_text()) for file in (Path(out) / "records").glob("*.json")]


@pytest.fixture
def tree(tmp_path):
    made = Tree(tmp_path / "data", "cifar10")
    made.save_weights()
    return made


# What the suites say


@pytest.mark.parametrize("benchmark", BENCHMARKS)
def test_a_suite_has_the_benchmarks_sets_in_its_layout(benchmark):
    classes, seeds, root, numbers, sets = BENCHMARKS[benchmark]
    loaded = read_suite(f"openood-{benchmark}")
    suite, sources = loaded.suite, loaded.suite.sources()
    assert (suite.seeds, suite.classifier, suite.sizes.exposed) == (seeds, NETWORKS[benchmark], 0)
    assert (suite.duplicates, suite.drawing, suite.weights) == ("keep", "source", None)
    assert suite.classes == ("imagenet-1k" if benchmark == "imagenet" else classes)
    assert list(suite.unknown) == [name for name, *_, group, _ in sets if group]
    assert list(suite.validation) == [name for name, *_, group, _ in sets if not group]
    known = sources[benchmark].parameters
    lists = {"train": "train", "val": "validation", "test": "test"}
    for ours, key in lists.items():
        assert known[key] == f"benchmark_imglist/{benchmark}/{ours}_{benchmark}.txt"
    assert (known["root"], known["official"]) == (root, {lists[name]: n for name, n in numbers.items()})
    for name, folder, file, group, n in sets:
        source = sources[name]
        assert (source.adapter, source.group) == ("imagelist", group or "-")
        assert source.parameters["path"] == f"benchmark_imglist/{benchmark}/{file}.txt"
        assert (source.parameters["root"], source.parameters["official"]) == (folder, n)
    assert {source.adapter for source in resolve_sources(loaded).values()} == {"imagelist"}, "nothing else is shown"


@pytest.mark.parametrize(
    ("benchmark", "size", "resize", "mean", "std"),
    [
        ("cifar10", 32, 32, [0.4914, 0.4822, 0.4465], [0.2470, 0.2435, 0.2616]),
        ("cifar100", 32, 32, [0.5071, 0.4867, 0.4408], [0.2675, 0.2565, 0.2761]),
        ("imagenet200", 224, 256, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
        ("imagenet", 224, 256, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
    ],
)
def test_images_are_prepared_as_there(benchmark, size, resize, mean, std):
    input = read_suite(f"openood-{benchmark}").suite.input
    assert (input.channels, input.size, input.resize, input.interpolation) == (3, size, resize, "bilinear")
    assert (input.mean, input.std) == (mean, std)
    if benchmark == "imagenet":
        shipped = models.ResNet50_Weights.IMAGENET1K_V1.transforms()
        assert (shipped.resize_size, shipped.crop_size) == ([resize], [size])
        assert (shipped.mean, shipped.std) == (mean, std)


def test_the_hashes_are_those_of_openoods_lists(real_data, tmp_path):
    for name, file in {"tin": "tin.txt", "tin-val": "val_tin.txt"}.items():
        source = resolve_sources(read_suite("openood-cifar10"))[name].source
        text = (real_data / "cifar" / "lists" / file).read_bytes()
        for number, copy in enumerate([text, text.replace(b"\n", b"\r\n")]):  # both go around
            (tmp_path / f"{name}-{number}.txt").write_bytes(copy)
            pool = read(source, path=str(tmp_path / f"{name}-{number}.txt"), root=str(real_data / "cifar"))
            assert len(pool.images) == pool.official == source.parameters["official"]
            assert pool.remarks == {}


def read(source, **paths):
    return load_dataset("imagelist").read(Request(Path("nowhere"), "test"), {**source.parameters, **paths})


# From a folder to a board


@pytest.mark.parametrize("benchmark", BENCHMARKS)
def test_a_folder_of_openoods_ends_in_a_board(benchmark, tmp_path):
    tree = Tree(tmp_path / "data", benchmark)
    tree.save_weights()
    done = tree.run(tmp_path / "out")
    assert done.returncode == 0, done.stderr
    sets = [one for one in BENCHMARKS[benchmark][-1] if one[3] != "covariate"]
    tested = ", ".join(f"4 of {name}" for name, *_, group, _ in sets if group)
    assert f"Tested on 6 known samples, and unknown ones: {tested}." in done.stdout
    records = records_of(tmp_path / "out")
    assert {record["status"] for record in records} == {"ok"}
    assert {record["suite"]["name"] for record in records} == {f"openood-{benchmark}"}
    for record in records:
        assert record["suite"]["missing"] == []
        for name, *_, group, official in sets:
            if group:
                assert (record["datasets"][name]["official"], record["datasets"][name]["group"]) == (official, group)
    text = board_of(tmp_path / "out")
    assert "**Made on a subset of the data.** Found of the official samples: " in text
    for name, *_, group, official in sets:
        if group:
            assert f"{name} (all): 4 of {official:,}" in text
    found = {"train": "(train): 6", "val": "(validation): 3", "test": "(test): 6"}
    for split, official in BENCHMARKS[benchmark][3].items():
        assert f"{benchmark} {found[split]} of {official:,}" in text
    assert "Absent" not in text


@pytest.mark.parametrize("benchmark", ["cifar10", "imagenet200"])
def test_its_covariate_sets_are_tested_in_the_full_spectrum(benchmark, tmp_path):
    tree = Tree(tmp_path / "data", benchmark)
    tree.save_weights()
    shifted = [name for name, *_, group, _ in BENCHMARKS[benchmark][-1] if group == "covariate"]
    done = tree.run(tmp_path / "out", "-p", "full-spectrum", "-p", "covariate", detectors=["entropy"])
    assert done.returncode == 0, done.stderr
    by_protocol = {record["protocol"]: record for record in records_of(tmp_path / "out")}
    assert [result["dataset"] for result in by_protocol["covariate"]["results"]] == [benchmark, *shifted]
    assert {result["n_known"] for result in by_protocol["full-spectrum"]["results"]} == {6 + 3 * len(shifted)}
    said = ", ".join(f"3 of {name}" for name in shifted)
    assert f"Tested on 6 known samples, and known ones under a shift: {said}; unknown ones: 4 of " in done.stdout


def test_detectors_of_features_and_feature_maps_run_on_it(tree, tmp_path):
    done = tree.run(tmp_path / "out", detectors=["knn:k=2", "ash", "ash:at=features", "vim:d=2", "react"])
    assert done.returncode == 0, done.stderr
    records = records_of(tmp_path / "out")
    assert [(record["status"], record["error"]) for record in records] == [("ok", None)] * 5


def test_the_data_folder_may_be_said_relative_and_by_the_environment(tree, tmp_path, monkeypatch):
    monkeypatch.setenv("OODBENCH_DATA", "data")
    status = command_line("data", "status", "openood-cifar10", "--json", cwd=tmp_path)
    holdings = json.loads(status.stdout)
    assert status.returncode == 0
    found = {(one["dataset"], one["split"]): (one["n"], one["official"]) for one in holdings}
    assert found["cifar10", "train"] == (6, 50_000)
    assert found["cifar10", "test"] == (6, 9_000)
    assert found["tin", "all"] == (4, 7_793)


def test_a_set_that_is_replaced_is_where_the_user_says(tree, tmp_path, monkeypatch):
    (tmp_path / "data" / "images_classic" / "svhn").rename(tmp_path / "elsewhere")
    monkeypatch.chdir(tmp_path)
    done = tree.run(tmp_path / "out", "--set", "svhn=imagefolder:elsewhere")
    assert done.returncode == 0, done.stderr
    assert {record["datasets"]["svhn"]["adapter"] for record in records_of(tmp_path / "out")} == {"imagefolder"}


# What may be wrong


def test_missing_sets_are_named_and_may_be_skipped_and_the_board_says_so(tree, tmp_path, caplog):
    tree.list("test_svhn").unlink()
    for number in range(3):
        (tmp_path / "data" / "images_classic" / "places365" / f"{number}.png").unlink()
    refused = tree.run(tmp_path / "out")
    assert refused.returncode == 3
    lists = tmp_path / "data" / "benchmark_imglist" / "cifar10"
    assert f"the suite openood-cifar10 lacks svhn and places365 (looked for svhn: the list {lists}/test_svhn.txt; " in (
        refused.stderr
    )
    assert f"places365: 3 of the 4 images of {lists}/test_places365.txt, in " in refused.stderr
    assert "run without it with --skip-missing." in refused.stderr
    done = tree.run(tmp_path / "out", "--skip-missing")
    assert done.returncode == 0, done.stderr
    assert f"svhn is left out: looked for the list {lists}/test_svhn.txt." in caplog.text
    for record in records_of(tmp_path / "out"):
        assert record["suite"]["missing"] == ["svhn", "places365"]
    text = board_of(tmp_path / "out")
    assert "**Made on a subset of the data.** Absent sets of the suite: places365, svhn. Found of the official" in text


def test_what_is_missing_is_no_part_of_the_identity(tree, tmp_path):
    detectors = ["entropy"]
    whole = tree.run(tmp_path / "whole", "-p", "known", detectors=detectors)
    tree.list("test_svhn").unlink()
    less = tree.run(tmp_path / "less", "-p", "known", "--skip-missing", detectors=detectors)
    assert (whole.returncode, less.returncode) == (0, 0)
    ids = [
        {record["cell_id"] for record in records_of(tmp_path / out) if record["protocol"] == "known"}
        for out in ("whole", "less")
    ]
    assert ids[0] == ids[1] != set()
    assert not read_verified([tmp_path / "less"])[1], "the names are no part of it in verification either"


def test_training_images_that_are_not_there_can_be_done_without(tree, tmp_path, caplog):
    (tmp_path / "data" / "images_classic" / "cifar10" / "train" / "3.png").unlink()
    refused = tree.run(tmp_path / "out")
    assert refused.returncode == 3
    assert "the suite openood-cifar10 lacks cifar10 (train) (looked for cifar10 (train): 1 of the 6" in refused.stderr
    assert "run without it with --skip-missing." in refused.stderr
    done = tree.run(tmp_path / "out", "--skip-missing", detectors=["entropy"])
    assert done.returncode == 0, done.stderr
    assert "cifar10 (train) is left out: looked for 1 of the 6 images" in caplog.text
    (record,) = records_of(tmp_path / "out")
    assert record["suite"]["missing"] == []
    assert "cifar10 (train)" not in record["datasets"]


def test_a_partial_set_is_said_to_be_one(tree, tmp_path):
    tree.list("test_tin").write_text("tin/0.png -1\ntin/2.png -1\n")
    assert tree.run(tmp_path / "out").returncode == 0
    assert "tin (all): 2 of 7,793" in board_of(tmp_path / "out")


def test_a_file_that_is_listed_twice_counts_twice_and_that_is_said(tree, tmp_path, caplog):
    with tree.list("test_tin").open("a") as file:
        file.write("tin/1.png -1\n")
    done = tree.run(tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert "in tin: 1 duplicates that are kept." in caplog.text
    assert "5 of tin" in done.stdout
    assert "Converted or assumed: tin: 1 duplicates that are kept" in board_of(tmp_path / "out")


def test_another_list_than_the_official_one_is_told_in_a_copy_of_the_suite(tree, tmp_path):
    text = read_suite("openood-cifar10").text.replace("official = 7793", "official = 4")
    (tmp_path / "data" / "mine.toml").write_text(text.replace('"openood-cifar10"', '"mine"'))
    done = tree.run(tmp_path / "out", suite=tmp_path / "data" / "mine.toml")
    assert done.returncode == 0, done.stderr
    text = board_of(tmp_path / "out")
    assert "Converted or assumed: tin: 4 images that are in another list than the official one." in text
    assert "tin (all)" not in text.partition("\n## ")[0], "it has as many lines"


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_a_label_out_of_range_is_told_in_a_sentence(tree, tmp_path, split):
    file = tree.list(f"{split}_cifar10")
    file.write_text(file.read_text().replace(" 9\n", " 12\n"))
    refused = tree.run(tmp_path / "out")
    assert refused.returncode == 2
    assert re.search(
        r"the known set cifar10 has samples of the label 12, and the classifier has 10 outputs; expected labels from 0 "
        r"to 9, so correct the list of its samples, or the suite's `classes`\.$",
        " ".join(refused.stderr.split()),
    )
