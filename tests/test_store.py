"""Stored explanations are found again exactly while nothing that they depend on has changed."""

import dataclasses
import importlib

import pytest
import torch
from torch import nn

import pnpx
from pnpx.store import Names, Store, digest, of_explainer, of_model


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.linear = nn.Linear(3, 2)
        self.activation = nn.ReLU()
        self.register_buffer("scale", torch.ones(1, dtype=torch.bfloat16))

    def forward(self, x):
        return self.activation(self.linear(x)) * self.scale.float()


@pytest.fixture
def explanation():
    return pnpx.Gradient(Net()).explain(torch.ones(1, 3))


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


def test_a_model_is_known_by_weights_buffers_structure_and_code():
    model = Net()
    known = of_model(model)
    assert of_model(Net()) == known
    assert of_model(model.train()) == known
    with torch.no_grad():
        model.linear.weight[0, 0] += 1e-6
    assert of_model(model) != known
    model = Net()
    model.scale += 1
    assert of_model(model) != known
    model = Net()
    model.activation = nn.GELU()
    assert of_model(model) != known


def test_a_model_with_other_code_is_another(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)

    def written(module, sign):
        code = f"from torch import nn\nclass Twin(nn.Module):\n    def forward(self, x):\n        return {sign}x\n"
        (tmp_path / f"{module}.py").write_text(code)
        return importlib.import_module(module).Twin()

    first, same, other = written("twin_a", ""), written("twin_b", ""), written("twin_c", "-")
    assert repr(first) == repr(same) == repr(other)
    assert of_model(first) == of_model(same) != of_model(other)


def test_an_explainer_is_known_by_its_parameters():
    explainer = pnpx.SmoothGrad(Net(), n_iter=5)
    known = of_explainer(explainer)
    assert of_explainer(dataclasses.replace(explainer, model=nn.Linear(3, 2))) == known
    for change in ({"batch_size": 1}, {"progress": True}):
        assert of_explainer(dataclasses.replace(explainer, **change)) == known
    for change in ({"n_iter": 6}, {"noise_level": 0.2}, {"seed": 1}, {"layer": "linear"}, {"replay": False}):
        assert of_explainer(dataclasses.replace(explainer, **change)) != known
    assert of_explainer(pnpx.SquareGrad(Net(), n_iter=5)) != known


def test_the_baselines_of_expected_gradients_count():
    one = of_explainer(pnpx.ExpectedGradients(Net(), baselines=torch.zeros(2, 3)))
    assert one == of_explainer(pnpx.ExpectedGradients(Net(), baselines=torch.zeros(2, 3)))
    assert one != of_explainer(pnpx.ExpectedGradients(Net(), baselines=torch.ones(2, 3)))


@pytest.mark.parametrize("one, other", [
    (torch.zeros(2), torch.zeros(2, 1)),
    (torch.zeros(2), torch.zeros(2, dtype=torch.float64)),
    (torch.zeros(2), torch.tensor([0.0, 1e-30])),
    (torch.tensor(1.0, dtype=torch.bfloat16), torch.tensor(1.0, dtype=torch.float16)),
    ([1, 2], [1, [2]]),
    ("ab", ["a", "b"]),
    ({"a": 1}, {"a": "1"}),
    (torch.relu, torch.tanh),
    (None, "None"),
])
def test_different_things_have_different_digests(one, other):
    assert digest(one) != digest(other)
    assert digest(one) == digest(one)


def test_names_differ_also_where_case_does_not_count():
    names = Names()
    given = ["conv1", "Conv1", "relu#2", "relu:2", "relu.2", "../up", "", "a b/ü"]
    made = [names.new(name) for name in given]
    assert made == ["conv1", "Conv1-2", "relu.2", "relu.2-2", "relu.2-3", "up", "unnamed", "a.b"]
