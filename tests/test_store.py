"""Stored explanations are found again exactly while nothing that they depend on has changed."""

import pytest
import torch
from torch import nn

import pnpx
from pnpx.store import Names, Store


@pytest.fixture
def explanation():
    return pnpx.Gradient(nn.Linear(3, 2)).explain(torch.ones(1, 3))


def test_finds_what_was_saved(tmp_path, explanation):
    store = Store(tmp_path)
    assert store.find("net/Gradient/0001", "print") is None
    store.save("net/Gradient/0001", explanation, "print")
    found = store.find("net/Gradient/0001", "print")
    assert torch.equal(found.attributions, explanation.attributions)
    assert found.explainer["name"] == "Gradient"
    assert [path.name for path in (tmp_path / "net/Gradient").iterdir()] == ["0001.safetensors"]


def test_another_fingerprint_counts_as_absent(tmp_path, explanation):
    store = Store(tmp_path)
    store.save("a", explanation, "print")
    assert store.find("a", "another") is None
    explanation.save(store.path("b"))
    assert store.find("b", "print") is None


def test_damaged_files_count_as_absent(tmp_path, explanation):
    store = Store(tmp_path)
    store.save("a", explanation, "print")
    whole = store.path("a").read_bytes()
    for content in (b"", whole[:20], whole[:-5], b"\xff" * 100):
        store.path("a").write_bytes(content)
        assert store.find("a", "print") is None


def test_saving_removes_the_old_picture_and_what_a_killed_run_left(tmp_path, explanation):
    store = Store(tmp_path)
    store.picture("a").write_bytes(b"of the earlier one")
    (tmp_path / ".a.safetensors.0123.part").write_bytes(b"half")
    (tmp_path / ".b.safetensors.0123.part").write_bytes(b"half, of another")
    store.save("a", explanation, "print")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".b.safetensors.0123.part", "a.safetensors"]


def test_names_differ_also_where_case_does_not_count():
    names = Names()
    given = ["conv1", "Conv1", "relu#2", "relu:2", "relu.2", "../up", "", "a b/ü"]
    made = [names.new(name) for name in given]
    assert made == ["conv1", "Conv1-2", "relu.2", "relu.2-2", "relu.2-3", "up", "unnamed", "a.b"]
