"""Sensitivity, against closed forms and captum."""

import pytest
import torch
from torch import nn

import pnpx
from pnpx.metrics import Sensitivity
from pnpx.testing import case
from tests.errors import raises
from tests.explainers.probes import Quadratic, Spy


def network(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3)).double(), torch.randn(4, 6).double()


def noises(metric, count, *shape):
    """The noise of each copy, from -1 to 1, by what a model sees."""
    spy = Spy()
    model = nn.Sequential(spy, nn.Flatten(), nn.Linear(torch.Size(shape).numel(), 1)).double()
    zeros, explainer = torch.zeros(1, *shape).double(), pnpx.Gradient(model)
    metric = Sensitivity(radius=1.0, n_iter=count, scale="absolute", seed=metric.seed)
    given = explainer.attribute(zeros)
    spy.seen.clear()
    metric.evaluate(explainer, zeros, None, given)
    found = {tuple(row.flatten().tolist()): row for row in spy.rows if bool((row != 0).any())}
    assert len(found) == count
    return list(found.values())


def test_zero_where_the_gradient_is_the_same_everywhere():
    torch.manual_seed(0)
    model, x = nn.Linear(5, 3).double(), torch.randn(4, 5).double()
    assert Sensitivity(radius=0.5).evaluate(pnpx.Gradient(model), x).tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize("kind", [pnpx.Gradient, pnpx.SmoothGrad, pnpx.SquareGrad, pnpx.VarGrad, pnpx.KernelShap])
def test_exactly_zero_without_noise(kind):
    """As a normalised map compared with raw ones is not: both come raw from the same explainer."""
    model, x = network()
    for reducer_free in (kind(model), kind(model, layer="0")):
        assert Sensitivity(radius=0, n_iter=2).evaluate(reducer_free, x).tolist() == [0, 0, 0, 0]
        given = reducer_free.attribute(x)
        assert Sensitivity(radius=0, n_iter=2).evaluate(reducer_free, x, None, given).tolist() == [0, 0, 0, 0]


def test_a_quadratic_by_hand():
    """A(x) = a x, so that the change is the noise itself."""
    metric, x = Sensitivity(radius=0.1, n_iter=4), torch.tensor([[3.0, -1.0, 0.5], [1.0, 2.0, 9.0]]).double()
    drawn = torch.stack(noises(metric, 4, 3))
    assert drawn.abs().max() <= 1 and len(drawn.unique()) == 12  # no noise is used twice
    found = metric.evaluate(pnpx.Gradient(Quadratic(2.0)), x)
    spread = torch.tensor([4.0, 8.0]).double()
    torch.testing.assert_close(found, drawn.norm(dim=1).max() * 0.1 * spread / x.norm(dim=1))
    absolute = Sensitivity(radius=0.1, n_iter=4, scale="absolute").evaluate(pnpx.Gradient(Quadratic(2.0)), x)
    torch.testing.assert_close(absolute, drawn.norm(dim=1).max() * 0.1 / x.norm(dim=1))


def test_as_captum_with_the_same_noise():
    from captum.metrics import sensitivity_max

    model, x = network()
    explainer, metric = pnpx.GradientXInput(model), Sensitivity(radius=0.3, n_iter=6, scale="absolute", seed=5)
    supply = iter(noises(metric, 6, 6))

    def alone(inputs):
        return inputs[0] if isinstance(inputs, tuple) else inputs

    def perturb(inputs):
        return (alone(inputs) + 0.3 * next(supply),)

    expected = sensitivity_max(
        lambda inputs: (explainer.attribute(alone(inputs), 1),), x, perturb_func=perturb, n_perturb_samples=6,
        max_examples_per_batch=len(x),
    )
    torch.testing.assert_close(metric.evaluate(explainer, x, 1), expected.double())


def test_the_target_is_that_of_the_sample_itself():
    """Noise that changes the prediction does not change what is explained."""
    model = nn.Linear(2, 2, bias=False).double()
    model.weight.data = torch.tensor([[1.0, 0.0], [0.0, 1.0]]).double()
    x = torch.tensor([[1.0, 0.999]]).double()
    assert Sensitivity(radius=0.5, scale="absolute").evaluate(pnpx.Gradient(model), x).tolist() == [0]


def test_maps_of_zeros():
    class Cut(nn.Module):
        def forward(self, x):
            return (x - 1).relu().sum(1, keepdim=True)

    x = torch.tensor([[-9.0, -9.0], [0.99, 0.5]]).double()
    found = Sensitivity(radius=0.1, scale="absolute").evaluate(pnpx.Gradient(Cut()), x)
    assert found.tolist() == [0, float("inf")]


def test_the_norm_is_over_all_inputs():
    class Both(nn.Module):
        def forward(self, a, b):
            return (a.square().sum(1) + b.square().sum((1, 2)))[:, None] / 2

    a, b = torch.randn(2, 3).double(), torch.randn(2, 2, 2).double()
    metric = Sensitivity(radius=0.0625, n_iter=1, scale="absolute")
    found = metric.evaluate(pnpx.Gradient(Both()), (a, b))
    norm = (a.square().sum(1) + b.square().sum((1, 2))).sqrt()
    change = found * norm / 0.0625
    torch.testing.assert_close(change[0], change[1])  # one noise for all samples, of all seven numbers
    assert 0.5 < float(change[0]) < 7**0.5


def test_several_targets():
    model, x = network()
    explainer, targets = pnpx.Gradient(model), torch.tensor([[0, 2]] * 4)
    found = Sensitivity().evaluate(explainer, x, targets)
    torch.testing.assert_close(found[:, 1], Sensitivity().evaluate(explainer, x, 2))


def test_padding_gets_no_noise_and_does_not_count_for_the_range():
    given = case("packed")
    found = Sensitivity().evaluate(pnpx.Gradient(given.model), given.batch, given.targets)
    one = given.samples([2])
    torch.testing.assert_close(Sensitivity().evaluate(pnpx.Gradient(one.model), one.batch, one.targets), found[2:])


def test_a_layer_is_judged_under_noise_at_the_inputs():
    model, x = network()
    found = Sensitivity().evaluate(pnpx.GradientXInput(model, layer="1", reducer=None), x)
    assert found.shape == (4,) and (found > 0).all()
    tanh = pnpx.Gradient(model, layer="1")  # behind it all is linear
    assert Sensitivity().evaluate(tanh, x).tolist() == [0, 0, 0, 0]


def test_integers_are_refused():
    given = case("rnn_tokens")
    for explainer in (pnpx.Occlusion(given.model), pnpx.Gradient(given.model, layer="embedding")):
        with raises(
            TypeError,
            "Sensitivity adds noise to the inputs, which must be floats, but are torch.int64; choose another metric, "
            "or explain a model that takes the embeddings",
        ):
            Sensitivity().evaluate(explainer, given.batch, given.targets)


def test_boxes_must_be_given():
    with raises(ValueError, "the boxes that are explained must be the same throughout; give them: targets="):
        Sensitivity().evaluate(
            pnpx.Gradient(nn.Identity(), score="detection"), torch.rand(1, 3, 7), None, torch.rand(1, 3, 7)
        )


def test_wrong_parameters():
    with raises(ValueError, "`0 <= radius < inf` must hold, but got radius=-0.1"):
        Sensitivity(radius=-0.1)
    with raises(TypeError, "radius must be a float, but got 'wide'"):
        Sensitivity(radius="wide")
    with raises(ValueError, "`n_iter >= 1` must hold, but got n_iter=0"):
        Sensitivity(n_iter=0)
    with raises(ValueError, "scale must be one of ('range', 'absolute'), but is 'rang'; the nearest: 'range'"):
        Sensitivity(scale="rang")


def test_a_sample_without_a_range_gets_no_noise():
    x = torch.tensor([[2.0, 2.0, 2.0], [1.0, 2.0, 9.0]]).double()
    found = Sensitivity().evaluate(pnpx.Gradient(Quadratic(2.0)), x)
    assert found[0] == 0 and found[1] > 0
    assert (Sensitivity(scale="absolute").evaluate(pnpx.Gradient(Quadratic(2.0)), x) > 0).all()


def test_pooled_channels_where_they_are():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(27, 6), nn.Tanh(), nn.Linear(6, 3)).double()
    x = torch.randn(2, 3, 3, 3).double()
    for axis in (1, 2, 3):
        explainer = pnpx.GradientXInput(model, reducer="sum", channel_axis=axis)
        assert Sensitivity(radius=0, n_iter=2).evaluate(explainer, x).tolist() == [0, 0]


class Squared(nn.Module):
    """Half the square of the steps that are no padding: A(x) = x."""

    def forward(self, x, mask):
        return (x.square().sum(2) * mask).sum(1, keepdim=True) / 2


def of_steps(x, mask):
    explainer = pnpx.Gradient(
        Squared(), forward_arg_extractor=lambda batch: batch["x"],
        additional_forward_arg_extractor=lambda batch: batch["mask"], padding_mask_extractor="mask",
    )
    return Sensitivity().evaluate(explainer, {"x": x, "mask": mask})


@pytest.mark.parametrize("left", [False, True])
@pytest.mark.parametrize("filling", [0.0, 99.0])
def test_a_padded_sample_as_alone(left, filling):
    """Whatever the padding is made of, and wherever it is: neither the range nor the noise know of it."""
    x = torch.randn(2, 5, 2, generator=torch.Generator().manual_seed(0)).double()
    mask = torch.ones(2, 5, dtype=torch.long)
    mask[1, slice(0, 2) if left else slice(3, 5)] = 0
    x[1][mask[1] == 0] = filling
    alone = x[1:][:, mask[1] == 1]
    expected = of_steps(alone, torch.ones(1, 3, dtype=torch.long))
    assert expected > 0
    torch.testing.assert_close(of_steps(x, mask)[1:], expected)
