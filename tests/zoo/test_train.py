"""Training repeats itself, never looks at the held-out split, and writes whole files."""

from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from pnpx import zoo
from pnpx.zoo import train as training

MLP = "breast_cancer_mlp"
BRIEF = replace(training.RECIPES[MLP], epochs=2)


def same(state, other):
    return state.keys() == other.keys() and all(torch.equal(state[key], other[key]) for key in state)


def test_every_model_has_a_recipe():
    assert tuple(training.RECIPES) == zoo.names()


@pytest.mark.parametrize("name", zoo.names())
def test_the_shipped_weights_were_trained_by_the_recipe(name):
    record, recipe = zoo.entry(name).record, training.RECIPES[name]
    assert (record["epochs"], record["seed"]) == (recipe.epochs, recipe.seed)


def test_training_again_gives_the_shipped_accuracy(tmp_path, capsys):
    training.main([MLP, "--output", str(tmp_path / "new")])
    shipped, written = zoo.entry(MLP).weights, tmp_path / "new" / f"{MLP}.safetensors"
    model = zoo.entry(MLP).build()
    model.load_state_dict(load_file(written))
    measured = training.accuracy(model.eval(), zoo.data("breast_cancer", "test"))
    assert capsys.readouterr().out == f"{MLP}: {measured:.2%} of the held-out samples correct\n"
    assert measured == pytest.approx(zoo.entry(MLP).accuracy, abs=0.02)
    assert load_file(written).keys() == load_file(shipped).keys()
    assert sorted(file.name for file in written.parent.iterdir()) == [
        f"{MLP}.safetensors", "breast_cancer_scaling.safetensors",
    ]


def test_a_run_repeats_itself_and_the_seed_matters():
    entry, data = zoo.entry(MLP), zoo.data("breast_cancer", "train")
    first = training.train(entry, BRIEF, data).state_dict()
    assert same(first, training.train(entry, BRIEF, data).state_dict())
    assert not same(first, training.train(entry, replace(BRIEF, seed=1), data).state_dict())


def test_training_leaves_the_global_generator_alone():
    before = torch.get_rng_state()
    model = training.train(zoo.entry(MLP), BRIEF, zoo.data("breast_cancer", "train"))
    assert torch.equal(torch.get_rng_state(), before)
    assert not model.training


def test_the_held_out_split_has_no_part_in_training(tmp_path, monkeypatch):
    def spoilt(name, split):
        data = zoo.data(name, split)
        return data if split == "train" else replace(data, inputs=data.inputs * -7, targets=1 - data.targets)

    monkeypatch.setitem(training.RECIPES, MLP, BRIEF)
    honest = training.train_and_write(MLP, tmp_path / "a")
    monkeypatch.setattr(training, "data", spoilt)
    assert training.train_and_write(MLP, tmp_path / "b") != honest
    assert same(*(load_file(tmp_path / folder / f"{MLP}.safetensors") for folder in "ab"))


def test_accuracy_is_the_share_that_is_right():
    data = zoo.data("breast_cancer", "test")
    first = torch.nn.Linear(30, 2)
    with torch.no_grad():
        first.weight.zero_()
        first.bias.copy_(torch.tensor([1.0, 0.0]))
    assert training.accuracy(first, data) == (data.targets == 0).sum().item() / len(data)


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    def fail(*_):
        raise OSError("the disk is full")

    path = tmp_path / "weights.safetensors"
    training.write(path, {"a": torch.ones(2)}, {})
    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(OSError, match="the disk is full"):
        training.write(path, {"a": torch.zeros(2)}, {})
    assert load_file(path)["a"].tolist() == [1, 1]
    assert list(tmp_path.iterdir()) == [path]


def test_an_unknown_name_stops_before_anything_is_trained(tmp_path, capsys):
    with pytest.raises(SystemExit):
        training.main([MLP, "digits_cn", "--output", str(tmp_path)])
    assert "no model 'digits_cn' in the zoo; the nearest: 'digits_cnn'" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
