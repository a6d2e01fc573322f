"""What numerical integration misses is told, warned of, and small where the nodes are graded."""

import warnings

import numpy as np
import pytest
import torch
from torch import nn

import pnpx
from pnpx.explainers.integrated import nodes

X = torch.tensor([[3.0, 4.0], [0.3, 0.4]], dtype=torch.float64)


class Norm(nn.Module):
    """x / sqrt(|x|^2 + eps^2), summed up: on the way from zero it changes at |x| t = eps, and nowhere else."""

    def __init__(self, eps):
        super().__init__()
        self.eps = eps

    def forward(self, x):
        return (x / (x.square().sum(1, keepdim=True) + self.eps**2).sqrt()).sum(1, keepdim=True)


# The nodes


@pytest.mark.parametrize("n_steps", [50, 64, 100])
def test_graded_nodes_integrate_what_is_smooth(n_steps):
    positions, weights = map(np.array, nodes("graded", n_steps))
    assert len(positions) == n_steps and (np.diff(positions) > 0).all() and positions[0] > 0 and positions[-1] < 1
    np.testing.assert_allclose(weights.sum(), 1, rtol=1e-14)
    for power in range(9):
        np.testing.assert_allclose((weights * positions**power).sum(), 1 / (power + 1), rtol=1e-10)
    np.testing.assert_allclose((weights * np.cos(3 * positions)).sum(), np.sin(3) / 3, rtol=1e-10)


@pytest.mark.parametrize("eps", [1e-11, 1e-9, 1e-7, 1e-5, 1e-3, 1e-1])
def test_graded_nodes_integrate_what_changes_at_no_telling_where(eps):
    # The integral over t of d/dt t / sqrt(t^2 + eps^2), from 0 to 1.
    exact = 1 / np.sqrt(1 + eps**2)
    misses = []
    for n_steps in (50, 64, 100):
        positions, weights = map(np.array, nodes("graded", n_steps))
        found = (weights * eps**2 / (positions**2 + eps**2) ** 1.5).sum()
        misses.append(abs(found - exact))
    assert misses[0] < 4e-3 and misses[1] < 1e-3 and misses[2] < 2e-5
    positions, weights = map(np.array, nodes("gausslegendre", 256))
    plain = (weights * eps**2 / (positions**2 + eps**2) ** 1.5).sum()
    assert abs(plain - exact) > 0.5 or eps >= 1e-3


def test_too_many_graded_nodes():
    with pytest.raises(ValueError, match=r"`n_steps <= 4096` must hold for rule='graded', whose nodes take memory"):
        pnpx.IntegratedGradients(Norm(1.0), n_steps=5000, rule="graded")


# The gap


def test_the_relative_gap_is_the_share_that_is_missed():
    model = Norm(0.1).double()
    explanation = pnpx.IntegratedGradients(model, n_steps=3, gap_tolerance=None).explain(X)
    rise = model(X)[:, 0]
    gap = rise - explanation.attributions.sum(1)
    torch.testing.assert_close(explanation.diagnostics["completeness_gap"], gap)
    torch.testing.assert_close(explanation.diagnostics["relative_gap"], gap.abs() / rise)
    several = pnpx.IntegratedGradients(nn.Sequential(model, nn.Linear(1, 3).double()), gap_tolerance=None)
    assert several.explain(X, torch.tensor([[0, 2], [1, 1]])).diagnostics["relative_gap"].shape == (2, 2)


@pytest.mark.parametrize("layer", [None, "0"])
def test_a_gap_above_the_tolerance_is_warned_of(layer):
    model = nn.Sequential(nn.Identity(), Norm(1e-6))
    explainer = pnpx.IntegratedGradients(model, layer=layer, n_steps=256)
    message = (
        r"^what 256 steps miss of score\(input\) - score\(baseline\) is up to 100% of it, and above gap_tolerance=0.05 "
        r"for 2 of 2 samples \(0, 1\): the gradient changes too fast on the path; choose more n_steps, as many as it "
        r"takes by max_steps=, or rule='graded' where norms do, as those of Llama near zero, or a baseline nearer to "
        r"the input, such as pnpx.baselines.Token for tokens; gap_tolerance=None turns this warning off$"
    )
    for explain in (explainer.attribute, explainer.explain):
        with pytest.warns(RuntimeWarning, match=message) as caught:
            explain(X)
        assert len(caught) == 1 and caught[0].filename == __file__
    graded = pnpx.IntegratedGradients(model, layer=layer, n_steps=64, rule="graded")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = graded.attribute(X)
        pnpx.IntegratedGradients(model, layer=layer, n_steps=2, gap_tolerance=None).explain(X)
        explainer.completeness_gap(X)
    length, total = X.norm(dim=1, keepdim=True), X.sum(1, keepdim=True)
    turns = torch.asinh(length / 1e-6) / length
    across = turns / length**2 - 1 / (length**2 * (length**2 + 1e-12).sqrt())
    torch.testing.assert_close(found, X * (turns - total * X * across), rtol=1e-3, atol=1e-3)
    with pytest.warns(RuntimeWarning, match=r"by max_steps=, or a baseline nearer"):
        pnpx.IntegratedGradients(Norm(1e-6), n_steps=3, rule="graded").attribute(X)


class Kink(nn.Module):
    """Whether the first feature is above 10.5, which few nodes see, away from zero as well, and the second."""

    def forward(self, x):
        return (100 * (x[:, :1] - 10.5)).sigmoid() + x[:, 1:]


KINKS = torch.tensor([[10.0, 11.0], [11.0, 11.0], [10.0, 13.0], [12.0, 11.0]], dtype=torch.float64)


@pytest.mark.parametrize("options, advice", [
    ({}, r"max_steps=, or a baseline nearer to the input; gap"),
    ({"rule": "graded"}, r"rule='gausslegendre', as the path does not start near zero, or more n_steps, as"),
    ({"baseline": 0.0, "replacement": 10.0}, r"max_steps=; gap"),
    ({"max_steps": 7}, r"^what 4 steps miss .* choose a larger max_steps, or a baseline"),
])
def test_graded_nodes_are_no_advice_away_from_zero(options, advice):
    x = KINKS
    explainer = pnpx.IntegratedGradients(Kink(), **{"n_steps": 4, "baseline": 10.0, **options})
    with pytest.warns(RuntimeWarning, match=advice) as caught:
        explanation = explainer.explain(x)
    (message,) = [str(one.message) for one in caught]
    assert "for 2 of 4 samples (1, 3): " in message and "'graded'" not in message
    assert set(explanation.diagnostics) == {"completeness_gap", "relative_gap"}


def test_tokens_are_no_advice_where_there_are_tokens():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(4, 3), nn.Flatten(1), nn.Linear(6, 2), nn.Tanh(), nn.Linear(2, 1)).double()
    with torch.no_grad():
        model[2].weight *= 100
    explainer = pnpx.IntegratedGradients(model, layer="0", n_steps=1, baseline=pnpx.baselines.Token(3))
    with pytest.warns(RuntimeWarning, match=r"choose more n_steps, as many as it takes by max_steps=; gap_tol"):
        explainer.attribute(torch.tensor([[1, 2], [0, 1]]))


class Log(nn.Module):
    """The sum of logarithms, which is minus infinity at zero."""

    def __init__(self):
        super().__init__()
        self.passes = []

    def forward(self, x):
        self.passes.append(len(x))
        return x.log().sum(1, keepdim=True)


@pytest.mark.parametrize("options, start", [
    ({}, "baseline"), ({"rule": "riemann_left"}, "baseline"), ({"max_steps": 4096}, "baseline"),
    ({"baseline": 1.0, "layer": "0", "replacement": 0.0}, "replacement"),
])
def test_scores_that_are_not_finite_are_warned_of_and_no_steps_are_added(options, start):
    model = nn.Sequential(nn.Identity(), Log())
    explainer = pnpx.IntegratedGradients(model, batch_size=1, **options)
    message = (
        rf"^the score or its gradient is not finite at the {start}, on the way from there or at the input, for 2 of 2 "
        rf"samples \(0, 1\), so that no attributions can add up to the difference of scores; choose another {start}, "
        r"at which the model gives finite ones; gap_tolerance=None turns this warning off$"
    )
    with pytest.warns(RuntimeWarning, match=message) as caught:
        explainer.explain(X)
    assert len(caught) == 1 and caught[0].filename == __file__
    assert len(model[1].passes) < 2 * 2 * 32 + 10
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = pnpx.IntegratedGradients(model, baseline=0.5).attribute(X)
        pnpx.IntegratedGradients(model, gap_tolerance=None).attribute(X)
    torch.testing.assert_close(found, (X / 0.5).log(), rtol=1e-4, atol=1e-6)


def test_samples_with_gaps_and_samples_without_finite_scores_are_told_apart():
    kinks = torch.cat([KINKS[:2], torch.full((1, 2), torch.nan)])  # the last has no score itself
    with pytest.warns(RuntimeWarning) as caught:
        pnpx.IntegratedGradients(Kink(), baseline=10.0, n_steps=4).attribute(kinks)
    told = sorted(str(one.message) for one in caught)
    assert len(told) == 2 and "for 1 of 3 samples (2)," in told[0] and "for 1 of 3 samples (1):" in told[1]


# Steps, as many as it takes


@pytest.mark.parametrize("targets, n_targets", [(None, None), ([[0, 1]] * 4, 2)])
def test_steps_are_doubled_only_for_the_samples_that_need_it(targets, n_targets):
    """What each sample gets is what that many steps give it, and its gap is below the tolerance."""
    torch.manual_seed(0)
    model = nn.Sequential(Kink(), nn.Linear(1, 2)).double()
    x = KINKS
    targets = None if targets is None else torch.tensor(targets)
    options = {"baseline": 10.0, "gap_tolerance": 0.001}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = pnpx.IntegratedGradients(model, n_steps=4, max_steps=1000, **options).explain(x, targets)
    assert (found.diagnostics["relative_gap"] <= 0.001).all()
    rise = model(x) - model(torch.full_like(x, 10.0))
    sums = found.attributions.sum(-1)
    wanted = rise if n_targets else rise.gather(1, found.targets[:, None])[:, 0]
    torch.testing.assert_close(sums, wanted, rtol=1.1e-3, atol=0)
    needed = []
    for row in range(4):
        for n_steps in (4, 8, 16, 32, 64, 128, 256, 512):
            one = pnpx.IntegratedGradients(model, n_steps=n_steps, **{**options, "gap_tolerance": None})
            alone = one.attribute(x[row : row + 1], None if targets is None else targets[row : row + 1])[0]
            if torch.allclose(alone, found.attributions[row], rtol=1e-9, atol=1e-12):
                needed.append(n_steps)
                break
    assert len(needed) == 4 and needed[0] == 4 and needed[1] > 4


class Growth(nn.Module):
    """exp(3 x), of which no rule of a few midpoints has the integral; it notes the rows that it is run on."""

    def __init__(self):
        super().__init__()
        self.rows = []

    def forward(self, x):
        self.rows += x.flatten().tolist()
        return (3 * x).exp()


@pytest.mark.parametrize("max_steps, n_steps", [(4, 4), (7, 4), (8, 8), (15, 8), (16, 16), (31, 16)])
def test_no_more_steps_are_taken_than_max_steps(max_steps, n_steps):
    """The midpoint rule, written out: 3 exp(3 x t) at the middles t of so many parts of the path, times x."""
    model, x = Growth(), torch.tensor([[2.0]], dtype=torch.float64)
    explainer = pnpx.IntegratedGradients(model, n_steps=4, max_steps=max_steps, rule="riemann_middle",
                                         gap_tolerance=1e-9)
    with pytest.warns(RuntimeWarning, match=f"^what {n_steps} steps miss"):
        found = explainer.attribute(x)
    middles = (torch.arange(n_steps, dtype=torch.float64) + 0.5) / n_steps
    torch.testing.assert_close(found[0], x[0] * (3 * (3 * x[0] * middles).exp()).mean(), rtol=1e-12, atol=0)
    nearest = min(row for row in model.rows if row > 0)
    assert nearest == pytest.approx(2.0 * 0.5 / n_steps)  # finer steps would begin nearer to the baseline


@pytest.mark.parametrize("options, kind, message", [
    ({"max_steps": 8}, ValueError, "`max_steps >= 32` must hold"),
    ({"max_steps": 64.0}, TypeError, "max_steps must be an int"),
    ({"max_steps": 64, "gap_tolerance": None}, ValueError, "max_steps needs a gap_tolerance"),
    ({"max_steps": 8192}, ValueError, "`max_steps <= 4096` must hold"),
])
def test_impossible_numbers_of_steps(options, kind, message):
    with pytest.raises(kind, match=message):
        pnpx.IntegratedGradients(Norm(1.0), **options)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_rounding_is_no_gap(dtype):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 3)).to(dtype)
    x = torch.randn(16, 8).to(dtype)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pnpx.IntegratedGradients(model).attribute(x)
        # The same score at both ends: what is missed of nothing is no share of anything.
        near = pnpx.IntegratedGradients(model, baseline=lambda value: value).explain(x)
    assert (near.diagnostics["relative_gap"] < 0.05).all()


def test_a_check_costs_one_pass_at_a_layer():
    calls = []
    model = nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 1)).double()
    model[2].register_forward_hook(lambda *_: calls.append(1))
    counts = {}
    for tolerance in (None, 10.0):
        calls.clear()
        pnpx.IntegratedGradients(model, layer="0", n_steps=4, batch_size=2, gap_tolerance=tolerance).attribute(X, 0)
        counts[tolerance] = len(calls)
    assert counts[10.0] == counts[None] + 1


@pytest.mark.parametrize("given, kind, message", [
    (0, ValueError, r"^`gap_tolerance > 0` must hold, but got gap_tolerance=0$"),
    (float("nan"), ValueError, r"^`gap_tolerance > 0` must hold, but got gap_tolerance=nan$"),
    ("small", TypeError, r"^gap_tolerance must be a number or None, but got 'small'$"),
    (True, TypeError, r"^gap_tolerance must be a number or None, but got True$"),
])
def test_impossible_tolerances(given, kind, message):
    with pytest.raises(kind, match=message):
        pnpx.IntegratedGradients(Norm(1.0), gap_tolerance=given)


# Where the path begins


def test_the_path_may_begin_at_a_value_of_the_layer():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(5, 4), nn.Flatten(), nn.Linear(8, 3), nn.Tanh()).double()
    ids = torch.tensor([[1, 2], [3, 4]])
    start = torch.randn(2, 4, dtype=torch.float64)
    for replacement, begin in ((0.0, torch.zeros(2, 4)), (start, start), ("zeros", torch.zeros(2, 4)),
                               (lambda value: value * 0 + 2, torch.full((2, 4), 2.0))):
        found = pnpx.IntegratedGradients(model, layer="0", replacement=replacement).attribute(ids, 1)
        after = model[1:]
        rise = after(model[0](ids))[:, 1] - after(begin.double()[None])[:, 1]
        torch.testing.assert_close(found.sum((1, 2)), rise.detach(), rtol=1e-9, atol=1e-12)
    with pytest.raises(ValueError, match="no baseline 'zero'; the nearest: 'zeros'"):
        pnpx.IntegratedGradients(model, replacement="zero")
