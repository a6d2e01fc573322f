"""Several scores of one row share a backward pass, where that gives what a pass for each gives."""

import pytest
import torch
from torch import nn

import pnpx


class Counted(torch.autograd.Function):
    """The tangent; counts its backward passes, and does in them what ``mischief`` does to the gradient."""

    passes = 0
    mischief = None

    @staticmethod
    def forward(context, value):
        context.save_for_backward(value)
        return value.tanh()

    @staticmethod
    def backward(context, gradient):
        Counted.passes += 1
        (value,) = context.saved_tensors
        found = gradient * (1 - value.tanh().square())
        return found if Counted.mischief is None else Counted.mischief(found)


class Net(nn.Module):
    def __init__(self, targets=9):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last = nn.Linear(5, 7, dtype=torch.float64), nn.Linear(7, targets, dtype=torch.float64)

    def forward(self, x):
        return self.last(Counted.apply(self.first(x)))


@pytest.fixture(autouse=True)
def anew():
    Counted.passes, Counted.mischief = 0, None
    yield
    Counted.mischief = None


def x(rows=1):
    return torch.randn(rows, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def jacobian(model, row):
    return torch.autograd.functional.jacobian(lambda given: model(given[None])[0], row)


def targets(count=9, rows=1):
    return torch.arange(count).expand(rows, -1)


def test_one_pass_for_all_targets_and_one_to_compare():
    model = Net()
    found = pnpx.Gradient(model).attribute(x(), targets())
    assert Counted.passes == 2
    torch.testing.assert_close(found[0], jacobian(model, x()[0]))


def test_no_more_than_are_asked_for_at_once():
    model = Net(70)
    found = pnpx.Gradient(model).attribute(x(), targets(70))
    assert Counted.passes == 3 + 1
    torch.testing.assert_close(found[0], jacobian(model, x()[0]))


def test_few_targets_or_several_rows_take_turns():
    model = Net()
    pnpx.Gradient(model).attribute(x(), targets(3))
    assert Counted.passes == 3
    Counted.passes = 0
    found = pnpx.Gradient(model).attribute(x(2), targets(9, 2))
    assert Counted.passes == 9
    for row in range(2):
        torch.testing.assert_close(found[row], jacobian(model, x(2)[row]))


def broken(gradient):
    return gradient * gradient.sum().item() / gradient.sum()  # no single number while there are several


def wrong(gradient):
    return gradient * (2 if Counted.passes == 1 else 1)  # in the pass that all share


@pytest.mark.parametrize("mischief", [broken, wrong])
def test_where_it_fails_or_differs_each_has_a_pass_of_its_own(mischief):
    model = Net()
    expected = jacobian(model, x()[0])
    Counted.passes, Counted.mischief = 0, mischief
    found = pnpx.Gradient(model).attribute(x(), targets())
    assert Counted.passes >= 9
    torch.testing.assert_close(found[0], expected)


def test_at_every_noisy_copy():
    model = Net()
    found = pnpx.SmoothGrad(model, n_iter=6, noise_std=0.3, batch_size=1, layer="first").attribute(x(), targets())
    assert Counted.passes == 6 + 1
    expected = pnpx.SmoothGrad(model, n_iter=6, noise_std=0.3, layer="first").attribute(x(), 4)
    torch.testing.assert_close(found[:, 4], expected)


def test_a_target_that_depends_on_nothing_gets_zeros():
    class Half(nn.Module):
        def forward(self, x):
            return torch.cat([Counted.apply(x), torch.ones(len(x), 2, dtype=x.dtype)], dim=1)

    found = pnpx.Gradient(Half()).attribute(x(), targets(5))
    torch.testing.assert_close(found[0], torch.diag(1 - x()[0].tanh().square()))
    with pytest.raises(RuntimeError, match="the score does not depend on the inputs"):
        pnpx.Gradient(nn.Sequential(nn.Flatten(), Constant())).attribute(x(), targets(5))


class Constant(nn.Module):
    def forward(self, x):
        return torch.ones(len(x), 6)
