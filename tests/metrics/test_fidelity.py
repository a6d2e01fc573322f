"""MuFidelity, against what adds up exactly and a plain loop."""

import numpy as np
import pytest
import torch
from torch import nn

import pnpx
from pnpx.metrics import MuFidelity
from pnpx.metrics.agreement import correlation
from pnpx.testing import case
from tests.errors import raises


def network(features=8, classes=3):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(features, 6), nn.Tanh(), nn.Linear(6, classes)).double()
    return model, torch.randn(3, features).double()


def test_attributions_that_add_up_have_1_and_their_opposite_minus_1():
    torch.manual_seed(0)
    model, x, absent = nn.Linear(8, 3).double(), torch.randn(3, 8).double(), torch.randn(8).double()
    explainer = pnpx.FeatureAblation(model, baseline=absent)
    metric = MuFidelity(baseline=absent, groups=torch.arange(8) // 2, subset_size=0.5)
    map_ = explainer.attribute(x, 1)
    torch.testing.assert_close(metric.evaluate(explainer, x, 1), torch.ones(3).double())
    torch.testing.assert_close(metric.evaluate(explainer, x, 1, -map_), -torch.ones(3).double())
    torch.testing.assert_close(metric.evaluate(explainer, x, 1, 7 * map_), torch.ones(3).double())


def test_as_a_plain_loop_at_a_layer():
    model, x = network()
    explainer = pnpx.GradientXInput(model, layer="1")
    metric = MuFidelity(n_iter=30, subset_size=0.34, replacement=0.25, seed=4)
    value, map_ = metric.evaluate(explainer, x, 2), explainer.attribute(x, 2)
    hidden = model[:2](x).detach()
    for row in range(3):
        drops, sums = [], []
        for gone in metric._subsets(6):
            assert gone.sum() == 2
            edited = torch.where(gone, 0.25, hidden[row])
            with torch.no_grad():
                drops.append(float(model[2](hidden[row])[2] - model[2](edited)[2]))
            sums.append(float(map_[row][gone].sum()))
        assert float(value[row]) == pytest.approx(np.corrcoef(drops, sums)[0, 1])


def test_zero_where_either_side_does_not_vary():
    model, x = network()
    explainer = pnpx.Gradient(model)
    assert MuFidelity().evaluate(explainer, x, 0, torch.ones(3, 8)).tolist() == [0, 0, 0]
    nothing = pnpx.Gradient(model, score=lambda output, _: output[:, 0] * 0 + 0.1)
    assert MuFidelity().evaluate(nothing, x, None, torch.randn(3, 8)).tolist() == [0, 0, 0]
    single = nn.Linear(1, 2).double()
    assert MuFidelity().evaluate(pnpx.Gradient(single), torch.ones(2, 1).double()).tolist() == [0, 0]


def test_what_is_lost_by_rounding_is_nothing():
    model, x = network()
    model, x = model.float(), x.float()
    noisy = pnpx.Gradient(model, score=lambda output, _: 100 + 1e-6 * output[:, 0])
    assert MuFidelity().evaluate(noisy, x, None, torch.randn(3, 8)).tolist() == [0, 0, 0]


def test_subsets_are_those_of_the_seed_and_of_every_size():
    assert torch.equal(MuFidelity()._subsets(9), MuFidelity()._subsets(9))
    assert not torch.equal(MuFidelity()._subsets(9), MuFidelity(seed=1)._subsets(9))
    for groups, share, size in ((9, 0.2, 2), (2, 0.01, 1), (2, 0.9, 1), (1, 0.5, 1), (50, 0.2, 10)):
        assert set(MuFidelity(subset_size=share)._subsets(groups).sum(1).tolist()) == {size}


def test_scores_are_the_explainers_own():
    model, x = network()
    plain, soft = pnpx.Gradient(model), pnpx.Gradient(model, inference_mode="softmax")
    map_ = torch.randn(3, 8, generator=torch.Generator().manual_seed(0))
    own, other = MuFidelity().evaluate(plain, x, 0, map_), MuFidelity().evaluate(soft, x, 0, map_)
    assert not torch.allclose(own, other)
    torch.testing.assert_close(MuFidelity(inference_mode="softmax").evaluate(plain, x, 0, map_), other)


def test_token_ids():
    given = case("rnn_tokens")
    found = MuFidelity(subset_size=0.01).evaluate(pnpx.Occlusion(given.model), given.batch, given.targets)
    torch.testing.assert_close(found, torch.ones(3).double())  # single tokens are what Occlusion takes away


def test_wrong_parameters():
    with raises(ValueError, "`0 < subset_size < 1` must hold, but got subset_size=1"):
        MuFidelity(subset_size=1)
    with raises(TypeError, "subset_size must be a share, a float, but got '0.2'"):
        MuFidelity(subset_size="0.2")
    with raises(ValueError, "`n_iter >= 2` must hold, but got n_iter=1"):
        MuFidelity(n_iter=1)
    with raises(ValueError, "`seed >= 0` must hold, but got seed=-1"):
        MuFidelity(seed=-1)
    with raises(TypeError, "MuFidelity has no parameter 'subsetsize'; the nearest: 'subset_size'"):
        MuFidelity(subsetsize=0.1)


def test_a_score_that_is_constant_but_for_rounding_has_0():
    model, x = network()
    model, x = model.float(), x.float()
    noisy = pnpx.FeatureAblation(model, score=lambda output, _: 100 + 3e-5 * output[:, 0])
    assert noisy.attribute(x).any()  # it goes by steps of 7.6e-6
    assert MuFidelity().evaluate(noisy, x, None, torch.randn(3, 8)).tolist() == [0, 0, 0]


def test_what_varies_little_varies():
    row = torch.tensor([1, 1 + 1e-4, 1 + 2e-4]).double()
    torch.testing.assert_close(correlation(row, row), torch.ones(()).double())
    assert correlation(row, row * 0 + 1) == 0
