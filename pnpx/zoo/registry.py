"""The zoo's models by name: how each is built, where its weights are, and how well it does."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
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
TEXT_RECORD = "training.json"  # the same for a text model, beside the files that transformers reads


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

    def load(self) -> nn.Module:
        """The model, trained, on the CPU and in eval mode."""
        with torch.device("meta"):  # the initial weights are not wanted, nor is their draw from the global generator
            model = self.build()
        model.load_state_dict(load_file(self.weights), assign=True)
        return model.eval()


@dataclass(frozen=True)
class TextEntry(ZooEntry):
    """One text classifier of the zoo, a folder that transformers' ``from_pretrained`` loads.

    ``data`` names sentences of the zoo to show it on; ``record["data"]`` says what it was trained on.
    """

    @property
    def kind(self) -> Kind:
        """What the inputs are: "text"."""
        return "text"

    @property
    def folder(self) -> Path:
        """The folder with the configuration, the weights and the tokenizer, for ``from_pretrained``."""
        return WEIGHTS / self.name

    @property
    def weights(self) -> Path:
        """The safetensors file with the trained weights, in float16; they are loaded as float32."""
        return self.folder / "model.safetensors"

    @property
    def record(self) -> Mapping[str, Any]:
        """What training wrote beside the weights: recipe, seed, accuracy, data, split, versions."""
        record: dict[str, Any] = json.loads((self.folder / TEXT_RECORD).read_text(encoding="utf-8"))
        return record

    def load(self) -> nn.Module:
        """The model, a transformers ``PreTrainedModel``, on the CPU, in float32 and in eval mode."""
        found = import_transformers().AutoModelForSequenceClassification
        with torch.random.fork_rng(devices=[]):  # some versions of transformers draw weights before they read them
            model: nn.Module = found.from_pretrained(self.folder, local_files_only=True)
        return model.float().eval()

    def tokenizer(self) -> Any:
        """The model's fast tokenizer, a transformers ``PreTrainedTokenizerFast``."""
        return import_transformers().AutoTokenizer.from_pretrained(self.folder, local_files_only=True)


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


def _build_sentiment() -> nn.Module:
    """A fresh network of the shipped configuration."""
    transformers = import_transformers()
    config = transformers.AutoConfig.from_pretrained(_TEXTS["sentiment"].folder, local_files_only=True)
    model: nn.Module = transformers.AutoModelForSequenceClassification.from_config(config)
    return model


_TEXTS = {
    entry.name: entry
    for entry in (
        TextEntry(
            name="sentiment",
            architecture="a BERT of two layers of four heads, 64 wide, with its own WordPiece vocabulary",
            data="sentences",
            build=_build_sentiment,
            layers=("bert.embeddings.word_embeddings", "bert.embeddings", "bert.encoder.layer.0"),
        ),
    )
}


def names() -> tuple[str, ...]:
    """The names of the models that take tensors of numbers; :func:`text_names` has those that read texts."""
    return tuple(_ENTRIES)


def text_names() -> tuple[str, ...]:
    """The names of the models that read texts, which take transformers: ``pip install '.[text]'``."""
    return tuple(_TEXTS)


def entry(name: str) -> ZooEntry:
    """The model called ``name``, described, a :class:`TextEntry` if it reads texts; LookupError if there is none."""
    if name not in _ENTRIES and name not in _TEXTS:
        raise LookupError(f"no model {name!r} in the zoo; {nearest(name, [*_ENTRIES, *_TEXTS])}")
    return _TEXTS[name] if name in _TEXTS else _ENTRIES[name]


def load(name: str) -> nn.Module:
    """The model called ``name``, trained, on the CPU and in eval mode; LookupError if there is none.

    A model that reads texts takes transformers; without it, ImportError.
    """
    return entry(name).load()


def tokenizer(name: str) -> Any:
    """The fast tokenizer of the text model called ``name``, from transformers.

    Raises LookupError if no text model is called so, and ImportError without transformers.
    """
    return _text_entry(name).tokenizer()


def text_folder(name: str) -> Path:
    """The folder of the text model called ``name``, for ``from_pretrained``; LookupError if there is none."""
    return _text_entry(name).folder


def import_transformers(who: str = "the zoo's text models") -> Any:
    """The package transformers, which takes seconds to import; ImportError that says what to install without it.

    ``who`` are those that need it, for the error.
    """
    try:
        return import_module("transformers")
    except ModuleNotFoundError as error:
        if error.name != "transformers":
            raise
        raise ImportError(
            f"{who} need transformers, which is not installed; install it: pip install transformers tokenizers"
        ) from error


def _text_entry(name: str) -> TextEntry:
    if name not in _TEXTS:
        raise LookupError(f"no text model {name!r} in the zoo; {nearest(name, _TEXTS)}")
    return _TEXTS[name]
