"""Every explainer, at every place of every model, against plain autograd with plain hooks, in float64.

`pnpx.testing.Reference` gives the gradients; the points, the statistics and the paths are written out here.
"""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch

import pnpx
from pnpx import sampling
from pnpx.testing import Reference, available, case
from pnpx.testing.compare import require_equal
from pnpx.testing.reference import leaves, with_leaves

N = 6
NAMES = available()  # tiny BERT and ViT where transformers is there
PLACES = [(name, layer) for name in NAMES for layer in case(name).layers]
every_place = pytest.mark.parametrize("name, layer", PLACES, ids=lambda value: str(value).replace(" ", ""))


@cache
def reference_at(name, layer):
    return Reference(case(name), layer)


def agrees(explainer, reference, expected, tolerance=1e-9):
    found = leaves(explainer.attribute(reference.case.batch, reference.case.targets))
    require_equal(found, list(expected), "by hand", tolerance)


def at(kind, reference, layer, **parameters):
    return kind(reference.case.model, layer=layer, **reference.case.parameters, **parameters)


@every_place
def test_gradient(name, layer):
    reference = reference_at(name, layer)
    gradients = reference.gradients(reference.tensors)
    assert max(float(gradient.abs().max()) for gradient in gradients) > 1e-4
    agrees(at(pnpx.Gradient, reference, layer), reference, gradients)


@every_place
def test_gradient_x_input(name, layer):
    reference = reference_at(name, layer)
    gradients = reference.gradients(reference.tensors)
    expected = [gradient * tensor for gradient, tensor in zip(gradients, reference.tensors, strict=True)]
    agrees(at(pnpx.GradientXInput, reference, layer), reference, expected)


def noisy_gradients(reference, sampler, noise_level, seed):
    """The gradients at noisy copies of each tensor, (N, *its shape)."""
    copies = [[] for _ in range(N)]
    for index, (tensor, axis, steps) in enumerate(zip(reference.tensors, reference.axes, reference.steps, strict=True)):
        shape = [size for number, size in enumerate(tensor.shape) if number != axis]
        own = seed + 1_000_003 * index
        if steps is None:
            draws = list(sampler(shape, N, torch.Generator().manual_seed(own)))
        else:  # each step has its own generator
            generators = [torch.Generator().manual_seed(own + 7_919 * step) for step in range(shape[0])]
            draws = [torch.stack(step) for step in zip(*(sampler(shape[1:], N, g) for g in generators), strict=True)]
        for copy, draw in zip(copies, draws, strict=True):
            rows = []
            for row, sample in enumerate(tensor.unbind(axis)):
                kept = torch.ones_like(sample, dtype=torch.bool)
                if steps is not None:
                    kept = kept & steps[row].reshape(-1, *[1] * (sample.ndim - 1))
                span = sample[kept].max() - sample[kept].min()
                rows.append(sample + noise_level * span * draw.to(sample) * kept)
            copy.append(torch.stack(rows, axis))
    return [torch.stack(found) for found in zip(*map(reference.gradients, copies), strict=True)]


STATISTICS = {
    "SmoothGrad": lambda gradients: gradients.mean(0),
    "SquareGrad": lambda gradients: gradients.square().mean(0),
    "VarGrad": lambda gradients: gradients.var(0),
}


@every_place
@pytest.mark.parametrize("kind", [pnpx.SmoothGrad, pnpx.SquareGrad, pnpx.VarGrad])
def test_noise(name, layer, kind):
    reference = reference_at(name, layer)
    # VarGrad keeps independent draws: mirrored ones make it worse.
    sampler = sampling.independent if kind is pnpx.VarGrad else sampling.spread
    gradients = noisy_gradients(reference, sampler, noise_level=0.3, seed=4)
    statistic = STATISTICS[kind.__name__]
    # Where the score is linear, the variance is zero up to rounding of the gradients.
    expected = [statistic(gradient) for gradient in gradients]
    found = leaves(
        at(kind, reference, layer, n_iter=N, noise_level=0.3, seed=4).attribute(
            reference.case.batch, reference.case.targets
        )
    )
    for tensor, exact, gradient in zip(found, expected, gradients, strict=True):
        slack = 1e-20 * float(gradient.abs().max()) if kind is pnpx.VarGrad else 0
        torch.testing.assert_close(tensor, exact, rtol=1e-7, atol=1e-9 * float(exact.abs().max()) + slack)


def absent(given):
    """The case with zeros for what is explained."""
    args, kwargs = list(given.args), dict(given.kwargs)
    for key in given.keys:
        where = args if isinstance(key, int) else kwargs
        value = where[key]
        if isinstance(value, torch.Tensor):  # token ids as well
            where[key] = torch.zeros_like(value)
        else:
            where[key] = with_leaves(value, iter([torch.zeros_like(leaf) for leaf in leaves(value)]))
    return replace(given, args=tuple(args), kwargs=kwargs)


def integrated(reference, layer, positions, weights):
    """The weighted sum of the gradients on the path from zeros, times the path."""
    starts = Reference(absent(reference.case), layer).tensors
    ways = [end - start for end, start in zip(reference.tensors, starts, strict=True)]
    total = [torch.zeros_like(way) for way in ways]
    for position, weight in zip(positions, weights, strict=True):
        gradients = reference.gradients([s + position * w for s, w in zip(starts, ways, strict=True)])
        total = [t + weight * g for t, g in zip(total, gradients, strict=True)]
    return [t * way for t, way in zip(total, ways, strict=True)]


@every_place
def test_integrated_gradients(name, layer):
    reference = reference_at(name, layer)
    positions, weights = np.polynomial.legendre.leggauss(N)
    expected = integrated(reference, layer, (positions + 1) / 2, weights / 2)
    agrees(at(pnpx.IntegratedGradients, reference, layer, n_steps=N), reference, expected)


def zero_baselines(inputs):
    if isinstance(inputs, dict):
        return {key: zero_baselines(part) for key, part in inputs.items()}
    if isinstance(inputs, torch.Tensor):
        return torch.zeros_like(inputs[:1])
    if hasattr(inputs, "batch_sizes"):
        return torch.zeros_like(leaves(inputs)[0][:1])
    return tuple(zero_baselines(part) for part in inputs)


@pytest.mark.parametrize("name", NAMES)
def test_expected_gradients_of_one_baseline_are_integrated_gradients(name):
    given = case(name)
    layer = given.layers[-1]
    reference = Reference(given, layer)
    n = 64
    expected = integrated(reference, layer, [(step + 0.5) / n for step in range(n)], [1 / n] * n)
    explainer = at(pnpx.ExpectedGradients, reference, layer, baselines=zero_baselines(given.inputs), n_iter=n)
    agrees(explainer, reference, expected, tolerance=0.02)


def test_expected_gradients_are_the_mean_over_the_baselines():
    given = case("mlp")
    reference = Reference(given)
    torch.manual_seed(5)
    baselines = torch.randn(3, 5, dtype=torch.float64)
    n, expected = 100, torch.zeros_like(given.batch)
    for baseline in baselines:
        way = given.batch - baseline
        for step in range(n):
            (gradient,) = reference.gradients([baseline + (step + 0.5) / n * way])
            expected += gradient * way / n / 3
    explainer = at(pnpx.ExpectedGradients, reference, None, baselines=baselines, n_iter=6000)
    agrees(explainer, reference, [expected], tolerance=0.02)


CAPTUM_INPUTS = ["linear", "mlp", "conv", "two_inputs", "shared", "gru_sequence_first", "transformer_encoder"]


@pytest.mark.parametrize("name", CAPTUM_INPUTS)
def test_integrated_gradients_are_those_of_captum_at_the_inputs(name):
    captum = pytest.importorskip("captum.attr", reason="captum is the second opinion here")
    given = case(name)
    inputs = given.args if len(given.args) > 1 else given.args[0]
    expected = captum.IntegratedGradients(given.model).attribute(
        inputs, target=given.targets, n_steps=N, method="gausslegendre"
    )
    found = pnpx.IntegratedGradients(given.model, n_steps=N).attribute(given.batch, given.targets)
    require_equal(leaves(found), leaves(expected), "captum", tolerance=1e-6)  # its nodes are float32


@pytest.mark.parametrize(
    "name, layer",
    [("mlp", "2"), ("conv", "block.conv"), ("conv", "pool"), ("rnn_tokens", "embedding"), ("two_inputs", "head")],
)
def test_integrated_gradients_are_those_of_captum_at_layers(name, layer):
    captum = pytest.importorskip("captum.attr", reason="captum is the second opinion here")
    given = case(name)
    inputs = given.args if len(given.args) > 1 else given.args[0]
    method = captum.LayerIntegratedGradients(given.model, given.model.get_submodule(layer))
    expected = method.attribute(inputs, target=given.targets, n_steps=N, method="gausslegendre")
    found = pnpx.IntegratedGradients(given.model, layer=layer, n_steps=N).attribute(given.batch, given.targets)
    require_equal(leaves(found), leaves(expected), "captum", tolerance=1e-6)  # its nodes are float32


@pytest.mark.parametrize("name", NAMES)
def test_integrated_gradients_add_up(name):
    # Not from inputs of zeros: the slope of a layer norm there is nearly without bounds.
    layer = next(place for place in case(name).layers if place is not None)
    reference = reference_at(name, layer)
    starts = Reference(absent(reference.case), layer).tensors
    rise = reference.scores(reference.tensors) - reference.scores(starts)
    explainer = at(pnpx.IntegratedGradients, reference, layer, n_steps=100, batch_size=300)
    record = explainer.explain(reference.case.batch, reference.case.targets)
    total = sum(
        tensor.movedim(axis, 0).flatten(1).sum(1)
        for tensor, axis in zip(leaves(record.attributions), reference.axes, strict=True)
    )
    torch.testing.assert_close(total, rise, rtol=0.02, atol=2e-3)
    torch.testing.assert_close(record.diagnostics["completeness_gap"], rise - total, rtol=1e-6, atol=1e-9)


def test_the_reference_is_that_of_finite_differences():
    reference = Reference(case("mlp"), "2:input")
    (tensor,) = reference.tensors
    (gradient,) = reference.gradients([tensor])
    step = torch.zeros_like(tensor)
    step[:, 3] = 1e-6
    slope = (reference.scores([tensor + step]) - reference.scores([tensor - step])) / 2e-6
    torch.testing.assert_close(gradient[:, 3], slope, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("rule", ["riemann_left", "riemann_middle", "riemann_right", "riemann_trapezoid"])
def test_the_rules_of_integration(rule):
    reference = reference_at("mlp", None)
    positions = {
        "riemann_left": np.arange(N) / N,
        "riemann_middle": (np.arange(N) + 0.5) / N,
        "riemann_right": (np.arange(N) + 1) / N,
        "riemann_trapezoid": np.arange(N) / (N - 1),
    }[rule]
    weights = np.full(N, 1 / N)
    if rule == "riemann_trapezoid":
        weights = np.array([0.5, 1, 1, 1, 1, 0.5]) / (N - 1)
    expected = integrated(reference, None, positions, weights)
    agrees(at(pnpx.IntegratedGradients, reference, None, n_steps=N, rule=rule), reference, expected)
