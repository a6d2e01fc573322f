"""The zoo's models by name: how each is built, where its weights are, and how well it does."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import nn

from pnpx.suggest import nearest
from pnpx.zoo.architectures import BreastCancerMLP, DigitsAttention, DigitsCNN, DigitsLSTM, DigitsRNN
from pnpx.zoo.datasets import WEIGHTS, Kind, kind_of

METADATA_KEY = "pnpx.zoo"  # safetensors' metadata are strings: one of them, JSON, holds all that we record


@dataclass(frozen=True)
class ZooEntry:
    """One model of the zoo.

    ``architecture`` describes it in a line; ``data`` names the data set it was trained on; ``build`` makes it with
    fresh weights; ``layers`` are a few module paths worth explaining.
    """

    name: str
    architecture: str
    data: str
    build: Callable[[], nn.Module]
    layers: tuple[str, ...]

    @property
    def kind(self) -> Kind:
        """What the inputs are: "image", "series" or "tabular"."""
        return kind_of(self.data)

    @property
    def weights(self) -> Path:
        """The safetensors file with the trained weights."""
        return WEIGHTS / f"{self.name}.safetensors"

    @property
    def record(self) -> Mapping[str, Any]:
        """What training wrote beside the weights: seed, epochs, accuracy, data, split, versions."""
        with safe_open(self.weights, framework="pt") as file:
            record: dict[str, Any] = json.loads(file.metadata()[METADATA_KEY])
        return record

    @property
    def accuracy(self) -> float:
        """The share of held-out samples classified correctly, in [0, 1], as measured after training."""
        return float(self.record["accuracy"])


_ENTRIES = {
    entry.name: entry
    for entry in (
        ZooEntry(
            name="digits_cnn",
            architecture="two convolutions with batch norm, in-place ReLU and pooling, then two linear layers",
            data="digits",
            build=DigitsCNN,
            layers=("conv1", "conv2", "hidden"),
        ),
        ZooEntry(
            name="digits_lstm",
            architecture="one LSTM layer of 64 units over the rows, then a linear layer on its last output",
            data="digits_rows",
            build=DigitsLSTM,
            layers=("lstm",),
        ),
        ZooEntry(
            name="digits_rnn",
            architecture="one Elman RNN layer of 64 units over the rows, then a linear layer on its last hidden state",
            data="digits_rows",
            build=DigitsRNN,
            layers=("rnn",),
        ),
        ZooEntry(
            name="digits_attention",
            architecture="a vision transformer: 2x2 patches and a class token, two blocks of four heads, GELU",
            data="digits",
            build=DigitsAttention,
            layers=("patches", "block1", "block1.attention", "block2.attention"),
        ),
        ZooEntry(
            name="breast_cancer_mlp",
            architecture="a multilayer perceptron with two hidden layers of 32 and 16 ReLU units",
            data="breast_cancer",
            build=BreastCancerMLP,
            layers=("hidden1", "hidden2"),
        ),
    )
}


def names() -> tuple[str, ...]:
    """The names of the models."""
    return tuple(_ENTRIES)


def entry(name: str) -> ZooEntry:
    """The model called ``name``, described; LookupError if there is none."""
    if name not in _ENTRIES:
        raise LookupError(f"no model {name!r} in the zoo; {nearest(name, _ENTRIES)}")
    return _ENTRIES[name]


def load(name: str) -> nn.Module:
    """The model called ``name``, trained, on the CPU and in eval mode; LookupError if there is none."""
    found = entry(name)
    with torch.device("meta"):  # the initial weights are not wanted, nor is their draw from the global generator
        model = found.build()
    model.load_state_dict(load_file(found.weights), assign=True)
    return model.eval()
