"""Total Sobol' indices against closed forms and SciPy's estimate from the same points."""

import math

import pytest
import torch
from torch import nn

import pnpx
from pnpx.explainers.sobol import _points
from tests.errors import raises
from tests.explainers.probes import Spy


class Function(nn.Module):
    """A function of how much of each input is present: inputs are 1, and what replaces them 0."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)[:, None]


def ishigami(x):
    angles = math.pi * (2 * x - 1)
    return angles[:, 0].sin() + 7 * angles[:, 1].sin().square() + 0.1 * angles[:, 2] ** 4 * angles[:, 0].sin()


def linear(x):
    return 3 + x @ torch.tensor([1.0, -2.0, 0.0, 4.0], dtype=x.dtype)


def product(x):
    return (1 + x).prod(1)


def ones(count, rows=1):
    return torch.ones(rows, count, dtype=torch.float64)


def test_ishigami():
    a, b = 7.0, 0.1
    variance = a**2 / 8 + b * math.pi**4 / 5 + b**2 * math.pi**8 / 18 + 0.5
    first, both = (1 + b * math.pi**4 / 5) ** 2 / 2, b**2 * math.pi**8 * (1 / 18 - 1 / 50)
    expected = torch.tensor([first + both, a**2 / 8, both], dtype=torch.float64) / variance
    found = pnpx.Sobol(Function(ishigami), n_iter=2048, batch_size=1024).attribute(ones(3))[0]
    torch.testing.assert_close(found, expected, rtol=0, atol=0.02)


def test_additive_and_multiplicative():
    found = pnpx.Sobol(Function(linear), n_iter=1024, batch_size=1024).attribute(ones(4))[0]
    expected = torch.tensor([1.0, 4.0, 0.0, 16.0], dtype=torch.float64) / 21
    torch.testing.assert_close(found, expected, rtol=0, atol=0.01)
    # Each factor 1 + x has E = 3/2 and V = 1/12: the total is V (V + E^2)^(n-1) / ((V + E^2)^n - E^2n).
    v, square = 1 / 12, 9 / 4
    total = v * (v + square) ** 2 / ((v + square) ** 3 - square**3)
    found = pnpx.Sobol(Function(product), n_iter=1024, batch_size=1024).attribute(ones(3))[0]
    torch.testing.assert_close(found, torch.full((3,), total, dtype=torch.float64), rtol=0, atol=0.01)


@pytest.mark.parametrize("function, count", [(ishigami, 3), (product, 4)])
def test_as_scipy_from_the_same_points(function, count):
    stats = pytest.importorskip("scipy.stats", reason="SciPy is the second opinion here")
    if not hasattr(stats, "sobol_indices"):
        pytest.skip("SciPy is older than 1.11")
    first, second = (part.float().double() for part in _points(count, 64, 5))
    mixed = [torch.where(torch.arange(count) == i, second, first) for i in range(count)]
    values = {
        "f_A": function(first)[None].numpy(),
        "f_B": function(second)[None].numpy(),
        "f_AB": torch.stack([function(part) for part in mixed])[:, None].numpy(),
    }
    expected = torch.from_numpy(stats.sobol_indices(func=values, n=64).total_order.reshape(-1))
    found = pnpx.Sobol(Function(function), n_iter=64, seed=5).attribute(ones(count))[0]
    torch.testing.assert_close(found, expected)


def test_points_are_balanced_and_independent():
    first, second = _points(5, 64, 0)
    both = torch.cat([first, second], dim=1)
    counts = (both * 64).long().sort(0).values
    assert torch.equal(counts, torch.arange(64)[:, None].expand(64, 10))  # one in each of 64 equal parts
    assert not torch.equal(_points(5, 64, 1)[0], first)


def test_constant_scores_have_no_variance():
    for value in (0.0, 1e-30, 0.3, 1e9):
        found = pnpx.Sobol(Function(lambda x, value=value: value + 0 * x[:, 0])).attribute(ones(3))
        assert torch.equal(found, torch.zeros(1, 3, dtype=torch.float64))
    # A small variance is one all the same.
    small = pnpx.Sobol(Function(lambda x: 1e-9 * linear(x))).attribute(ones(4))
    torch.testing.assert_close(small, pnpx.Sobol(Function(linear)).attribute(ones(4)))


def test_what_is_not_float_is_there_from_a_half_on():
    class Tokens(nn.Module):
        def forward(self, ids):
            seen.append(ids)
            return (ids == 7).double() @ torch.tensor([[1.0], [3.0]], dtype=torch.float64)

    seen = []
    found = pnpx.Sobol(Tokens(), baseline=5, n_iter=256).attribute(torch.tensor([[7, 7]]))
    assert set(torch.cat(seen).flatten().tolist()) == {5, 7}
    torch.testing.assert_close(found, torch.tensor([[0.1, 0.9]], dtype=torch.float64), rtol=0, atol=0.03)


def test_floats_are_blended_with_what_replaces_them():
    spy, x = Spy(), torch.tensor([[4.0, float("inf")]])
    model = nn.Sequential(spy, Function(lambda x: x.sum(1)))
    pnpx.Sobol(model, baseline=2.0, n_iter=64, groups=[0, -1]).attribute(x)
    values = spy.rows
    assert torch.isinf(values[:, 1]).all()
    assert 2 <= values[:, 0].min() < 2.1 and 3.9 < values[:, 0].max() <= 4


def test_the_same_in_any_company():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 3)).double()
    x, targets = torch.randn(4, 5, dtype=torch.float64), torch.tensor([[0, 2]] * 4)
    expected = pnpx.Sobol(model, n_iter=8).attribute(x, targets)
    assert expected.shape == (4, 2, 5) and (expected >= 0).all()
    for batch_size in (1, 3, 100):
        found = pnpx.Sobol(model, n_iter=8, batch_size=batch_size).attribute(x, targets)
        torch.testing.assert_close(found, expected)
    torch.testing.assert_close(pnpx.Sobol(model, n_iter=8).attribute(x[2:3], 2), expected[2:3, 1])
    state = torch.get_rng_state()
    pnpx.Sobol(model, n_iter=8, seed=4).attribute(x, targets)
    assert torch.equal(torch.get_rng_state(), state)


def test_too_many_groups():
    message = (
        "a Sobol' sequence has points for at most 10600 groups, but there are 10601; give fewer, such as "
        "groups=pnpx.masks.Patches(8)"
    )
    with raises(ValueError, message):
        pnpx.Sobol(Function(product)).attribute(torch.ones(1, 10601))
    with pytest.raises(ValueError, match=r"^`n_iter >= 2` must hold, but got n_iter=1$"):
        pnpx.Sobol(Function(product), n_iter=1)
