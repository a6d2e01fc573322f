"""The half of an error that says what was probably meant."""

import pytest

from pnpx.suggest import nearest

PATHS = ["bert.embeddings", "bert.encoder.layer.0", "classifier"]


@pytest.mark.parametrize("word, candidates, hint", [
    ("noise_levle", ["n_iter", "noise_level"], "the nearest: 'noise_level'"),
    ("embd", PATHS, "the nearest: 'bert.embeddings'"),  # the last part of a path counts by itself
    ("embeddings", PATHS, "the nearest: 'bert.embeddings'"),
    ("layer.0", PATHS, "the nearest: 'bert.encoder.layer.0'"),
    ("model.classifier", PATHS, "the nearest: 'classifier'"),
    ("x", ["conv1", "conv2"], "there are: 'conv1', 'conv2'"),
    ("x", [], "there are none"),
    ("", ["conv1"], "there are: 'conv1'"),
    ("GRADIENT", ["SmoothGrad", "Gradient"], "the nearest: 'Gradient'"),
    ("LSTM", ["encoder.lstm", "head"], "the nearest: 'encoder.lstm'"),
    ("Conv", ["conv", "CONV"], "the nearest: 'conv'"),
    ("CONv", ["conv", "CONV"], "the nearest: 'CONV'"),
    ("zzz", [10, 20], "there are: '10', '20'"),
    ("zzz", list("abcdef"), "there are: 'a', 'b', 'c', 'd', 'e', 'f'"),
    ("zzz", list("abcdefgh"), "there are: 'a', 'b', 'c', 'd', 'e', 'f' and 2 more"),
])
def test_hint(word, candidates, hint):
    assert nearest(word, candidates) == hint


def test_takes_any_iterable_once():
    assert nearest("fc", (name for name in ("fc1", "conv"))) == "the nearest: 'fc1'"
