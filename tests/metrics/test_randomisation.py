"""Randomisation: the copy, the likeness, and what is left alone."""

from dataclasses import dataclass

import pytest
import torch
from torch import nn

import pnpx
from pnpx.metrics import Randomisation
from pnpx.metrics.agreement import ranks
from pnpx.metrics.randomisation import likeness, shuffle
from pnpx.testing import case
from pnpx.testing.conduct import fingerprint, require_untouched
from tests.errors import raises


@dataclass(frozen=True)
class InputItself(pnpx.Explainer):
    """Explains by the input alone, whatever the model."""

    def explain_at(self, bound, aim, reference):
        return [[value.tensor for value in bound.values] for _ in range(aim.n_targets or 1)]


def test_an_explanation_that_ignores_the_model_has_1():
    torch.manual_seed(0)
    model, x = nn.Linear(6, 3).double(), torch.randn(4, 6).double()
    torch.testing.assert_close(Randomisation().evaluate(InputItself(model), x), torch.ones(4).double())
    assert (Randomisation().evaluate(pnpx.Gradient(model), x) < 0.99).all()


def test_as_explaining_a_shuffled_model():
    import copy

    given = case("conv")
    other = copy.deepcopy(given.model)
    shuffle(other, seed=3)
    for mine, theirs in zip(given.model.parameters(), other.parameters(), strict=True):
        assert torch.equal(mine.flatten().sort().values, theirs.flatten().sort().values)
    for place in ("block", given.model.block):
        explainer = pnpx.SmoothGrad(given.model, layer=place)
        expected = [
            likeness(a.flatten(), b.flatten())
            for a, b in zip(
                explainer.attribute(given.batch, given.targets),
                pnpx.SmoothGrad(other, layer="block").attribute(given.batch, given.targets),
                strict=True,
            )
        ]
        found = Randomisation(seed=3).evaluate(explainer, given.batch, given.targets)
        torch.testing.assert_close(found, torch.stack(expected))


def test_the_class_is_that_which_the_model_itself_predicts():
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(6, 9), nn.ReLU(), nn.Linear(9, 4)).double(), torch.randn(5, 6).double()
    explainer = pnpx.GradientXInput(model)
    found = Randomisation().evaluate(explainer, x)
    torch.testing.assert_close(found, Randomisation().evaluate(explainer, x, model(x).argmax(1)))
    both = Randomisation().evaluate(explainer, x, torch.stack([model(x).argmax(1), torch.zeros(5).long()], 1))
    torch.testing.assert_close(both[:, 0], found)


def test_the_model_and_global_randomness_are_left_alone():
    given = case("mlp")
    before, state = fingerprint(given.model), torch.get_rng_state()
    Randomisation().evaluate(pnpx.Gradient(given.model), given.batch)
    require_untouched(before, fingerprint(given.model), "the model")
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.equal(
        Randomisation().evaluate(pnpx.Gradient(given.model), given.batch),
        Randomisation(seed=1).evaluate(pnpx.Gradient(given.model), given.batch),
    )


def test_likeness_is_spearmans():
    stats = pytest.importorskip("scipy.stats")
    generator = torch.Generator().manual_seed(0)
    one, other = (torch.randint(-4, 5, (30,), generator=generator).double() for _ in range(2))
    expected = stats.spearmanr(one.abs().numpy(), other.abs().numpy()).statistic
    assert float(likeness(one, other)) == pytest.approx(expected)
    assert ranks(one).tolist() == stats.rankdata(one.numpy()).tolist()
    assert float(likeness(one, torch.ones(30).double())) == 0  # nothing to compare
    assert likeness(one, one * torch.nan).isnan()


def test_a_model_that_cannot_be_copied():
    class Alone(nn.Linear):
        def __deepcopy__(self, memo):
            raise TypeError("there is one of me")

    with raises(
        RuntimeError,
        "Randomisation needs a copy of the model, but copy.deepcopy of this Alone fails (TypeError: there is one of "
        "me); leave this metric out, or make the model one that can be copied",
    ):
        Randomisation().evaluate(pnpx.Gradient(Alone(3, 2)), torch.ones(1, 3))


def test_pooled_channels_where_they_are():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(27, 3)).double()
    x = torch.randn(2, 3, 3, 3).double()
    for axis in (1, 2, 3):
        explainer = InputItself(model, reducer="sum", channel_axis=axis)
        torch.testing.assert_close(Randomisation().evaluate(explainer, x), torch.ones(2).double())
