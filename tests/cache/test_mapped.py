"""Tensors that are views of their file: what copies of them cost, and that changes stay with who made them."""

import os
from pathlib import Path

import pytest
import torch

from oodbench.cache.tensor_files import changeable, read_tensors, write_tensors
from oodbench.evidence import Evidence

MIB = 2**20


@pytest.fixture
def kept(tmp_path):
    torch.manual_seed(0)
    values = torch.rand(64 * 1024, 256)  # 64 MiB
    file = tmp_path / "entry.safetensors"
    write_tensors(file, {"values": values, "positions": torch.arange(3)}, {})
    return file, values


def anonymous_mib():
    """Memory of this process that is no view of a file."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("RssAnon:")), None)


def test_a_copy_that_may_be_changed_takes_memory_for_changes_alone(kept):
    file, values = kept
    tensors, _ = read_tensors(file, mapped=True)
    view = tensors["values"]
    before = anonymous_mib()
    if before is None:
        pytest.skip("this system does not say what memory is no view of a file")
    mine = changeable(view)
    part = changeable(view[1000:40_000])
    evidence = Evidence(logits=view).copy()
    assert torch.equal(mine, values)
    assert torch.equal(part, values[1000:40_000])
    assert torch.equal(evidence.logits, values)
    assert anonymous_mib() - before < 10
    mine[:4096] = 0
    assert anonymous_mib() - before < 10 + 4


def test_changes_reach_neither_the_file_nor_another_copy(kept):
    file, values = kept
    tensors, _ = read_tensors(file, mapped=True)
    mine, other = changeable(tensors["values"]), changeable(tensors["values"])
    mine.zero_()
    mine[0, 0] = 5
    assert torch.equal(other, values)
    assert torch.equal(tensors["values"], values)
    again = read_tensors(file, mapped=True)
    assert again is not None
    assert torch.equal(again[0]["values"], values)


def test_what_is_no_view_or_small_or_gone_is_copied(kept):
    file, values = kept
    tensors, _ = read_tensors(file, mapped=True)
    assert torch.equal(changeable(tensors["positions"]), torch.arange(3))
    columns = tensors["values"].T
    assert torch.equal(changeable(columns), values.T)
    os.unlink(file)
    mine = changeable(tensors["values"])
    mine.zero_()
    assert torch.equal(tensors["values"], values)
    own = values.clone()
    changeable(own).zero_()
    assert torch.equal(own, values)
