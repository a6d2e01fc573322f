"""TorchScript models, and parts of models, in eval mode: what they are explained by is what they were scripted from."""

import copy

import pytest
import torch
from torch import Tensor, nn

import pnpx

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning", "ignore:.*torch.jit:DeprecationWarning")

X = torch.linspace(-1, 1, 18, dtype=torch.float64).sin().reshape(3, 6)
EXPLAINERS = {
    "Gradient": {},
    "SmoothGrad": {"n_iter": 4},
    "IntegratedGradients": {"n_steps": 4},
    "Occlusion": {"window": 2},
}


def plain() -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 3)).double().eval()


MAKERS = {
    "scripted": lambda model: torch.jit.script(model),
    "traced": lambda model: torch.jit.trace(model, X),
    "frozen": lambda model: torch.jit.freeze(torch.jit.script(model)),
    "scripted part": lambda model: nn.Sequential(model[0], torch.jit.script(model[1]), model[2]).eval(),
}


def explain(name: str, model: nn.Module, **more: object) -> Tensor:
    return getattr(pnpx, name)(model, **EXPLAINERS[name], **more).attribute(X, [0, 1, 2])


@pytest.mark.parametrize("name", EXPLAINERS)
@pytest.mark.parametrize("how", MAKERS)
def test_at_the_inputs(how, name):
    model = MAKERS[how](plain())
    torch.testing.assert_close(explain(name, model), explain(name, plain()))


def test_a_gradient_is_that_of_autograd():
    model, x = MAKERS["scripted"](plain()), X.clone().requires_grad_()
    scores = plain()(x)
    (expected,) = torch.autograd.grad(scores[0, 0] + scores[1, 1] + scores[2, 2], x)
    torch.testing.assert_close(explain("Gradient", model), expected)


@pytest.mark.parametrize("name", [name for name in EXPLAINERS if name != "Occlusion"])
@pytest.mark.parametrize("layer", ["0", "2:input"])
def test_at_a_layer_beside_a_scripted_part(layer, name):
    model = MAKERS["scripted part"](plain())
    torch.testing.assert_close(explain(name, model, layer=layer), explain(name, plain(), layer=layer))


class Counts(nn.Module):
    """Puts a new buffer in place of the old one at each pass."""

    count: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(6, 3).double()
        self.register_buffer("count", torch.zeros(2))

    def forward(self, x: Tensor) -> Tensor:
        self.count = self.count + 1
        return self.linear(x)


def test_buffers_and_modes_are_left_as_found():
    for training in (False, True):
        model = torch.jit.script(Counts().train(training))
        before, weights = model.count, copy.deepcopy(model.state_dict())
        explain("SmoothGrad", model)
        assert model.training is training and model.linear.training is training
        assert model.count is before and before.tolist() == [0, 0]
        assert all(torch.equal(weights[name], value) for name, value in model.state_dict().items())
        assert all(parameter.requires_grad for parameter in model.parameters())
