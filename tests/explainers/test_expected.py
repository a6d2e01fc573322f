"""Expected gradients against closed forms, and against the loop of their definition."""

import re

import numpy as np
import pytest
import torch
from torch import nn

from pnpx import ExpectedGradients
from tests.errors import raises
from tests.explainers.probes import Quadratic, Spy

X = torch.randn(3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(7))
BASES = torch.randn(5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(8))


class Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.left, self.right = nn.Linear(4, 5), nn.Linear(2, 5)

    def forward(self, a, b):
        return (self.left(a) * self.right(b)).cumsum(1)


@pytest.fixture
def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 7), nn.Tanh(), nn.Linear(7, 3)).double()


@pytest.mark.parametrize("n_iter", [5, 10, 50])
def test_linear_model(n_iter):
    """w (x - mean of the baselines), exactly, since every baseline is used equally often."""
    model = nn.Linear(4, 2).double()
    found = ExpectedGradients(model, baselines=BASES, n_iter=n_iter).attribute(X, 1)
    torch.testing.assert_close(found, (model.weight[1] * (X - BASES.mean(0))).detach())


def test_quadratic_model():
    """The mean of x^2 - b^2 over the baselines, up to the error of the positions, drawn one from each of n parts."""
    found = ExpectedGradients(Quadratic(), baselines=BASES, n_iter=2000).attribute(X)
    torch.testing.assert_close(found, X.square() - BASES.square().mean(0), rtol=0, atol=0.2)
    one = ExpectedGradients(Quadratic(), baselines=BASES[:1], n_iter=400).attribute(X)
    torch.testing.assert_close(one, X.square() - BASES[:1].square(), rtol=0, atol=2e-3)  # plain draws: 0.05


def test_completeness_in_the_mean(net):
    rise = (net(X) - net(BASES).mean(0))[:, 2].detach()
    sums = torch.stack([
        ExpectedGradients(net, baselines=BASES, n_iter=10, seed=seed).attribute(X, 2).sum(1) for seed in range(30)])
    assert ((sums.mean(0) - rise).abs() < 4.5 * sums.std(0) / 30**0.5).all()
    assert sums.std(0).max() > 1e-4
    at_layer = ExpectedGradients(net, layer="0", baselines=BASES, n_iter=500).attribute(X, 2).sum(1)
    torch.testing.assert_close(at_layer, rise, rtol=0, atol=0.05)


def drawn(baselines, n_iter, seed=0):
    """Which points the model gets, recovered as positions on the ways from the baselines."""
    spy = Spy()
    probe = torch.full((1, 4), 10.0, dtype=torch.float64)
    ExpectedGradients(nn.Sequential(spy, Quadratic()), baselines=baselines, n_iter=n_iter, seed=seed,
                      batch_size=n_iter).attribute(probe)
    chunk = next(seen for seen in spy.seen if len(seen) == n_iter)
    pairs = []
    for point in chunk:
        for index, base in enumerate(baselines):
            positions = (point - base) / (probe[0] - base)
            if (positions - positions[0]).abs().max() < 1e-9:
                pairs.append((index, positions[0].item()))
    assert len(pairs) == n_iter
    return pairs


@pytest.mark.parametrize("n_iter", [10, 13, 3, 5])
def test_every_baseline_equally_often_and_one_position_in_each_part(n_iter):
    pairs = drawn(BASES, n_iter)
    counts = np.bincount([index for index, _ in pairs], minlength=5)
    assert counts.max() - counts.min() <= 1 and counts.sum() == n_iter
    assert sorted(int(position * n_iter) for _, position in pairs) == list(range(n_iter))


def test_which_baselines_come_first_is_drawn():
    firsts = {drawn(BASES, 2, seed)[0][0] for seed in range(20)}
    assert len(firsts) > 2


@pytest.mark.parametrize("layer", [None, "0"])
@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_the_loop_of_the_definition(net, layer, batch_size):
    """The mean over draws of gradient times way, at the same positions: as shap's GradientExplainer has it."""
    n_iter = 9
    pairs = drawn(BASES, n_iter)
    first = 0 if layer is None else 1
    at, bases = net[:first](X).detach(), net[:first](BASES).detach()
    total = torch.zeros_like(at)
    for index, position in pairs:
        point = (bases[index] + position * (at - bases[index])).requires_grad_()
        (gradient,) = torch.autograd.grad(net[first:](point)[:, 0].sum(), point)
        total += gradient * (at - bases[index])
    found = ExpectedGradients(net, layer=layer, baselines=BASES, n_iter=n_iter, batch_size=batch_size).attribute(X, 0)
    torch.testing.assert_close(found, total / n_iter, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("kind", [tuple, dict])
def test_two_inputs_use_the_same_baseline_together(kind):
    torch.manual_seed(0)
    model = Two().double()
    b, bases = X[:, :2], (BASES, BASES[:, 2:].exp())
    inputs = {"a": X, "b": b} if kind is dict else (X, b)
    given = {"b": bases[1], "a": bases[0]} if kind is dict else bases
    found = ExpectedGradients(model, baselines=given, n_iter=3000, batch_size=3000).attribute(inputs, 4)
    one, other = found.values() if kind is dict else found
    rise = (model(X, b) - model(*bases).mean(0))[:, 4].detach()
    torch.testing.assert_close(one.sum(1) + other.sum(1), rise, rtol=0.02, atol=0.05)


def test_a_sample_alone_and_in_a_batch(net):
    whole = ExpectedGradients(net, baselines=BASES, n_iter=7).attribute(X, 1)
    for row in range(3):
        alone = ExpectedGradients(net, baselines=BASES, n_iter=7, batch_size=2).attribute(X[row : row + 1], 1)
        torch.testing.assert_close(alone, whole[row : row + 1])


def test_seeds_and_the_global_state(net):
    state = torch.get_rng_state()
    one = ExpectedGradients(net, baselines=BASES, seed=1).attribute(X, 1)
    assert torch.equal(ExpectedGradients(net, baselines=BASES, seed=1).attribute(X, 1), one)
    assert not torch.equal(ExpectedGradients(net, baselines=BASES, seed=2).attribute(X, 1), one)
    assert torch.equal(torch.get_rng_state(), state)


def test_arrays_and_other_precisions_of_baselines(net):
    expected = ExpectedGradients(net, baselines=BASES).attribute(X, 1)
    assert torch.equal(ExpectedGradients(net, baselines=BASES.numpy()).attribute(X, 1), expected)
    torch.testing.assert_close(ExpectedGradients(net, baselines=BASES.float()).attribute(X, 1), expected, rtol=1e-4,
                               atol=1e-5)


def test_ids_as_baselines_of_an_embedding():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(6, 3), nn.Flatten(), nn.Linear(6, 2)).double()
    ids, bases = torch.tensor([[1, 5], [2, 3]]), torch.tensor([[0, 0], [4, 4]])
    found = ExpectedGradients(model, layer="0", baselines=bases, n_iter=8).attribute(ids, 1)
    rise = (model(ids) - model(bases).mean(0))[:, 1].detach()
    torch.testing.assert_close(found.sum((1, 2)), rise)


@pytest.mark.parametrize("baselines, inputs, kind, message", [
    (BASES[:, :3], X, ValueError,
     "baselines must have shape (n_baselines, *(4,)) with at least one, but have (5, 3)"),
    (BASES[:0], X, ValueError, "baselines must have shape (n_baselines, *(4,)) with at least one, but have (0, 4)"),
    (0.0, X, TypeError, "baselines must be a tensor (n_baselines, ...) for each input, but got float"),
    ((BASES,), (X, X[:, :2]), ValueError, "there are 2 inputs, so as many sets of baselines, but 1 were given"),
    ((BASES, BASES[:3, :2]), (X, X[:, :2]), ValueError,
     "every input must have as many baselines, but they have [3, 5]"),
    ({"a": BASES}, {"a": X, "b": X[:, :2]}, ValueError,
     "baselines must be given for every input, but there are none for 'b'"),
])
def test_errors(net, baselines, inputs, kind, message):
    model = net if isinstance(inputs, torch.Tensor) else Two().double()
    with raises(kind, message):
        ExpectedGradients(model, baselines=baselines).attribute(inputs, 0)


def test_baselines_are_required_and_the_rest_checked(net):
    with pytest.raises(TypeError, match="baselines"):
        ExpectedGradients(net)
    with pytest.raises(ValueError, match=re.escape("`n_iter >= 1` must hold, but got n_iter=0")):
        ExpectedGradients(net, baselines=BASES, n_iter=0)
    with pytest.raises(ValueError, match=re.escape("`seed >= 0` must hold, but got seed=-1")):
        ExpectedGradients(net, baselines=BASES, seed=-1)
