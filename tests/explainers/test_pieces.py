"""A batch explained in pieces is the batch explained at once; channels are pooled along the right axis."""


import pytest
import torch
from torch import nn

import pnpx
from pnpx.explainers.pieces import Piece, join, pool_channels
from tests.errors import raises

MAP = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0))


def piece(attributions, axes, n_targets=None, **more):
    rest = {"mirrored": tuple, "targets": None, "diagnostics": {}, "output": None, **more}
    return Piece(attributions, [a.clone() for a in attributions], axes, n_targets=n_targets, **rest)


def test_joined_in_order_along_the_batch():
    ones, twos = torch.ones(2, 3), torch.full((1, 3), 2.0)
    found = join([
        piece([ones, ones.T], [0, 1], targets=torch.tensor([1, 2]), diagnostics={"gap": torch.tensor([1.0, 2.0])},
              output=torch.zeros(2, 4)),
        piece([twos, twos.T], [0, 1], targets=torch.tensor([3]), diagnostics={"gap": torch.tensor([3.0])},
              output=torch.ones(1, 4)),
    ])
    assert torch.equal(found.attributions[0], torch.cat([ones, twos]))
    assert torch.equal(found.attributions[1], torch.cat([ones, twos]).T)
    assert found.targets.tolist() == [1, 2, 3] and found.diagnostics["gap"].tolist() == [1, 2, 3]
    assert found.output[:, 0].tolist() == [0, 0, 1] and found.axes == [0, 1]


def test_sequences_of_other_lengths_get_zeros_behind():
    found = join([piece([torch.ones(1, 2, 3)], [0]), piece([torch.ones(2, 4, 3)], [0])])
    assert found.attributions[0].shape == (3, 4, 3)
    assert found.attributions[0][0].sum(1).tolist() == [3, 3, 0, 0]


def test_outputs_of_all_pieces_or_none():
    ones, longer = torch.ones(1, 2, 3), torch.ones(2, 4, 3)
    found = join([piece([ones], [0], output=ones), piece([ones], [0], output=longer)])
    assert found.output.shape == (3, 4, 3) and found.output[0, :, 0].tolist() == [1, 1, 0, 0]
    assert join([piece([ones], [0], output=ones), piece([ones], [0])]).output is None


def test_what_has_no_axis_of_the_batch_gets_one():
    table = [torch.full((1, 4, 3), float(sample)) for sample in range(2)]
    found = join([piece([one], [0]) for one in table], whole=[((4, 3), None)])
    assert found.attributions[0].shape == (2, 4, 3) and found.attributions[0][:, 0, 0].tolist() == [0, 1]
    # An axis of size 1 in front, as a table broadcast over the batch has, is used.
    found = join([piece([one], [0]) for one in table], whole=[((1, 4, 3), None)])
    assert found.attributions[0].shape == (2, 4, 3)


def test_several_rows_a_sample_get_an_axis_of_the_samples():
    found = join([piece([torch.full((1, 6, 3), float(s))], [0]) for s in range(2)], whole=[((12, 3), None)])
    assert found.attributions[0].shape == (2, 6, 3) and found.attributions[0][:, 0, 0].tolist() == [0, 1]


class Pair(nn.Module):
    """Encodes two inputs in one call, one after the other along the axis of the batch."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.encode, self.head = nn.Linear(3, 5).double(), nn.Linear(10, 2).double()

    def forward(self, a, b):
        first, second = self.encode(torch.cat([a, b])).chunk(2)
        return self.head(torch.cat([first, second], 1)).square()


@pytest.mark.parametrize("batch_size", [1, 2, 32])
def test_rows_in_another_order_belong_to_their_samples(batch_size):
    model, (a, b) = Pair(), torch.randn(2, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    found = pnpx.GradientXInput(model, layer="encode", batch_size=batch_size).explain((a, b), 0)
    value = torch.stack([model.encode(a), model.encode(b)], 1).detach()  # (batch, which of the two, features)
    torch.testing.assert_close(found.explained, value)
    at = value.flatten(1).requires_grad_()
    (gradient,) = torch.autograd.grad(model.head(at).square()[:, 0].sum(), at)
    torch.testing.assert_close(found.attributions, (at * gradient).detach().reshape(3, 2, 5))
    alone = pnpx.GradientXInput(model, layer="encode").attribute((a[:1], b[:1]), 0)
    torch.testing.assert_close(alone, found.attributions[:1])


class Windows(nn.Module):
    """Merges samples with windows of them, (batch * windows, size), as Swin transformers do."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.inner = nn.Sequential(nn.Linear(3, 4), nn.Tanh()).double()
        self.head = nn.Linear(4, 2).double()

    def forward(self, x):
        inside = self.inner(x.unflatten(1, (2, 3)).flatten(0, 1))
        return self.head(inside.unflatten(0, (len(x), 2)).mean(1)).square()


class Positions(nn.Module):
    """Adds to every sample a table of positions, which itself has no axis of the batch."""

    def __init__(self, steps=4):
        super().__init__()
        torch.manual_seed(0)
        self.table, self.inner = nn.Embedding(steps, 3).double(), nn.Linear(3, 3).double()
        self.steps = steps

    def forward(self, x):
        hidden = self.inner(x[:, :, None] + self.table(torch.arange(self.steps)))
        return hidden.tanh().sum(1)


X = torch.randn(4, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("kind", [pnpx.Gradient, pnpx.VarGrad, pnpx.IntegratedGradients])
@pytest.mark.parametrize("targets", [1, torch.tensor([[0, 1], [1, 1], [0, 0], [1, 0]])], ids=["one", "several"])
def test_merged_axes_sample_by_sample(kind, targets):
    model = Windows()
    found = kind(model, layer="inner").attribute(X, targets)
    several = isinstance(targets, torch.Tensor)
    assert found.shape == ((4, 2, 2, 4) if several else (4, 2, 4))
    alone = [kind(model, layer="inner").attribute(X[i : i + 1], targets[i : i + 1] if several else targets)
             for i in range(4)]
    for sample, one in enumerate(alone):
        torch.testing.assert_close(found[sample : sample + 1], one)


def test_noise_on_merged_axes_is_that_of_whole_samples():
    """Each window has noise of its own, and the range is over all windows of the sample."""
    model, n = Windows(), 3
    generator = torch.Generator().manual_seed(0)
    noise = [torch.randn(2, 4, generator=generator).double() for _ in range(n)]
    found = pnpx.VarGrad(model, layer="inner", n_iter=n, noise_level=0.5).attribute(X, 1)
    for sample in range(4):
        at = model.inner(X[sample].reshape(2, 3)).detach()
        gradients = []
        for one in noise:
            point = (at + 0.5 * (at.amax() - at.amin()) * one).requires_grad_()
            gradients.append(torch.autograd.grad(model.head(point.mean(0)).square()[1], point)[0])
        torch.testing.assert_close(found[sample], torch.stack(gradients).var(0))


@pytest.mark.parametrize("kind", [pnpx.Gradient, pnpx.SmoothGrad, pnpx.IntegratedGradients])
@pytest.mark.parametrize("batch", [1, 2, 4])
def test_a_table_of_positions_means_something_else_for_each_sample(kind, batch):
    """Also for a batch of as many samples as there are positions."""
    model = Positions()
    x = X[:batch, :4]
    found = kind(model, layer="table").attribute(x, 1)
    assert found.shape == (batch, 4, 3)
    if kind is pnpx.Gradient:
        at = model.table.weight.detach().clone().requires_grad_()
        for sample in range(batch):
            score = model.inner(x[sample, :, None] + at).tanh().sum(0)[1]
            torch.testing.assert_close(found[sample], torch.autograd.grad(score, at)[0])
    for sample in range(batch):
        torch.testing.assert_close(kind(model, layer="table").attribute(x[sample : sample + 1], 1)[0], found[sample])


def test_a_table_of_positions_with_several_targets_and_a_record():
    model, x = Positions(), X[:3, :4]
    targets = torch.tensor([[0, 1], [2, 2], [1, 0]])
    found = pnpx.Gradient(model, layer="table").attribute(x, targets)
    assert found.shape == (3, 2, 4, 3)
    for column in range(2):
        one = pnpx.Gradient(model, layer="table").attribute(x, targets[:, column])
        torch.testing.assert_close(found[:, column], one)
    explanation = pnpx.Gradient(model, layer="table").explain(x, targets)
    assert explanation.explained.shape == (3, 4, 3) and len(explanation) == 3
    assert torch.equal(explanation.targets, targets)


def test_diagnostics_outputs_and_targets_of_all_pieces():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 4), nn.Tanh(), nn.Linear(4, 3)).double()
    for batch_size in (1, 3, 32):
        explanation = pnpx.IntegratedGradients(model, batch_size=batch_size, n_steps=3).explain(X)
        assert explanation.diagnostics["completeness_gap"].shape == (4,)
        torch.testing.assert_close(explanation.output, model(X).detach())
        assert torch.equal(explanation.targets, model(X).argmax(1)) and explanation.attributions.shape == X.shape


# Channels


@pytest.mark.parametrize("reducer", ["mean", "sum", "max", "min"])
@pytest.mark.parametrize("shape, channel_axis, axis", [
    ((2, 3, 4, 5), None, 1), ((2, 4, 3), None, 2), ((2, 3, 4, 5, 6), None, 1), ((2, 3, 4, 5), 3, 3),
    ((2, 3, 4, 5), -1, 3), ((2, 7), 1, 1), ((2, 4, 3), 1, 1),
], ids=str)
@pytest.mark.parametrize("n_targets", [None, 2])
def test_pooling(reducer, shape, channel_axis, axis, n_targets):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    arrays = {"mean": "mean", "sum": "sum", "max": "max", "min": "min"}
    expected = torch.from_numpy(getattr(x.numpy(), arrays[reducer])(axis=axis))
    given = x if n_targets is None else torch.stack([x, 2 * x], 1)
    found = pool_channels(given, reducer, channel_axis, 0, n_targets)
    if n_targets is not None:
        assert found.shape[1] == 2
        torch.testing.assert_close(found[:, 1], 2 * expected)
        found = found[:, 0]
    torch.testing.assert_close(found, expected)


def test_pooling_where_the_batch_is_not_in_front():
    x = torch.randn(4, 2, 3)  # (length, batch, features), as recurrent nets take them
    torch.testing.assert_close(pool_channels(x, "sum", None, 1, None), x.sum(2))
    several = torch.stack([x, 2 * x], 2)
    torch.testing.assert_close(pool_channels(several, "sum", None, 1, 2), several.sum(3))
    torch.testing.assert_close(pool_channels(several, "sum", 0, 1, 2), several.sum(0))


def test_no_reducer_no_pooling():
    assert pool_channels(MAP, None, None, 0, None) is MAP


@pytest.mark.parametrize("shape, channel_axis, message", [
    ((2, 3), None, "reducer='sum' pools the channel axis, but what is explained has shape (batch, features), without "
                   "channels; leave the reducer out, or give channel_axis"),
    ((2, 3, 4), 3, "channel_axis must be one of the axes 1 to 2 of the value, but is 3"),
    ((2, 3, 4), 0, "channel_axis must be one of the axes 1 to 2 of the value, but is 0"),
    ((2, 3, 4), -3, "channel_axis must be one of the axes 1 to 2 of the value, but is -3"),
])
def test_no_such_channels(shape, channel_axis, message):
    with raises(ValueError, message):
        pool_channels(torch.ones(shape), "sum", channel_axis, 0, None)


def test_pooled_through_an_explainer():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 5, 2), nn.Tanh(), nn.Flatten(), nn.Linear(60, 2))
    for layer, channels in ((None, 3), ("0", 5)):
        whole = pnpx.SmoothGrad(model, layer=layer).attribute(MAP, 1)
        assert whole.shape[1] == channels
        torch.testing.assert_close(pnpx.SmoothGrad(model, layer=layer, reducer="max").attribute(MAP, 1), whole.amax(1))
    targets = torch.tensor([[0, 1], [1, 1]])
    whole = pnpx.Gradient(model).attribute(MAP, targets)
    torch.testing.assert_close(pnpx.Gradient(model, reducer="sum").attribute(MAP, targets), whole.sum(2))


def convolutions():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv1d(2, 3, 3), nn.BatchNorm1d(3), nn.MaxPool1d(2), nn.Tanh(), nn.ConvTranspose1d(3, 2, 2),
                         nn.Flatten(), nn.Linear(10, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))


@pytest.mark.parametrize("layer", ["0:input", "0", "1", "2:input", "2", "4", ["0", "2"], nn.Conv1d], ids=str)
@pytest.mark.parametrize("targets", [1, torch.tensor([[0, 1], [1, 0]])], ids=["one", "several"])
def test_one_dimensional_convolutions_have_their_channels_before_the_length(layer, targets):
    model, x = convolutions(), torch.randn(2, 2, 10)
    layer = model[0] if layer is nn.Conv1d else layer
    given = {"n_iter": 2, "layer": layer}
    wholes = pnpx.SmoothGrad(model, **given).attribute(x, targets)
    founds = pnpx.SmoothGrad(model, reducer="sum", **given).attribute(x, targets)
    for whole, found in zip(wholes, founds, strict=True) if isinstance(layer, list) else [(wholes, founds)]:
        torch.testing.assert_close(found, whole.sum(-2))


def test_groups_of_channels_at_one_dimensional_convolutions():
    model, x = convolutions(), torch.randn(2, 2, 10)
    found = pnpx.FeatureAblation(model, layer="0", groups="channels").explain(x, 1)
    assert (found.attributions == found.attributions[:, :, :1]).all()  # a channel has one number


def test_elsewhere_the_channels_are_where_they_are_said_to_be():
    model, x = convolutions(), torch.randn(2, 2, 10)
    for layer, axis in ((None, 2), ("3", 2), (["0", "3"], 2)):
        whole = pnpx.Gradient(model, layer=layer).attribute(x, 1)
        found = pnpx.Gradient(model, layer=layer, reducer="sum").attribute(x, 1)
        last = (whole[1], found[1]) if isinstance(layer, list) else (whole, found)
        torch.testing.assert_close(last[1], last[0].sum(axis))
    whole = pnpx.Gradient(model, layer="0").attribute(x, 1)
    found = pnpx.Gradient(model, layer="0", reducer="sum", channel_axis=2).attribute(x, 1)
    torch.testing.assert_close(found, whole.sum(2))
    with pytest.raises(ValueError, match=r"what is explained has shape \(batch, features\), without channels; leave"):
        pnpx.Gradient(model, layer="7", reducer="sum").attribute(x, 1)


def test_a_record_says_where_the_channels_are():
    record = pnpx.Gradient(convolutions(), layer="0").explain(torch.randn(2, 2, 10), 1)
    assert record.explainer["channel_axis"] == -2
    (axes,) = [axes for axes in record.plot().get_axes() if axes.get_label() != "colour bar"]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("position", "channel")
