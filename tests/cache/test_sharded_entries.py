"""Entries that are made shard by shard: whole, resumed, damaged, of other networks, by several processes."""

import multiprocessing
import os
import random
from functools import partial

import pytest
import torch
from safetensors.torch import load_file

from oodbench.cache.shards import Sharding, kept_in_shards
from oodbench.cache.tensor_files import verified, write_joined, write_tensors
from oodbench.errors import OodbenchError

SHARDS, SIZE = 7, 5
NETWORK = {"network": torch.tensor([1.0])}


def values(part, shard):
    rows = torch.arange(shard * SIZE, (shard + 1) * SIZE, dtype=torch.float64)
    return (rows[:, None] + len(part) * torch.tensor([0.25, 0.5])).float()


def whole(part, shards=SHARDS):
    return torch.cat([values(part, shard) for shard in range(shards)])


def making(asked, *, fails_at=None, network=NETWORK, shards=SHARDS, write=None):
    def make(plan):
        for shard, parts in plan:
            if shard == fails_at:
                raise OodbenchError("it was interrupted")
            asked.append((shard, tuple(parts)))
            if write is not None:
                write(shard, parts)
            yield shard, {part: ({"values": values(part, shard)}, {"about": part}) for part in parts}

    return Sharding(shards, make, network, lambda kept: torch.equal(kept[0]["network"], network["network"]))


IDENTITIES = {"one": {"part": 1}, "three": {"part": 3}}


@pytest.mark.parametrize("shards", [1, SHARDS])
def test_entries_are_made_once_and_joined(tmp_path, shards):
    asked = []
    kept = kept_in_shards(tmp_path, IDENTITIES, making(asked, shards=shards))
    again = kept_in_shards(tmp_path, IDENTITIES, making(asked, shards=shards))
    assert asked == [(shard, ("one", "three")) for shard in range(shards)]
    for found in (kept, again):
        for part, (tensors, metadata) in found.items():
            assert torch.equal(tensors["values"], whole(part, shards))
            assert (tensors["network"], metadata) == (NETWORK["network"], {"about": part})
    assert len(list(tmp_path.iterdir())) == 2, "neither shards nor locks are left"
    for file in tmp_path.iterdir():  # readable by the format's own library
        assert load_file(file)["values"].shape == (shards * SIZE, 2)


def test_what_was_finished_before_an_interruption_is_not_made_again(tmp_path):
    asked = []
    with pytest.raises(OodbenchError, match="interrupted"):
        kept_in_shards(tmp_path, {"one": {"part": 1}}, making(asked, fails_at=4))
    # Another entry joins: it lacks all shards, the first only the last three.
    kept = kept_in_shards(tmp_path, IDENTITIES, making(asked))
    assert asked[:4] == [(shard, ("one",)) for shard in range(4)]
    assert asked[4:] == [(shard, ("three",) if shard < 4 else ("one", "three")) for shard in range(SHARDS)]
    assert all(torch.equal(kept[part][0]["values"], whole(part)) for part in IDENTITIES)


def test_shards_of_another_network_are_not_taken(tmp_path):
    asked = []
    with pytest.raises(OodbenchError, match="interrupted"):
        kept_in_shards(tmp_path, {"one": {"part": 1}}, making(asked, fails_at=4))
    other = {"network": torch.tensor([2.0])}
    kept = kept_in_shards(tmp_path, {"one": {"part": 1}}, making(asked, network=other))
    assert asked[4:] == [(shard, ("one",)) for shard in range(SHARDS)]
    assert torch.equal(kept["one"][0]["network"], other["network"])
    # And the first network has an entry of its own beside it.
    kept_in_shards(tmp_path, {"one": {"part": 1}}, making(asked))
    assert len(asked) == 4 + 2 * SHARDS
    assert len(list(tmp_path.glob("*.safetensors"))) == 2


@pytest.mark.parametrize("what", ["shard", "entry"])
def test_a_damaged_shard_or_entry_alone_is_made_anew(tmp_path, what, caplog):
    asked = []
    if what == "shard":
        with pytest.raises(OodbenchError, match="interrupted"):
            kept_in_shards(tmp_path, {"one": {"part": 1}}, making(asked, fails_at=4))
    else:
        kept_in_shards(tmp_path, {"one": {"part": 1}}, making(asked))
    done = len(asked)
    file = next(tmp_path.glob("*.shards/000002.safetensors" if what == "shard" else "*.safetensors"))
    content = bytearray(file.read_bytes())
    content[-3] ^= 1
    file.write_bytes(content)
    kept = kept_in_shards(tmp_path, {"one": {"part": 1}}, making(asked))
    assert [shard for shard, _ in asked[done:]] == ([2, 4, 5, 6] if what == "shard" else list(range(SHARDS)))
    assert torch.equal(kept["one"][0]["values"], whole("one"))
    assert "is damaged" in caplog.text


def _make_slowly(folder, log):
    def write(shard, parts):
        with log.open("a") as opened:
            opened.write(f"{shard} {' '.join(parts)}\n")
        torch.randn(200, 200) @ torch.randn(200, 200)

    kept_in_shards(folder, IDENTITIES, making([], write=write))


def test_processes_share_the_work_and_no_shard_is_made_twice(tmp_path):
    context = multiprocessing.get_context("fork")
    log = tmp_path / "log"
    processes = [context.Process(target=partial(_make_slowly, tmp_path / "cache", log)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    assert sorted(log.read_text().splitlines()) == [f"{shard} one three" for shard in range(SHARDS)]


class _Deadly(dict):
    """Metadata that end the process when they are sealed."""

    def items(self):
        os._exit(9)


def _die_at_the_second(folder):
    def make(plan):
        for shard, parts in plan:
            told = {part: _Deadly() if part == "three" else {"about": part} for part in parts}
            yield shard, {part: ({"values": values(part, shard)}, told[part]) for part in parts}

    sharding = Sharding(1, make, NETWORK, lambda kept: torch.equal(kept[0]["network"], NETWORK["network"]))
    kept_in_shards(folder, IDENTITIES, sharding)


def test_a_killed_process_leaves_no_lock_of_what_it_had_finished(tmp_path):
    process = multiprocessing.get_context("fork").Process(target=partial(_die_at_the_second, tmp_path))
    process.start()
    process.join(60)
    assert process.exitcode == 9
    (finished,) = tmp_path.glob("*.safetensors")
    assert finished.with_suffix(".lock") not in list(tmp_path.glob("*.lock"))
    kept_in_shards(tmp_path, IDENTITIES, making([], shards=1))
    assert {file.suffix for file in tmp_path.iterdir()} == {".safetensors"}


def test_joined_files_are_sealed_like_others_and_keep_their_types(tmp_path):
    generator = random.Random(0)
    for dtype in (torch.float32, torch.float64, torch.int64, torch.uint8):
        chunks = [torch.tensor([generator.randrange(200) for _ in range(n)]).to(dtype) for n in (3, 4)]
        files = [tmp_path / f"{i}.safetensors" for i in range(2)]
        for file, chunk in zip(files, chunks, strict=True):
            write_tensors(file, {"values": chunk}, {"names": "ä"})
        joined = tmp_path / "joined.safetensors"
        write_joined(joined, files, {"beside": torch.ones(2)})
        tensors, metadata = verified(joined)
        assert torch.equal(tensors["values"], torch.cat(chunks))
        assert (tensors["values"].dtype, metadata) == (dtype, {"names": "ä"})
        joined.rename(tmp_path / "other.safetensors")
        assert verified(tmp_path / "other.safetensors") == "its content is not what was written"


@pytest.mark.parametrize("other", [torch.ones(2, 3).double(), torch.ones(2, 4)])
def test_shards_of_other_kinds_are_not_joined(tmp_path, other):
    files = [tmp_path / "0.safetensors", tmp_path / "1.safetensors"]
    for file, values in zip(files, (torch.ones(2, 3), other), strict=True):
        write_tensors(file, {"values": values}, {"names": "a"})
    with pytest.raises(OodbenchError, match="differ in their names, types or shapes, so they cannot be joined"):
        write_joined(tmp_path / "whole.safetensors", files, {})
    write_tensors(files[1], {"values": torch.ones(2, 3)}, {"names": "b"})
    with pytest.raises(OodbenchError, match="differ in their names"):
        write_joined(tmp_path / "whole.safetensors", files, {})
    assert not (tmp_path / "whole.safetensors").exists()
