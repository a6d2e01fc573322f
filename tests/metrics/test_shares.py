"""Complexity and Sparseness by hand, and by other formulas."""

from math import log

import pytest
import torch

import pnpx
from pnpx.metrics import Complexity, Sparseness
from pnpx.testing import case


def values(metric, *rows):
    map_ = torch.tensor(rows, dtype=torch.float64)
    return metric.evaluate(pnpx.Gradient(torch.nn.Linear(map_.shape[1], 2).double()), torch.zeros_like(map_), 0, map_)


def test_by_hand():
    complexity = values(Complexity(), [2, 2, -2, 2], [0, 0, 5, 0], [1, 1, 0, 0], [0, 0, 0, 0], [3, -1, 0, 0])
    entropy = -0.75 * log(0.75) - 0.25 * log(0.25)
    torch.testing.assert_close(complexity, torch.tensor([log(4), 0, log(2), log(4), entropy]).double())
    sparseness = values(Sparseness(), [2, 2, -2, 2], [0, 0, 5, 0], [1, 1, 0, 0], [0, 0, 0, 0], [3, -1, 0, 0])
    torch.testing.assert_close(sparseness, torch.tensor([0, 0.75, 0.5, 0, (0.75 * 3 + 0.25 - 0) / 4]).double())
    for metric in (Complexity(), Sparseness()):
        assert values(metric, [7.0]).tolist() == [0]
        assert values(metric, [1, 2, 3], [1e-300, 2e-300, 3e-300]).diff().abs().max() < 1e-12
        assert values(metric, [1, 2, 3], [1e300, 2e300, 3e300]).diff().abs().max() < 1e-12
        assert values(metric, [1, float("nan"), 3]).isnan().all()
        assert (values(metric, [1, -2, 3]) == values(metric, [-1, 2, -3])).all()


def test_as_the_mean_difference_of_all_pairs():
    rows = torch.randn(5, 9, generator=torch.Generator().manual_seed(0)).double()
    sizes = rows.abs()
    gini = (sizes[:, :, None] - sizes[:, None]).abs().mean((1, 2)) / (2 * sizes.mean(1))
    torch.testing.assert_close(values(Sparseness(), *rows.tolist()), gini)
    entropy = torch.distributions.Categorical(sizes).entropy()
    torch.testing.assert_close(values(Complexity(), *rows.tolist()), entropy)


@pytest.mark.parametrize("name, layer", [("lstm", "lstm"), ("two_inputs", None), ("gru_sequence_first", "rnn")])
def test_all_tensors_of_a_sample_together(name, layer):
    given = case(name)
    explainer = pnpx.GradientXInput(given.model, layer=layer)
    explanation = explainer.explain(given.batch, given.targets)
    parts = [
        tensor.movedim(axis, 0).flatten(1)
        for tensor, axis in zip(pnpx.structure.tensors(explanation.attributions), explanation.batch_axes, strict=True)
    ]
    entropy = torch.distributions.Categorical(torch.cat(parts, 1).abs()).entropy()
    torch.testing.assert_close(Complexity().evaluate(explainer, given.batch, given.targets), entropy)


def test_padding_is_left_out():
    """A constant map has the entropy of as many numbers as are no padding."""
    pytest.importorskip("transformers")
    given = case("bert_eager")
    explainer = pnpx.GradientXInput(given.model, layer="bert.embeddings", **given.parameters)
    map_ = torch.ones_like(explainer.attribute(given.batch))
    found = Complexity().evaluate(explainer, given.batch, None, map_)
    torch.testing.assert_close(found, (given.steps.sum(1) * 8).double().log())
    packed = case("packed")
    found = Complexity().evaluate(pnpx.Gradient(packed.model), packed.batch, None, torch.ones(3, 6, 4))
    torch.testing.assert_close(found, (torch.tensor([4, 6, 2]) * 4).double().log())


def test_pooled_channels_are_shared_out_evenly():
    given = case("conv")
    explainer = pnpx.Gradient(given.model, reducer="sum")
    map_ = explainer.attribute(given.batch, given.targets)
    found = Complexity().evaluate(explainer, given.batch, given.targets, map_)
    entropy = torch.distributions.Categorical(map_.abs().flatten(1)).entropy()
    torch.testing.assert_close(found, entropy + log(2))  # of each position two channels
    found = Sparseness().evaluate(explainer, given.batch, given.targets, map_)
    torch.testing.assert_close(found, values(Sparseness(), *map_.flatten(1).tolist()))
