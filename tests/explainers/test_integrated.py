"""Integrated gradients against captum in float64, and against what they must add up to."""


import captum.attr
import numpy as np
import pytest
import torch
from torch import nn

from pnpx import IntegratedGradients
from pnpx.explainers.integrated import RULES, nodes
from tests.errors import raises

X = torch.randn(3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(7))
BASE = torch.randn(3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(8))


@pytest.fixture
def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 7), nn.Tanh(), nn.Linear(7, 5), nn.GELU(), nn.Linear(5, 3)).double()


class Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.left, self.right = nn.Linear(4, 5), nn.Linear(2, 5)
        self.head = nn.Sequential(nn.Tanh(), nn.Linear(5, 3))

    def forward(self, a, b):
        return self.head(self.left(a) * self.right(b))


def as_captum(rule, n_steps):
    """captum's weights of the trapezoid rule add up to (n - 1) / n only; ours to 1 (see the test of the nodes)."""
    return (n_steps - 1) / n_steps if rule == "riemann_trapezoid" else 1.0


@pytest.mark.parametrize("rule", [rule for rule in RULES if rule != "graded"])
@pytest.mark.parametrize("n_steps", [2, 5, 17])
def test_against_captum(net, rule, n_steps):
    targets = torch.tensor([0, 2, 1])
    expected = captum.attr.IntegratedGradients(net).attribute(
        X, baselines=BASE, target=targets, n_steps=n_steps, method=rule)
    found = IntegratedGradients(net, n_steps=n_steps, rule=rule, baseline=BASE).attribute(X, targets)
    torch.testing.assert_close(found * as_captum(rule, n_steps), expected.detach(), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("layer, at_input", [("0", False), ("2", True), ("3", False)])
@pytest.mark.parametrize("rule", ["gausslegendre", "riemann_trapezoid"])
def test_layers_against_captum(net, layer, at_input, rule):
    theirs = captum.attr.LayerIntegratedGradients(net, net[int(layer)])
    expected = theirs.attribute(X, baselines=BASE, target=1, n_steps=6, method=rule, attribute_to_layer_input=at_input)
    expected = expected[0] if isinstance(expected, tuple) else expected
    place = layer + (":input" if at_input else "")
    found = IntegratedGradients(net, layer=place, n_steps=6, rule=rule, baseline=BASE).attribute(X, 1)
    torch.testing.assert_close(found * as_captum(rule, 6), expected.detach(), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("baseline", [0.0, (BASE, 0.5), {"a": 1.0, "b": BASE[:, :2]}], ids=["0", "tuple", "mapping"])
def test_two_inputs_against_captum(baseline):
    torch.manual_seed(0)
    model = Two().double()
    a, b = X, X[:, :2].exp()
    inputs = {"a": a, "b": b} if isinstance(baseline, dict) else (a, b)
    parts = tuple(baseline.values()) if isinstance(baseline, dict) else baseline
    parts = (0.0, 0.0) if parts == 0.0 else parts
    expected = captum.attr.IntegratedGradients(model).attribute((a, b), baselines=parts, target=2, n_steps=9)
    found = IntegratedGradients(model, n_steps=9, baseline=baseline).attribute(inputs, 2)
    assert isinstance(found, dict) == isinstance(baseline, dict)
    for one, other in zip(found.values() if isinstance(found, dict) else found, expected, strict=True):
        torch.testing.assert_close(one, other.detach(), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("baseline, value", [
    (2.0, torch.full((3, 4), 2.0)), ("zeros", torch.zeros(3, 4)), ("mean", X.mean(1, keepdim=True).expand(3, 4)),
    (BASE, BASE), (BASE[0], BASE[:1].expand(3, 4)), (BASE.numpy(), BASE), (lambda x: x / 2, X / 2),
    (torch.tensor(1.0), torch.ones(3, 4)),
], ids=["number", "zeros", "mean", "tensor", "row", "array", "callable", "scalar"])
def test_forms_of_baseline(net, baseline, value):
    found = IntegratedGradients(net, baseline=baseline, n_steps=4).attribute(X, 0)
    expected = captum.attr.IntegratedGradients(net).attribute(X, baselines=value.double(), target=0, n_steps=4)
    torch.testing.assert_close(found, expected.detach(), rtol=1e-6, atol=1e-9)


def test_bilinear_closed_form():
    """f = x y from 0: each factor gets half of the product; from (0, y0) the path is the diagonal."""

    class Product(nn.Module):
        def forward(self, x):
            return (x[:, 0] * x[:, 1])[:, None]

    found = IntegratedGradients(Product(), n_steps=2).attribute(torch.tensor([[3.0, 4.0]]))
    torch.testing.assert_close(found, torch.tensor([[6.0, 6.0]]))
    found = IntegratedGradients(Product(), n_steps=2, baseline=torch.tensor([0.0, 2.0])).attribute(
        torch.tensor([[3.0, 4.0]]))
    torch.testing.assert_close(found, torch.tensor([[9.0, 3.0]]))  # dx * mean y, dy * mean x


@pytest.mark.parametrize("layer", [None, "0", "2:input", "3"])
def test_completeness(net, layer):
    targets = torch.tensor([0, 2, 1])
    explainer = IntegratedGradients(net, layer=layer, n_steps=40, baseline=BASE)
    score = (net(X) - net(BASE)).gather(1, targets[:, None])[:, 0].detach()
    torch.testing.assert_close(explainer.attribute(X, targets).sum(1), score, rtol=1e-9, atol=1e-10)
    assert explainer.completeness_gap(X, targets).abs().max() < 1e-9


@pytest.mark.parametrize("batch_size", [1, 2, 32])
@pytest.mark.parametrize("layer", [None, "0"])
def test_the_gap_is_score_less_sum(net, layer, batch_size):
    options = {"n_steps": 3, "rule": "riemann_left", "baseline": 1.0, "batch_size": batch_size}
    explainer = IntegratedGradients(net, layer=layer, **options)
    rise = (net(X) - net(torch.ones_like(X))).detach()
    for targets in (1, torch.tensor([0, 2, 1]), torch.tensor([[0, 1], [2, 2], [1, 0]])):
        columns = torch.as_tensor(targets).expand(3) if torch.as_tensor(targets).ndim == 0 else torch.as_tensor(targets)
        found = explainer.attribute(X, targets)
        expected = rise.gather(1, columns.reshape(3, -1)).reshape(columns.shape) - found.sum(-1)
        gap = explainer.completeness_gap(X, targets)
        assert gap.shape == columns.shape and gap.abs().max() > 1e-3
        torch.testing.assert_close(gap, expected, rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(explainer.explain(X, targets).diagnostics["completeness_gap"], expected)


def test_the_gap_counts_all_inputs_and_places():
    torch.manual_seed(0)
    model = Two().double()
    b = X[:, :2].exp()
    for layer in (None, ["left", "right"]):
        explainer = IntegratedGradients(model, layer=layer, n_steps=2, rule="riemann_right")
        one, other = explainer.attribute((X, b), 0)
        rise = (model(X, b) - model(0 * X, 0 * b))[:, 0].detach()
        torch.testing.assert_close(explainer.completeness_gap((X, b), 0), rise - one.sum(1) - other.sum(1))
        assert IntegratedGradients(model, layer=layer, n_steps=30).completeness_gap((X, b), 0).abs().max() < 1e-8


def test_at_an_embedding_the_baseline_is_ids():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(6, 3), nn.Flatten(), nn.Linear(6, 4), nn.Tanh(), nn.Linear(4, 2)).double()
    ids = torch.tensor([[1, 5], [2, 3]])
    for baseline, row in ((0, 0), (4, 4)):
        found = IntegratedGradients(model, layer="0", baseline=baseline, n_steps=30).attribute(ids, 1)
        rise = (model(ids) - model(torch.full_like(ids, row)))[:, 1].detach()
        torch.testing.assert_close(found.sum((1, 2)), rise)
        way = (model[0](ids) - model[0].weight[row]).detach()
        assert torch.equal(found == 0, way == 0)


@pytest.mark.parametrize("batch_size", [1, 2, 4, 100])
def test_any_batch_size(net, batch_size):
    whole = IntegratedGradients(net, baseline=BASE, n_steps=5).attribute(X)
    torch.testing.assert_close(
        IntegratedGradients(net, baseline=BASE, n_steps=5, batch_size=batch_size).attribute(X), whole)
    alone = IntegratedGradients(net, baseline=BASE[1:2], n_steps=5, batch_size=batch_size).attribute(X[1:2])
    torch.testing.assert_close(alone, whole[1:2])


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("n_steps", [2, 3, 10])
def test_nodes_integrate_what_the_rule_integrates_exactly(rule, n_steps):
    positions, weights = (np.array(part, dtype=float) for part in nodes(rule, n_steps))
    assert len(positions) == n_steps and (positions >= 0).all() and (positions <= 1).all()
    assert (np.diff(positions) > 0).all()
    np.testing.assert_allclose(weights.sum(), 1)
    degree = {"gausslegendre": 2 * n_steps - 1, "riemann_middle": 1, "riemann_trapezoid": 1}.get(rule, 0)
    for power in range(degree + 1):
        np.testing.assert_allclose((weights * positions**power).sum(), 1 / (power + 1), rtol=1e-12)
    left = rule == "riemann_left"
    if rule in ("riemann_left", "riemann_right"):
        np.testing.assert_allclose((weights * positions).sum(), 0.5 + (-0.5 if left else 0.5) / n_steps)


def test_low_precision_and_results(net):
    found = IntegratedGradients(net.bfloat16(), n_steps=20).attribute(X.bfloat16(), 0)
    assert found.dtype == torch.float32
    exact = IntegratedGradients(net.double(), n_steps=20).attribute(X, 0)
    assert (found - exact).abs().max() / exact.abs().max() < 0.05


@pytest.mark.parametrize("options, kind, message", [
    ({"rule": "simpson"}, ValueError,
     "rule must be one of ('gausslegendre', 'graded', 'riemann_middle', 'riemann_left', 'riemann_right', "
     "'riemann_trapezoid'), but is 'simpson'"),
    ({"n_steps": 0}, ValueError, "`n_steps >= 1` must hold, but got n_steps=0"),
    ({"n_steps": 1, "rule": "riemann_trapezoid"}, ValueError, "`n_steps >= 2` must hold, but got n_steps=1"),
    ({"n_iter": 3}, TypeError, "IntegratedGradients has no parameter 'n_iter'; there are: 'model', 'layer', "
                               "'forward_arg_extractor', 'additional_forward_arg_extractor', 'padding_mask_extractor', "
                               "'output_extractor' and 12 more"),
])
def test_impossible_parameters(options, kind, message):
    with pytest.raises(kind) as caught:
        IntegratedGradients(nn.Identity(), **options)
    if "n_iter" in options:  # however many parameters there are
        assert str(caught.value).startswith("IntegratedGradients has no parameter 'n_iter'; ")
    else:
        assert str(caught.value) == message


def test_a_baseline_of_another_length_at_a_layer():
    class Sums(nn.Module):
        def __init__(self):
            super().__init__()
            self.keep = nn.Identity()

        def forward(self, x):
            return self.keep(x[x[:, 0] != 0]).sum(1, keepdim=True)

    with raises(ValueError, "the baseline gives shape (0, 4) at 'keep', but the input (3, 4); choose a baseline of the "
                            "input's length"):
        IntegratedGradients(Sums(), layer="keep").attribute(X)


def test_errors_of_baselines_reach_the_user(net):
    with raises(ValueError, "no baseline 'zero'; the nearest: 'zeros'"):
        IntegratedGradients(net, baseline="zero").attribute(X)
