"""Shapley values against their definition, by brute force, and captum's."""

import warnings
from itertools import permutations
from math import comb

import pytest
import torch
from torch import nn

import pnpx
from pnpx.explainers.coalitions import every, least_squares, shapley_coalitions
from tests.errors import raises

KINDS = [pnpx.KernelShap, pnpx.Shapley]


class Game(nn.Module):
    """The value of the coalition of those inputs that are 1, from a table."""

    def __init__(self, table):
        super().__init__()
        self.register_buffer("table", table)

    def forward(self, x):
        bits = (x > 0.5).long()
        return self.table[(bits << torch.arange(bits.shape[1])).sum(1)][:, None]


def players(count):
    return torch.ones(1, count, dtype=torch.float64)


def brute(table, count):
    """The mean, over all orders, of what each player adds; by subsets where there are too many orders."""
    worth = torch.zeros(count, dtype=torch.float64)
    if count <= 6:
        orders = list(permutations(range(count)))
        for order in orders:
            coalition = 0
            for player in order:
                worth[player] += table[coalition | 1 << player] - table[coalition]
                coalition |= 1 << player
        return worth / len(orders)
    for coalition in range(2**count):
        size = coalition.bit_count() if hasattr(int, "bit_count") else bin(coalition).count("1")
        for player in range(count):
            if not coalition >> player & 1:
                added = table[coalition | 1 << player] - table[coalition]
                worth[player] += added / (count * comb(count - 1, size))
    return worth


def table_of(function, count):
    return torch.tensor([function(row) for row in every(count).double()], dtype=torch.float64)


def random_table(count, seed=0):
    return torch.randn(2**count, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) + 3


def weights(count):
    return torch.arange(1, count + 1, dtype=torch.float64) * (-1) ** torch.arange(count)


GAMES = {
    "additive": lambda count: table_of(lambda z: 2 + (z * weights(count)).sum(), count),
    "product": lambda count: table_of(lambda z: (1 + z * weights(count) / 3).prod(), count),
    "all together": lambda count: table_of(lambda z: z.prod(), count),
    "largest": lambda count: table_of(lambda z: (z * weights(count)).amax(), count),
    "gloves": lambda count: table_of(lambda z: torch.minimum(z[::2].sum(), z[1::2].sum()), count),
    "majority": lambda count: table_of(lambda z: float(z.sum() > count / 2), count),
    "random": random_table,
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("game", GAMES)
@pytest.mark.parametrize("count", [2, 3, 5, 8])
def test_exact_where_all_coalitions_fit(kind, game, count):
    table = GAMES[game](count)
    found = kind(Game(table), n_iter=300 if kind is pnpx.KernelShap else 60).attribute(players(count))
    torch.testing.assert_close(found[0], brute(table, count), rtol=0, atol=1e-10)


@pytest.mark.parametrize("kind, n_iter", [(pnpx.KernelShap, 1022), (pnpx.Shapley, 114)])
def test_exact_for_ten_groups(kind, n_iter):
    table = random_table(10)
    found = kind(Game(table), n_iter=n_iter, batch_size=256).attribute(players(10))
    torch.testing.assert_close(found[0], brute(table, 10), rtol=0, atol=1e-10)


def test_one_group_and_an_idle_player():
    for kind in KINDS:
        alone = kind(Game(torch.tensor([2.0, 7.0]).double())).attribute(players(1))
        assert alone.item() == pytest.approx(5.0)
        table = random_table(4).reshape(1, 16).expand(2, 16).T.reshape(-1)  # the first of five changes nothing
        assert abs(kind(Game(table)).attribute(players(5))[0, 0]) < 1e-12


@pytest.mark.filterwarnings("ignore:.* coalitions do not determine")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n_iter", [2, 3, 7, 20, 50, 333])
def test_the_values_add_up_however_few_draws(kind, n_iter):
    table = random_table(12)
    found = kind(Game(table), n_iter=n_iter, batch_size=200).attribute(players(12))
    assert abs(float(found.sum() - (table[-1] - table[0]))) < 1e-12
    assert found.abs().max() > 0.01


@pytest.mark.parametrize("kind, n_iter", [(pnpx.KernelShap, 120), (pnpx.Shapley, 2)])
def test_pairs_of_draws_are_exact_for_interactions_in_pairs(kind, n_iter):
    """Opposite coalitions, and reversed orders, cancel all interactions of two groups."""
    generator = torch.Generator().manual_seed(0)
    matrix = torch.randn(14, 14, dtype=torch.float64, generator=generator)
    slope = torch.randn(14, dtype=torch.float64, generator=generator)

    class Quadratic(nn.Module):
        def forward(self, x):
            return ((x @ matrix) * x).sum(1, keepdim=True) + (x * slope).sum(1, keepdim=True) + 5

    both = matrix + matrix.T
    expected = slope + matrix.diagonal() + (both.sum(1) - both.diagonal()) / 2
    found = kind(Quadratic(), n_iter=n_iter).attribute(players(14))
    torch.testing.assert_close(found[0], expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("kind, few, many", [(pnpx.KernelShap, 100, 1600), (pnpx.Shapley, 8, 128)])
def test_draws_converge(kind, few, many):
    table = random_table(11)
    truth = brute(table, 11)

    def error(n_iter):
        found = [kind(Game(table), n_iter=n_iter, batch_size=512, seed=s).attribute(players(11))[0] for s in range(6)]
        return torch.stack(found).sub(truth).square().mean().sqrt()

    assert error(many) < error(few) / 3
    assert error(many) < 0.15


def test_draws_follow_the_kernel():
    """By size the weights are those of the kernel, every coalition comes with its opposite, and none comes twice."""
    count = 9
    kept, weight = shapley_coalitions(count, 220, 0)
    assert 200 <= len(kept) <= 220 and len(torch.unique(kept, dim=0)) == len(kept)
    assert {tuple(row) for row in kept.tolist()} == {tuple(row) for row in (~kept).tolist()}
    sizes = kept.sum(1)
    kernel = {size: (count - 1) / (size * (count - size)) for size in range(1, count)}
    for size in (1, 2, 7, 8):  # taken whole
        assert (sizes == size).sum() == comb(count, size)
        torch.testing.assert_close(weight[sizes == size].sum().item(), kernel[size])
    rest = sum(kernel[size] for size in (3, 4, 5, 6))
    torch.testing.assert_close(weight[(sizes >= 3) & (sizes <= 6)].sum().item(), rest)
    many = shapley_coalitions(16, 4000, 1)
    drawn = {size: float(many[1][many[0].sum(1) == size].sum()) for size in (4, 8)}
    assert drawn[4] / drawn[8] == pytest.approx((8 * 8) / (4 * 12), rel=0.15)


def test_least_squares_is_of_least_norm():
    generator = torch.Generator().manual_seed(0)
    for rows, columns in ((7, 4), (3, 6)):
        matrix = torch.randn(rows, columns, dtype=torch.float64, generator=generator)
        weight = torch.rand(rows, dtype=torch.float64, generator=generator) + 0.1
        operator, rank = least_squares(matrix, weight)
        root = weight.sqrt()[:, None]
        torch.testing.assert_close(operator, torch.linalg.pinv(root * matrix) * root.T)
        assert rank == min(rows, columns)


class Net(nn.Module):
    def __init__(self, dtype=torch.float64):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last = nn.Linear(6, 8, dtype=dtype), nn.Linear(8, 3, dtype=dtype)

    def forward(self, x):
        return self.last(torch.tanh(self.first(x)).square())


def x(rows=3):
    return torch.randn(rows, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("groups", [None, [0, 1, 1, 2, 3, 3]])
def test_as_captum(kind, groups):
    from captum.attr import ShapleyValues

    model, baseline = Net(), torch.linspace(-1, 1, 6, dtype=torch.float64)
    mask = None if groups is None else torch.tensor(groups)[None]
    expected = ShapleyValues(model).attribute(x(), baselines=baseline[None], target=2, feature_mask=mask)
    found = kind(model, groups=groups, baseline=baseline, n_iter=64).attribute(x(), 2)
    torch.testing.assert_close(found, expected.double(), rtol=1e-5, atol=1e-6)


def test_as_captums_kernel_shap_in_the_limit():
    from captum.attr import KernelShap

    model, torch_state = Net(), torch.get_rng_state()
    expected = KernelShap(model).attribute(x(1), target=0, n_samples=3000, perturbations_per_eval=500)
    torch.set_rng_state(torch_state)
    torch.testing.assert_close(pnpx.KernelShap(model).attribute(x(1), 0), expected.double(), rtol=0, atol=0.02)


@pytest.mark.filterwarnings("ignore:.* coalitions do not determine")
@pytest.mark.parametrize("kind, n_iter", [(pnpx.KernelShap, 200), (pnpx.KernelShap, 9), (pnpx.Shapley, 3)])
def test_a_sample_is_explained_alike_in_any_company(kind, n_iter):
    model, many = Net(), x(7)
    expected = kind(model, n_iter=n_iter, groups="elements").attribute(many, 1)
    for batch_size in (1, 3, 7, 50, 1000):
        found = kind(model, n_iter=n_iter, batch_size=batch_size).attribute(many, 1)
        torch.testing.assert_close(found, expected)
    torch.testing.assert_close(kind(model, n_iter=n_iter).attribute(many[4:5], 1), expected[4:5])
    torch.manual_seed(9)
    state = torch.get_rng_state()
    torch.testing.assert_close(kind(model, n_iter=n_iter).attribute(many, 1), expected, rtol=0, atol=0)
    assert torch.equal(torch.get_rng_state(), state)


def test_samples_with_their_own_numbers_of_groups():
    """Each is explained as it is alone, with a design of its own."""
    groups = torch.tensor([[0, 0, 1, 1, 2, 2], [0, 1, 2, 3, 4, 5], [0, 0, 0, 0, 0, 0], [-1, -1, -1, -1, -1, -1]])
    for kind, n_iter in ((pnpx.KernelShap, 20), (pnpx.Shapley, 4), (pnpx.Lime, 30), (pnpx.Sobol, 4)):
        found = kind(Net(), n_iter=n_iter, groups=groups).attribute(x(4), 0)
        for row in range(4):
            alone = kind(Net(), n_iter=n_iter, groups=groups[row]).attribute(x(4)[row : row + 1], 0)
            torch.testing.assert_close(found[row : row + 1], alone)
        assert (found[3] == 0).all() and (found[:2] != 0).all()


def test_seeds_differ_where_draws_are_needed():
    table = random_table(11)
    one, two = (pnpx.KernelShap(Game(table), n_iter=100, seed=seed).attribute(players(11)) for seed in (0, 1))
    assert not torch.allclose(one, two)
    one, two = (pnpx.Shapley(Game(table), n_iter=4, seed=seed).attribute(players(11)) for seed in (0, 1))
    assert not torch.allclose(one, two)


@pytest.mark.parametrize("kind", KINDS)
def test_several_targets(kind):
    model, targets = Net(), torch.tensor([[0, 2], [1, 1], [2, 0]])
    together = kind(model).attribute(x(), targets)
    assert together.shape == (3, 2, 6)
    for index in range(2):
        torch.testing.assert_close(together[:, index], kind(model).attribute(x(), targets[:, index]))
    assert kind(model).by_group(x(), targets).shape == (3, 2, 6)


@pytest.mark.parametrize("kind", KINDS)
def test_layers(kind):
    """At a layer the values add up to the score less that where the layer gives what it does for the baseline."""
    model = Net()
    found = kind(model, layer="first", n_iter=254 if kind is pnpx.KernelShap else 40, baseline=0.5).attribute(x(), 1)
    assert found.shape == (3, 8)
    with torch.no_grad():
        gap = model(x())[:, 1] - model(torch.full((1, 6), 0.5, dtype=torch.float64))[:, 1]
    torch.testing.assert_close(found.sum(1), gap)
    with torch.no_grad():
        units = model.last.weight[1] * (torch.tanh(model.first(x())).square())
        absent = model.last.weight[1] * torch.tanh(model.first(torch.full((1, 6), 0.5, dtype=torch.float64))).square()
    torch.testing.assert_close(found, units - absent)  # additive from there on
    found = kind(model, layer="first", replacement=0.0).attribute(x(), 1)
    torch.testing.assert_close(found, units)


@pytest.mark.parametrize("kind", KINDS)
def test_bfloat16(kind):
    model = Net(torch.bfloat16)
    found = kind(model).attribute(x().to(torch.bfloat16), 1)
    assert found.dtype == torch.float32
    with torch.no_grad():
        gap = model(x().to(torch.bfloat16))[:, 1].float() - model(torch.zeros(1, 6, dtype=torch.bfloat16))[:, 1].float()
    torch.testing.assert_close(found.sum(1), gap)


def test_several_inputs_with_a_group_in_both():
    class Both(nn.Module):
        def forward(self, a, b):
            return (a.sum(1) * b.flatten(1).sum(1) + a[:, 0])[:, None]

    a, b = torch.tensor([[1.0, 2.0]]).double(), torch.tensor([[[3.0], [4.0]]]).double()
    groups = (torch.tensor([0, 1]), torch.tensor([[1], [2]]))
    for kind in KINDS:
        explainer = kind(Both(), groups=groups)

        def worth(z):
            return (z[0] + 2 * z[1]) * (3 * z[1] + 4 * z[2]) + z[0]

        truth = brute(table_of(worth, 3), 3)
        torch.testing.assert_close(explainer.by_group((a, b))[0], truth)
        left, right = explainer.attribute((a, b))
        torch.testing.assert_close(left[0], truth[:2])
        torch.testing.assert_close(right[0, :, 0], truth[1:])


def test_a_warning_where_draws_are_too_few():
    with pytest.warns(RuntimeWarning, match="^6 coalitions do not determine the Shapley values of 12 groups, so that"):
        pnpx.KernelShap(Game(random_table(12)), n_iter=7).attribute(players(12))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pnpx.KernelShap(Game(random_table(12)), n_iter=40).attribute(players(12))


@pytest.mark.parametrize("kind, parameters, error, message", [
    (pnpx.KernelShap, {"n_iter": 1}, ValueError, "`n_iter >= 2` must hold, but got n_iter=1"),
    (pnpx.KernelShap, {"n_iter": 2.0}, TypeError, "n_iter must be an int, but got 2.0"),
    (pnpx.KernelShap, {"n_samples": 9}, TypeError, "KernelShap has no parameter 'n_samples'; the nearest: 'n_classes'"),
    (pnpx.Shapley, {"n_iter": 0}, ValueError, "`n_iter >= 1` must hold, but got n_iter=0"),
    (pnpx.Shapley, {"seed": -1}, ValueError, "`seed >= 0` must hold, but got seed=-1"),
    (pnpx.KernelShap, {"groups": "pixels"}, ValueError,
     "no grouping 'pixels'; there are: 'elements', 'positions', 'channels'"),
])
def test_wrong_parameters(kind, parameters, error, message):
    with raises(error, message):
        kind(Net(), **parameters)
