"""Lime against its formula, scikit-learn's ridge regression, and captum."""

import math

import pytest
import torch
from torch import nn

import pnpx
from pnpx.explainers.coalitions import lime_coalitions
from tests.errors import raises


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last = nn.Linear(6, 8, dtype=torch.float64), nn.Linear(8, 3, dtype=torch.float64)

    def forward(self, x):
        return self.last(torch.tanh(self.first(x)).square())


def x(rows=2):
    return torch.randn(rows, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("distance", ["cosine", "euclidean"])
@pytest.mark.parametrize("width, ridge", [(0.25, 1.0), (1.5, 0.3), (0.4, 0.0)])
def test_as_ridge_regression(distance, width, ridge):
    """The sample and the copies, one by one, weighted as the authors do."""
    from sklearn.linear_model import LinearRegression, Ridge
    from sklearn.metrics import pairwise_distances

    model = Net()
    kept, times = lime_coalitions(6, 80, 3)
    rows = torch.cat([torch.ones(1, 6), kept.repeat_interleave(times.long(), dim=0).float()]).double().numpy()
    apart = pairwise_distances(rows, rows[:1], metric=distance)[:, 0]
    weights = [math.sqrt(math.exp(-((d / width) ** 2))) for d in apart]
    with torch.no_grad():
        scores = model(x()[:1] * torch.from_numpy(rows))[:, 1].numpy()
    fit = (Ridge(alpha=ridge) if ridge else LinearRegression()).fit(rows, scores, sample_weight=weights)
    explainer = pnpx.Lime(model, n_iter=80, seed=3, distance=distance, kernel_width=width, ridge=ridge)
    torch.testing.assert_close(explainer.attribute(x()[:1], 1)[0], torch.from_numpy(fit.coef_), rtol=1e-6, atol=1e-9)


def test_near_samples_weigh_most():
    """The score has a kink half way: near the sample its slope is 1, far away it is 0."""
    class Kink(nn.Module):
        def forward(self, x):
            return (x.sum(1, keepdim=True) - 10).clamp(min=0)

    ones = torch.ones(1, 20, dtype=torch.float64)
    slopes = [
        float(pnpx.Lime(Kink(), n_iter=2000, kernel_width=width, ridge=0.0).attribute(ones).mean())
        for width in (0.05, 0.15, 0.3, 5.0)
    ]
    assert slopes == sorted(slopes, reverse=True)
    assert slopes[0] == pytest.approx(1, abs=0.01) and slopes[-1] < 0.6


def test_a_linear_model_is_its_own_explanation():
    model = nn.Linear(6, 2).double()
    found = pnpx.Lime(model, ridge=0.0, n_iter=100).attribute(x(), 1)
    torch.testing.assert_close(found, model.weight[1].detach() * x())
    shrunk = pnpx.Lime(model, ridge=1e6, n_iter=100).attribute(x(), 1)
    assert shrunk.abs().max() < 1e-3


def test_as_captum_on_a_linear_model():
    from captum._utils.models.linear_model import SkLearnLinearRegression
    from captum.attr import Lime

    model, state = nn.Linear(6, 2).double(), torch.get_rng_state()
    fit = Lime(model, interpretable_model=SkLearnLinearRegression())
    expected = fit.attribute(x(1), target=0, n_samples=200, feature_mask=torch.tensor([[0, 0, 1, 1, 2, 2]]))
    torch.set_rng_state(state)
    found = pnpx.Lime(model, ridge=0.0, groups=[0, 0, 1, 1, 2, 2]).attribute(x(1), 0)
    torch.testing.assert_close(found, expected.double(), rtol=1e-4, atol=1e-5)


def test_draws():
    """As many as asked for; the number absent is uniform; what is drawn twice is scored once, and counts twice."""
    kept, times = lime_coalitions(5, 4000, 0)
    assert times.sum() == 4000 and len(torch.unique(kept, dim=0)) == len(kept) <= 31
    absent = (~kept).sum(1)
    for number in range(1, 6):
        assert float(times[absent == number].sum()) == pytest.approx(800, rel=0.12)
    rows = []

    class Count(nn.Module):
        def forward(self, x):
            rows.append(len(x))
            return x.sum(1, keepdim=True)

    pnpx.Lime(Count(), n_iter=4000).attribute(torch.ones(1, 5))
    assert sum(rows) <= 1 + 31 + 2  # the sample, the copies, and two passes that check that copies may share one


def test_the_same_in_any_company():
    model, targets = Net(), torch.tensor([[0, 2]] * 5)
    expected = pnpx.Lime(model).attribute(x(5), targets)
    for batch_size in (1, 3, 64):
        torch.testing.assert_close(pnpx.Lime(model, batch_size=batch_size).attribute(x(5), targets), expected)
    torch.testing.assert_close(pnpx.Lime(model).attribute(x(5)[2:3], targets[2:3]), expected[2:3])
    torch.testing.assert_close(pnpx.Lime(model).attribute(x(5), 2), expected[:, 1])
    assert not torch.allclose(pnpx.Lime(model, seed=1, n_iter=20).attribute(x(5), 2),
                              pnpx.Lime(model, seed=2, n_iter=20).attribute(x(5), 2))


@pytest.mark.parametrize("parameters, kind, message", [
    ({"kernel_width": 0}, ValueError, "`0 < kernel_width < inf` must hold, but got kernel_width=0"),
    ({"kernel_width": "wide"}, TypeError, "kernel_width must be a number, but got 'wide'"),
    ({"ridge": -1.0}, ValueError, "`0 <= ridge < inf` must hold, but got ridge=-1.0"),
    ({"distance": "manhattan"}, ValueError, "distance must be one of ('cosine', 'euclidean'), but is 'manhattan'"),
    ({"n_iter": 0}, ValueError, "`n_iter >= 1` must hold, but got n_iter=0"),
])
def test_wrong_parameters(parameters, kind, message):
    with raises(kind, message):
        pnpx.Lime(Net(), **parameters)
