"""The little grammar of places, with everything that can be wrong in it."""

import re

import pytest
import torch
from torch import nn

import pnpx
from pnpx.attributors.places import ArgumentPlace, ModulePlace, resolve, resolve_all
from tests.errors import raises


class Net(nn.Module):
    """Has shared modules, a module with the name of an argument, and several arguments."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(3, 3), nn.ReLU())
        self.alias = self.body
        self.mask = nn.Identity()

    def forward(self, x, mask=None, *, scale=1.0):
        return self.mask(self.body(x)) * scale


@pytest.fixture
def model():
    torch.manual_seed(0)
    return Net()


@pytest.mark.parametrize("layer, path, side, call", [
    ("body", "body", "output", None), ("body.0", "body.0", "output", None), ("body.1:input", "body.1", "input", None),
    ("body.1:output", "body.1", "output", None), ("body.1#2", "body.1", "output", 2),
    ("body.1#2:input", "body.1", "input", 2), ("body.1:input#2", "body.1", "input", 2), ("alias.0", "alias.0", "output",
                                                                                      None),
    ("mask:output", "mask", "output", None), ("mask#1", "mask", "output", 1), (":input", "", "input", None),
    (":output", "", "output", None), ("#1", "", "output", 1),
])
def test_modules(model, layer, path, side, call):
    place = resolve(model, layer)
    assert isinstance(place, ModulePlace)
    assert (place.path, place.side, place.call) == (path, side, call)
    assert place.module is model.get_submodule(path)


@pytest.mark.parametrize("layer", ["x", "scale", "x:argument", "mask:argument"])
def test_arguments(model, layer):
    assert resolve(model, layer) == ArgumentPlace(layer.removesuffix(":argument"))


def test_a_module_itself(model):
    assert resolve(model, model.body[1]) == ModulePlace("body.1", model.body[1])
    assert resolve(model, model) == ModulePlace("", model)


def test_the_identity_decides_not_equality():
    class Alike(nn.Identity):
        def __eq__(self, other):
            return isinstance(other, Alike)

        __hash__ = nn.Module.__hash__

    model = nn.Sequential(Alike(), Alike())
    assert resolve(model, model[1]).path == "1"
    assert len(resolve_all(model, ["0", "1"])) == 2


@pytest.mark.parametrize("layer, text", [
    ("body.0", "body.0"), ("body.0:input", "body.0:input"), ("body.0#2:input", "body.0#2:input"), ("x", "x"),
    (":output", "(the model)"), ("#2:input", "(the model)#2:input"),
])
def test_as_text(model, layer, text):
    assert str(resolve(model, layer)) == text


GRAMMAR = "a layer is written 'path', 'path:input', 'path:output' or 'path#2' for a module's second call, not "


@pytest.mark.parametrize("layer, kind, message", [
    ("bdy", LookupError, "no module 'bdy' in the model; the nearest: 'body'"),
    ("body.7", LookupError, "no module 'body.7' in the model; the nearest: 'body.1'"),
    ("scales", LookupError, "no module 'scales' in the model; the nearest: 'scale'"),
    ("", LookupError,
     "no module '' in the model; there are: 'body', 'body.0', 'body.1', 'alias', 'alias.0', 'alias.1' and 4 more"),
    ("x:input", LookupError, "'x' is a forward argument of the model, without sides or calls; write 'x' alone"),
    ("scale#2", LookupError, "'scale' is a forward argument of the model, without sides or calls; write 'scale' alone"),
    ("body:argument", LookupError, "no forward argument 'body' in the model; there are: 'x', 'mask', 'scale'"),
    ("mask", ValueError,
     "'mask' is both a module and a forward argument of the model; write 'mask:output' for the module, 'mask:argument' "
     "for the argument"),
    ("body:outputs", ValueError, GRAMMAR + "'body:outputs'"),
    ("body:1", ValueError, GRAMMAR + "'body:1'"),
    ("body#two", ValueError, GRAMMAR + "'body#two'"),
    ("body#-1", ValueError, GRAMMAR + "'body#-1'"),
    ("body#1:input#2", ValueError, GRAMMAR + "'body#1:input#2'"),
    ("body#1#2", ValueError, GRAMMAR + "'body#1#2'"),
    ("body#0", ValueError, "calls of a module count from 1, but the layer is 'body#0'"),
    (3, TypeError, "a layer must be a str or a module, or a sequence of them, but is 3"),
    (nn.ReLU(), LookupError,
     "the layer must be a module of the model explained, but this ReLU is none of them; give its path instead, such as "
     "'encoder.layer.0'"),
])
def test_what_cannot_be_meant(model, layer, kind, message):
    with raises(kind, message):
        resolve(model, layer)


def test_the_examples_of_the_documentation():
    class Bert(nn.Module):
        def __init__(self):
            super().__init__()
            self.bert = nn.ModuleDict({"embeddings": nn.Identity(), "encoder": nn.Identity()})

        def forward(self, input_ids):
            return input_ids

    with pytest.raises(LookupError, match=re.escape("no module 'embd' in the model; the nearest: 'bert.embeddings'")):
        resolve(Bert(), "embd")


def test_sequences(model):
    assert resolve_all(model, "body.0") == (resolve(model, "body.0"),)
    assert resolve_all(model, ["body.0", model.body[1], "x"]) == tuple(
        resolve(model, one) for one in ("body.0", "body.1", "x"))
    assert resolve_all(model, model.body) == (resolve(model, "body"),)  # a Sequential is a module, not a sequence


@pytest.mark.parametrize("layers, kind, message", [
    ([], TypeError, "a layer must be a str or a module, or a sequence of at least one of them, but is []"),
    (5, TypeError, "a layer must be a str or a module, or a sequence of at least one of them, but is 5"),
    ({"body"}, TypeError, "a layer must be a str or a module, or a sequence of at least one of them, but is {'body'}"),
    (["body.0", "body.0"], ValueError, "the layers must differ, but 'body.0' is given twice"),
    (["body.0", "alias.0"], ValueError, "the layers must differ, but 'alias.0' is given twice"),
    (["body.0", "body.0#1"], ValueError, "the layers must differ, but 'body.0#1' is given twice"),
    (["x", "x:argument"], ValueError, "the layers must differ, but 'x' is given twice"),
    (["body", 3], TypeError, "a layer must be a str or a module, or a sequence of them, but is 3"),
])
def test_sequences_that_cannot_be_meant(model, layers, kind, message):
    with raises(kind, message):
        resolve_all(model, layers)


@pytest.mark.parametrize("layer", ["body", "alias"])
def test_a_shared_module_is_reached_under_both_paths(model, layer):
    x = torch.randn(2, 3)
    found = pnpx.Gradient(model, layer=layer).attribute(x, 1)
    torch.testing.assert_close(found, torch.tensor([[0.0, 1.0, 0.0]] * 2))


def test_module_and_argument_of_one_name(model):
    class Marked(Net):
        def forward(self, x, mask):
            return self.mask(self.body(x)) * 3 * mask

    x, mask = torch.randn(2, 3), torch.randn(2, 3)
    marked = Marked()
    at_module = pnpx.Gradient(marked, layer="mask:output").attribute((x, mask), 1)
    at_argument = pnpx.Gradient(marked, layer="mask:argument").attribute((x, mask), 1)
    only = torch.tensor([0.0, 1.0, 0.0])
    torch.testing.assert_close(at_module, 3 * mask * only)
    torch.testing.assert_close(at_argument, 3 * marked.body(x).detach() * only)


def test_a_name_is_not_read_letter_by_letter():
    model = nn.ModuleDict({"f": nn.Linear(2, 2), "c": nn.Linear(2, 2), "fc": nn.Linear(2, 2)})
    model.forward = lambda x: model["fc"](model["c"](model["f"](x)))
    assert [place.path for place in resolve_all(model, "fc")] == ["fc"]
    assert isinstance(pnpx.Gradient(model, layer="fc").attribute(torch.ones(1, 2), 0), torch.Tensor)


@pytest.mark.parametrize("layer, kind, message", [
    ("1#2", RuntimeError, "the layer '1#2' was not reached: it runs once; choose one that the forward pass uses"),
    ("2", RuntimeError,
     "the layer '2' was not reached: the model ran without calling it; choose one that the forward pass uses"),
    ("2:input", RuntimeError,
     "the layer '2:input' was not reached: the model ran without calling it; choose one that the forward pass uses"),
    ("0", ValueError,
     "'0' runs 3 times in a forward pass, which makes it ambiguous as a layer; choose the call: '0#1' to '0#3'"),
    ("0:input", ValueError,
     "'0' runs 3 times in a forward pass, which makes it ambiguous as a layer; choose the call: '0#1:input' to "
     "'0#3:input'"),
])
def test_places_that_the_forward_pass_does_not_bear_out(layer, kind, message):
    class Some(nn.ModuleList):
        def forward(self, x):
            return self[1](self[0](self[0](self[0](x))))

    model = Some([nn.Linear(2, 2) for _ in range(3)])
    with raises(kind, message):
        pnpx.Gradient(model, layer=layer).attribute(torch.ones(1, 2), 0)
