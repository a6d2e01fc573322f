"""The gradient itself, against autograd and captum, at every kind of place."""

import captum.attr
import pytest
import torch
from torch import nn

import pnpx
from pnpx import Gradient, GradientXInput

X = torch.randn(3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(7))


@pytest.fixture
def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 7), nn.Tanh(), nn.Linear(7, 5), nn.GELU(), nn.Linear(5, 3)).double()


def test_inputs_against_captum(net):
    targets = torch.tensor([2, 0, 1])
    plain = captum.attr.Saliency(net).attribute(X.clone().requires_grad_(), target=targets, abs=False).detach()
    product = captum.attr.InputXGradient(net).attribute(X.clone().requires_grad_(), target=targets).detach()
    torch.testing.assert_close(Gradient(net).attribute(X, targets), plain, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(GradientXInput(net).attribute(X, targets), product, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("layer, at_input", [("0", False), ("1", False), ("2", True), ("4", True)])
def test_layers_against_captum(net, layer, at_input):
    place = layer + (":input" if at_input else "")
    for kind, multiply in ((Gradient, False), (GradientXInput, True)):
        theirs = captum.attr.LayerGradientXActivation(net, net[int(layer)], multiply_by_inputs=multiply)
        expected = theirs.attribute(X, target=1, attribute_to_layer_input=at_input)
        found = kind(net, layer=place).attribute(X, 1)
        torch.testing.assert_close(found, expected.detach().reshape(found.shape), rtol=1e-12, atol=1e-14)


def test_the_sign_is_kept():
    model = nn.Linear(2, 1, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[3.0, -1.0]]))
    assert Gradient(model).attribute(torch.zeros(1, 2)).tolist() == [[3.0, -1.0]]
    assert GradientXInput(model).attribute(torch.tensor([[2.0, 5.0]])).tolist() == [[6.0, -5.0]]


def test_only_one_pass_is_needed(net):
    passes = []
    net.register_forward_hook(lambda *_: passes.append(1))
    for layer in (None, "2"):
        Gradient(net, layer=layer).attribute(X)
    # At the inputs it is the clean one. At a layer another, of one sample, that ends there tells the axes of the batch.
    assert len(passes) == 2


@pytest.mark.parametrize("kind", [Gradient, GradientXInput])
def test_several_places_that_depend_on_each_other_are_each_explained_by_itself(kind, net):
    found = kind(net, layer=["0", "2", "2:input"]).attribute(X, 0)
    for one, layer in zip(found, ["0", "2", "2:input"], strict=True):
        torch.testing.assert_close(one, kind(net, layer=layer).attribute(X, 0))


def test_bfloat16_gradients_come_in_float32(net):
    model = net.bfloat16()
    for kind in (Gradient, GradientXInput):
        found = kind(model, layer="0").attribute(X.bfloat16(), 0)
        assert found.dtype == torch.float32 and not found.requires_grad


def test_an_in_place_follower_does_not_change_what_is_multiplied():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(inplace=True), nn.Linear(6, 2)).double()
    at = model[0](X).detach()
    expected = (at > 0) * model[2].weight[1] * at
    torch.testing.assert_close(GradientXInput(model, layer="0").attribute(X, 1), expected.detach())
    explanation = GradientXInput(model, layer="0").explain(X, 1)
    torch.testing.assert_close(explanation.explained, at)


def test_inputs_changed_in_place_by_the_model():
    class Doubling(nn.Module):
        def forward(self, x):
            return x.mul_(2).square()

    x = X.clone()
    torch.testing.assert_close(Gradient(Doubling()).attribute(x, 0)[:, 0], 8 * X[:, 0])
    torch.testing.assert_close(GradientXInput(Doubling()).attribute(x, 0)[:, 0], 8 * X[:, 0].square())
    assert torch.equal(x, X)


def test_parts_that_the_score_does_not_depend_on_are_zero():
    class First(nn.Module):
        def forward(self, a, b):
            return a.square()

    one, other = Gradient(First()).attribute((X, X), 0)
    assert one.any() and other.shape == X.shape and not other.any()


@pytest.mark.parametrize("layer, what", [(None, "the inputs"), ("0", "'0'"), (["0", "0:input"], "'0'")], ids=str)
def test_nothing_that_the_score_depends_on(layer, what):
    class Constant(nn.Sequential):
        def forward(self, x):
            super().forward(x)
            return torch.ones(len(x), 2)

    for kind in (Gradient, pnpx.SmoothGrad):
        with pytest.raises(RuntimeError) as caught:
            kind(Constant(nn.Linear(4, 4).double()), layer=layer).attribute(X, 0)
        assert str(caught.value).startswith("the score does not depend on " + what)
        assert str(caught.value).endswith("choose a place that the score is computed from, through differentiable "
                                          "operations")


def test_the_record(net):
    explanation = Gradient(net, layer="2").explain(X)
    output = net(X).detach()
    assert torch.equal(explanation.output, output) and torch.equal(explanation.prediction, output.argmax(1))
    torch.testing.assert_close(explanation.probability.double(), output.softmax(1).amax(1))
    assert torch.equal(explanation.targets, output.argmax(1))
    assert explanation.explainer["name"] == "Gradient" and explanation.explainer["layer"] == "2"
    by_module = Gradient(net, layer=[net[2], "0:input"], output_layer=net[1])
    assert by_module.parameters["layer"] == ["2", "0:input"] and by_module.parameters["output_layer"] == "1"
    torch.testing.assert_close(explanation.explained, net[:3](X).detach())
    assert torch.equal(explanation.inputs, X) and explanation.batch_axes == (0,) and explanation.seconds > 0


def test_a_loader_gives_an_explanation_a_batch(net):
    from torch.utils.data import DataLoader, TensorDataset

    loader = DataLoader(TensorDataset(X, torch.arange(3)), batch_size=2)
    explanations = list(Gradient(net, forward_arg_extractor=0).explain(loader, 1))
    assert [len(one) for one in explanations] == [2, 1]
    torch.testing.assert_close(torch.cat([one.attributions for one in explanations]), Gradient(net).attribute(X, 1))
    message = "attribute takes one batch, but got a DataLoader; use explain, which goes through its batches"
    with pytest.raises(TypeError, match=f"^{message}$"):
        Gradient(net).attribute(loader)
