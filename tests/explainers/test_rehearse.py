"""A rehearsal finds what an explanation would fail for, and costs a few passes of the model."""

import sys

import pytest
import torch
from torch import nn

import pnpx

SHIPPED = [
    kind
    for name, kind in pnpx.all_explainers().items()
    if kind.__module__.startswith("pnpx.") and getattr(sys.modules[kind.__module__], name, None) is kind
]


class Counted(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Linear(6, 5), nn.Linear(5, 3)
        self.idle = nn.Linear(2, 2)
        self.rows = []

    def forward(self, x):
        self.rows.append(len(x))
        return self.second(self.first(x).tanh())


@pytest.mark.parametrize("layer", [None, "first", "first:input"])
@pytest.mark.parametrize("kind", SHIPPED, ids=lambda kind: kind.__name__)
def test_costs_a_few_passes_and_no_more(kind, layer):
    model, x = Counted().train(), torch.randn(1, 6)
    explainer = kind(model, layer=layer, **kind.example_parameters(x))
    state = torch.get_rng_state()
    explainer.rehearse(x)
    assert 1 <= sum(model.rows) <= 6
    assert torch.equal(torch.get_rng_state(), state) and model.training


@pytest.mark.parametrize("options", [
    {"layer": "idle"}, {"layer": "first#2"}, {"n_classes": 4}, {"output_layer": "idle"},
    {"reducer": "mean"}, {"forward_arg_extractor": 3}, {"output_extractor": "logits"},
], ids=str)
@pytest.mark.parametrize("kind", SHIPPED, ids=lambda kind: kind.__name__)
def test_raises_what_attribute_raises(kind, options):
    x = torch.randn(1, 6)
    explainer = kind(Counted(), **kind.example_parameters(x), **options)
    with pytest.raises(Exception, match=r"\w") as expected:
        explainer.attribute(x)
    with pytest.raises(type(expected.value)) as found:
        explainer.rehearse(x)
    assert str(found.value) == str(expected.value)
