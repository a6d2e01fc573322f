"""The shipped models: they load, they are as good as they say, and loading leaves no trace."""

import subprocess
import sys

import pytest
import torch

from pnpx import zoo

of_each = pytest.mark.parametrize("name", zoo.names())


def test_names():
    assert zoo.names() == ("digits_cnn", "digits_lstm", "digits_rnn", "digits_attention", "breast_cancer_mlp")


@of_each
def test_over_95_percent_of_the_held_out_samples_are_classified_correctly(name):
    data = zoo.data(zoo.entry(name).data, "test")
    with torch.no_grad():
        correct = (zoo.load(name)(data.inputs).argmax(1) == data.targets).float().mean().item()
    assert correct > 0.95
    assert zoo.entry(name).accuracy == pytest.approx(correct, abs=1.01 / len(data))  # one sample may be a tie


@of_each
def test_what_is_recorded_is_what_the_entry_says(name):
    entry = zoo.entry(name)
    record = entry.record
    assert (record["name"], record["data"], record["accuracy"]) == (name, entry.data, entry.accuracy)
    assert record["held_out"] == len(zoo.data(entry.data, "test"))
    assert record["trained_on"] == len(zoo.data(entry.data, "train"))
    assert record["split"] == "stratified, 25% held out, seed 0"
    assert {"seed", "epochs", "torch"} <= record.keys()


@of_each
def test_the_kind_is_that_of_the_data(name):
    assert zoo.entry(name).kind == zoo.data(zoo.entry(name).data).kind


@of_each
def test_layers_worth_explaining_are_run(name):
    model, data, ran = zoo.load(name), zoo.data(zoo.entry(name).data), []
    for layer in zoo.entry(name).layers:
        model.get_submodule(layer).register_forward_hook(lambda *_, layer=layer: ran.append(layer))
    model(data.inputs[:2])
    assert sorted(ran) == sorted(zoo.entry(name).layers) and ran


@of_each
def test_a_loaded_model_is_ready_to_run_and_to_train_on(name):
    model = zoo.load(name)
    assert not any(module.training for module in model.modules())
    assert all(parameter.requires_grad and parameter.is_leaf for parameter in model.parameters())
    tensors = [*model.parameters(), *model.buffers()]
    assert {tensor.device.type for tensor in tensors} == {"cpu"}


def test_each_load_is_a_model_of_its_own():
    first = zoo.load("breast_cancer_mlp")
    with torch.no_grad():
        first.head.weight.zero_()
    assert zoo.load("breast_cancer_mlp").head.weight.abs().min() > 0


@of_each
def test_loading_leaves_the_global_generator_alone(name):
    before = torch.get_rng_state()
    zoo.load(name)
    zoo.data(zoo.entry(name).data)
    assert torch.equal(torch.get_rng_state(), before)


def test_all_files_together_are_small():
    files = [file for file in zoo.entry("digits_cnn").weights.parent.iterdir() if file.is_file()]
    assert {file.suffix for file in files} == {".safetensors"}
    assert sum(file.stat().st_size for file in files) < 2_000_000


@pytest.mark.parametrize("ask", [zoo.entry, zoo.load])
@pytest.mark.parametrize("name, hint", [
    ("digit_cnn", "the nearest: 'digits_cnn'"),
    (
        "resnet",
        "there are: 'digits_cnn', 'digits_lstm', 'digits_rnn', 'digits_attention', 'breast_cancer_mlp', 'sentiment'",
    ),
])
def test_an_unknown_name_is_answered_with_the_nearest(ask, name, hint):
    with pytest.raises(LookupError) as error:
        ask(name)
    assert str(error.value) == f"no model {name!r} in the zoo; {hint}"


def test_describing_and_loading_import_nothing_heavy():
    """Neither scikit-learn nor what torch imports for some operators on the meta device, which takes seconds."""
    code = """
import sys
from pnpx import zoo
for name in zoo.names():
    zoo.load(name), zoo.entry(name).accuracy, zoo.entry(name).kind
print(sorted({"sklearn", "sympy", "torch._dynamo"} & set(sys.modules)))
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    old = torch.__version__.startswith("2.4.")  # it imports sympy to load any weights
    assert ran.stdout == ("['sympy']\n" if old else "[]\n")
