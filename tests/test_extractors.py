"""Every kind of batch becomes the call that was meant; every misunderstanding an error that says what to do."""

import functools
from collections import OrderedDict, namedtuple
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import PackedSequence, pack_sequence
from torch.utils.data import DataLoader, TensorDataset
from transformers import BatchEncoding

import pnpx
from pnpx.extractors import LABELS, Call, Item, Items, Keywords, Shared, Signature, extract, is_by_sample, named_by
from tests.errors import raises

X, Y, Z = torch.ones(2, 3), torch.zeros(2, 4), torch.tensor([1, 2])
Pair = namedtuple("Pair", "image target")
Named = namedtuple("Named", "ids labels")
Triple = namedtuple("Triple", "image target meta")
Masked = namedtuple("Masked", "image mask")


@dataclass
class Batch:
    image: torch.Tensor
    label: torch.Tensor


class One(nn.Module):
    def forward(self, x):
        return x


class Two(nn.Module):
    def forward(self, image, meta=None):
        return image


class Pairs(nn.Module):
    def forward(self, left, right, scale=1.0):
        return left


class KeywordOnly(nn.Module):
    def forward(self, *, pixel_values, scale=1.0, labels=None):
        return pixel_values


class Optional(nn.Module):
    def forward(self, *, labels=None, pixels=None, scale=1.0):
        return pixels


class Anything(nn.Module):
    def forward(self, **kwargs):
        return kwargs


class AnyKeyword(nn.Module):
    def forward(self, x, **kwargs):
        return x


class Trained(nn.Module):
    def forward(self, x, labels=None, weight=None):
        return x


class MaskedModel(nn.Module):
    def forward(self, x, mask):
        return x


class MayBeMasked(nn.Module):
    def forward(self, x=None, mask=None):
        return x if mask is None else mask


class OnePositional(nn.Module):
    def forward(self, x, /, mask):
        return x


class AnyAtAll(nn.Module):
    def forward(self, *args, **kwargs):
        return args


class HuggingFace(nn.Module):
    def forward(self, input_ids=None, attention_mask=None, **kwargs):
        return input_ids


class Bert(nn.Module):
    def forward(self, input_ids=None, attention_mask=None, inputs_embeds=None, labels=None):
        return input_ids


def wrap(function):
    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        return function(*args, **kwargs)

    return wrapper


class Wrapped(nn.Module):
    @wrap
    def forward(self, image, meta=None):
        return image


class Positional(nn.Module):
    def forward(self, image, /, *rest):
        return image


def same(one, other):
    if isinstance(one, torch.Tensor):
        return isinstance(other, torch.Tensor) and one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        return isinstance(other, dict) and list(one) == list(other) and all(same(one[k], other[k]) for k in one)
    if isinstance(one, (tuple, list)):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other


@pytest.mark.parametrize("batch, key, expected", [
    ((1, 2, 3), 1, 2), ([1, 2], -1, 2), ({"a": 1}, "a", 1), ({0: 5}, 0, 5), (Pair(1, 2), "target", 2),
    (Pair(1, 2), 0, 1), (OrderedDict(a=4), "a", 4), (Batch(3, 4), "label", 4),
    (BatchEncoding({"ids": 7}), "ids", 7), (torch.ones(2, 3), "ndim", 2),
], ids=str)
def test_item(batch, key, expected):
    assert Item(key)(batch) == expected


def test_items_and_keywords():
    assert Items((2, "b"))({"b": 1, 2: 3}) == (3, 1)
    assert Keywords({"mask": 1, "x": 0})((5, 6)) == {"mask": 6, "x": 5}


def test_readable():
    assert repr(Item("ids")) == "Item(key='ids')"
    assert repr(Items((0, "b"))) == "Items(keys=(0, 'b'))"
    assert repr(Keywords(OrderedDict(x=0))) == "Keywords({'x': 0})"


@pytest.mark.parametrize("batch, key, kind, message", [
    ({"input_ids": 1, "mask": 2}, "input_id", LookupError,
     "the batch has no part 'input_id'; the nearest: 'input_ids'"),
    ({"a": 1}, 0, LookupError, "the batch has no part 0; there are: 'a'"),
    (BatchEncoding({"ids": 1}), "x", LookupError, "the batch has no part 'x'; there are: 'ids'"),
    (Batch(1, 2), "imag", LookupError, "a Batch as batch has no part 'imag'; the nearest: 'image'"),
    (Pair(1, 2), "images", LookupError, "a Pair as batch has no part 'images'; the nearest: 'image'"),
    ((1, 2), "image", LookupError, "a tuple as batch has no part 'image'; there are: '0', '1'"),
    ((1, 2), "count", LookupError, "a tuple as batch has no part 'count'; there are: '0', '1'"),
    ((1, 2), 2, LookupError, "the batch has 2 parts, counted from 0: there is no part 2"),
    ((1, 2), -3, LookupError, "the batch has 2 parts, counted from 0: there is no part -3"),
    (torch.ones(3, 2), 0, TypeError,
     "an int as extractor takes a part of a tuple or list, but the batch is a Tensor; leave the extractor out to pass "
     "the batch itself, or give a callable"),
    (5, "x", LookupError, "a int as batch has no part 'x'; there are none"),
])
def test_parts_that_are_not_there(batch, key, kind, message):
    with raises(kind, message):
        Item(key)(batch)


CALLS = {
    # the model, the batch, the two extractors; then args, kwargs, and what is explained
    "tensor": (One(), X, None, None, (X,), {}, X),
    "tuple of one": (One(), (X,), None, None, (X,), {}, (X,)),
    "list of two": (Pairs(), [X, Y], None, None, (X, Y), {}, (X, Y)),
    "position": (One(), (X, Z), 0, None, (X,), {}, X),
    "last position": (One(), (Z, X), -1, None, (X,), {}, X),
    "positions": (Two(), (X, Z, Y), [0, 2], None, (X, Y), {}, (X, Y)),
    "position and the rest": (Two(), (X, Y, Z), 0, 1, (X, Y), {}, X),
    "the rest is explained": (Positional(), (X, Y, Z), None, [1, 2], (X, Y, Z), {}, (X,)),
    "the rest, counted from the end": (Two(), (X, Z), None, -1, (X, Z), {}, (X,)),
    "key that is an argument": (Two(), {"image": X, "label": Z}, "image", None, (), {"image": X}, X),
    "key that is none": (One(), {"image": X, "label": Z}, "image", None, (X,), {}, X),
    "key and key": (Two(), {"image": X, "meta": Y}, "image", "meta", (), {"image": X, "meta": Y}, X),
    "keys": (Two(), {"meta": Y, "image": X}, ("image", "meta"), None, (), {"image": X, "meta": Y}, (X, Y)),
    "one key in a list": (Two(), {"image": X}, ["image"], None, (), {"image": X}, (X,)),
    "keyword-only": (KeywordOnly(), {"pixel_values": X, "labels": Z}, "pixel_values", None, (), {"pixel_values": X}, X),
    "whole, keyword-only": (KeywordOnly(), {"pixel_values": X, "labels": Z, "id": 3}, None, None, (),
                            {"pixel_values": X}, {"pixel_values": X}),
    "tensor, keyword-only": (KeywordOnly(), X, None, None, (), {"pixel_values": X}, X),
    "tuple of one, keyword-only": (KeywordOnly(), (X,), None, None, (), {"pixel_values": X}, (X,)),
    "position, keyword-only": (KeywordOnly(), (X, Z), 0, None, (), {"pixel_values": X}, X),
    "key that is none, keyword-only": (KeywordOnly(), {"x": X, "scale": 2.0}, "x", "scale", (),
                                       {"pixel_values": X, "scale": 2.0}, X),
    "the first, keyword-only": (Optional(), X, None, None, (), {"pixels": X}, X),
    "open-ended": (Anything(), {"a": X}, "a", None, (), {"a": X}, X),
    "whole, open-ended": (Anything(), {"a": X, "labels": Z, "name": "n"}, None, None, (), {"a": X}, {"a": X}),
    "wrapped forward": (Wrapped(), {"image": X, "label": Z}, "image", None, (), {"image": X}, X),
    "whole, wrapped": (Wrapped(), {"image": X, "label": Z}, None, None, (), {"image": X}, {"image": X}),
    "positional only": (Positional(), {"image": X, "meta": Y}, "image", "meta", (X, Y), {}, X),
    "more than forward names": (Positional(), (X, Y, Z), (0, 1, 2), None, (X, Y, Z), {}, (X, Y, Z)),
    "whole mapping": (Bert(), {"inputs_embeds": X, "attention_mask": Z, "labels": Z, "idx": Z}, None, None, (),
                      {"inputs_embeds": X, "attention_mask": Z}, {"inputs_embeds": X}),
    "ids alone": (Bert(), BatchEncoding({"input_ids": Z, "attention_mask": Z}), None, "attention_mask", (),
                  {"input_ids": Z, "attention_mask": Z}, {"input_ids": Z}),
    "batch encoding": (Bert(), BatchEncoding({"input_ids": Z, "attention_mask": Z}), "input_ids", ["attention_mask"],
                       (), {"input_ids": Z, "attention_mask": Z}, Z),
    "dataclass": (Two(), Batch(X, Z), None, None, (), {"image": X}, {"image": X}),
    "dataclass by name": (One(), Batch(X, Z), "image", None, (X,), {}, X),
    "namedtuple": (One(), Pair(X, Z), "image", None, (X,), {}, X),
    "namedtuple by position": (Two(), Pair(X, Z), 0, 1, (X, Z), {}, X),
    "whole namedtuple": (Two(), Pair(X, Z), None, None, (), {"image": X}, {"image": X}),
    "namedtuple with other names": (Pairs(), Pair(X, Y), None, None, (X, Y), {}, (X, Y)),
    "the rest of a namedtuple": (Two(), Triple(X, Z, Y), None, "meta", (), {"image": X, "meta": Y}, {"image": X}),
    "the rest of a namedtuple by position": (Two(), Pair(X, Y), None, 1, (X, Y), {}, (X,)),
    "the rest of a namedtuple with other names": (Pairs(), Triple(X, Z, Y), None, "target", (X, Y, Z), {}, (X, Y)),
    "namedtuple without what is required": (MaskedModel(), Masked(X, Y), None, None, (X, Y), {}, (X, Y)),
    "namedtuple without what goes by position alone": (OnePositional(), Masked(X, Y), None, None, (X, Y), {}, (X, Y)),
    "namedtuple of which a part is taken under another name": (Two(), Masked(X, Y), None, Keywords({"meta": "mask"}),
                                                               (), {"image": X, "meta": Y}, {"image": X}),
    "namedtuple, and all that is required": (MaskedModel(), Masked(X, Y), None, Keywords({"x": "image"}), (),
                                             {"mask": Y, "x": X}, {"mask": Y}),
    "namedtuple, and all that is required, by position": (MaskedModel(), Masked(X, Y), None, "image", (X,),
                                                          {"mask": Y}, {"mask": Y}),
    "namedtuple with one name, which is taken": (MayBeMasked(), Masked(X, Y), None, "mask", (X,), {"mask": Y}, (X,)),
    "namedtuple, any keyword": (Anything(), Masked(X, Y), None, None, (), {"image": X, "mask": Y}, {"image": X}),
    "namedtuple of one, anything": (AnyAtAll(), namedtuple("Only", "image")(X), None, None, (X,), {}, (X,)),
    "callable": (One(), {"deep": [X, Y]}, lambda batch: batch["deep"][0], None, (X,), {}, X),
    "callable for several": (Two(), (X, Y), lambda batch: batch, None, (X, Y), {}, (X, Y)),
    "callable by keyword": (Two(), (X, Y), lambda batch: {"image": batch[0]}, lambda batch: {"meta": batch[1]}, (),
                            {"image": X, "meta": Y}, {"image": X}),
    "Keywords": (Bert(), (Z, X), Keywords({"inputs_embeds": 1}), Keywords({"attention_mask": 0}), (),
                 {"inputs_embeds": X, "attention_mask": Z}, {"inputs_embeds": X}),
    "Items": (Two(), (Z, X, Y), Items((1, 2)), None, (X, Y), {}, (X, Y)),
    "the rest but Items": (Two(), (X, Y), None, Items((1,)), (X, Y), {}, (X,)),
    "the rest but Item": (Two(), (X, Y), None, Item(1), (X, Y), {}, (X,)),
    "the rest but Keywords": (Bert(), {"inputs_embeds": X, "input_ids": Y}, None, Keywords({"labels": "input_ids"}), (),
                              {"inputs_embeds": X, "labels": Y}, {"inputs_embeds": X}),
    "a part by keyword in a list": (Two(), (X, Y), [0], [Keywords({"meta": 1})], (X,), {"meta": Y}, (X,)),
    "a mapping in a list": (Bert(), (X, Z), [lambda b: {"inputs_embeds": b[0]}],
                            [lambda b: {"attention_mask": b[1]}, lambda b: {}], (),
                            {"inputs_embeds": X, "attention_mask": Z}, (X,)),
    "a state in a list": (Two(), (X, Y), [0], [lambda b: (b[1], b[1])], (X, (Y, Y)), {}, (X,)),
    "a callable that finds nothing": (Two(), (X, Y), [0], [lambda b: None], (X, None), {}, (X,)),
    "nothing goes along": (Two(), (X, Y), 0, [], (X,), {}, X),
    "the same twice": (Two(), (X, Y), 0, [0], (X, X), {}, X),
    "shared": (Two(), {"image": X, "meta": Y}, "image", Shared("meta"), (), {"image": X, "meta": Y}, X),
    "the rest but what is shared": (Two(), {"image": X, "meta": Y}, None, [Shared("meta")], (),
                                    {"image": X, "meta": Y}, {"image": X}),
    "any keyword": (AnyKeyword(), {"x": X, "mask": Y}, "x", ["mask"], (), {"x": X, "mask": Y}, X),
    "any keyword beside a part of another name": (AnyKeyword(), {"image": X, "bias": Y}, "image", ["bias"], (X,),
                                                  {"bias": Y}, X),
    "any keyword is explained": (AnyKeyword(), {"x": X, "image": Y}, ["x", "image"], None, (),
                                 {"x": X, "image": Y}, (X, Y)),
    "any keyword, explained beside an argument": (AnyKeyword(), {"x": X, "image": Y}, "image", "x", (),
                                                  {"image": Y, "x": X}, Y),
    "another name before arguments that are named": (HuggingFace(), {"ids": Z, "attention_mask": Z}, "ids",
                                                     ["attention_mask"], (Z,), {"attention_mask": Z}, Z),
    "other names for all arguments": (HuggingFace(), {"ids": Z, "extra": X, "mask": Y}, ["ids", "mask"], "extra",
                                      (Z, Y), {"extra": X}, (Z, Y)),
    "named by Keywords": (HuggingFace(), {"ids": Z, "mask": Y}, "ids", Keywords({"attention_mask": "mask"}), (Z,),
                          {"attention_mask": Y}, Z),
    "lists": (Two(), {"image": X, "meta": [3, 4]}, "image", "meta", (), {"image": X, "meta": [3, 4]}, X),
    "None goes along": (Two(), (X, None), 0, 1, (X, None), {}, X),
    "a label that an extractor names": (Bert(), {"inputs_embeds": X, "labels": Z}, "inputs_embeds", "labels", (),
                                        {"inputs_embeds": X, "labels": Z}, X),
}


@pytest.mark.parametrize("model, batch, forward, additional, args, kwargs, explained", CALLS.values(), ids=CALLS)
def test_call(model, batch, forward, additional, args, kwargs, explained):
    call = extract(model, batch, forward, additional)
    assert same(call.args, args)
    assert same(call.kwargs, kwargs)
    assert same(call.forward, explained)
    assert type(call.forward) is type(explained)
    model(*call.args, **call.kwargs)  # Python itself takes it


@pytest.mark.parametrize("name", sorted(LABELS))
def test_labels_do_not_reach_even_a_model_that_takes_anything(name):
    call = extract(Anything(), {"x": X, name: Z.float()})
    assert list(call.kwargs) == ["x"]


def test_labels_in_second_place_do_not_reach_a_model_that_can_do_without():
    seen = []

    class Trained(nn.Linear):
        def forward(self, x, labels=None):
            seen.append(labels)
            return super().forward(x)

    model = Trained(3, 2)
    (found,) = pnpx.Gradient(model).attribute((X, Z), 1)
    torch.testing.assert_close(found, model.weight[1].detach().expand(2, 3))
    assert seen and all(labels is None for labels in seen)


@pytest.mark.parametrize("batches", [
    lambda x, y: Named(x, y), lambda x, y: (x, y), lambda x, y: DataLoader(TensorDataset(x, y), batch_size=2),
], ids=["named tuple", "tuple", "loader"])
def test_labels_do_not_reach_an_argument_that_a_model_can_do_without(batches):
    seen = []

    class Weighs(nn.Linear):
        def forward(self, ids, weight=None):
            seen.append(weight)
            return super().forward(ids)

    found = pnpx.Gradient(Weighs(3, 2)).explain
    if not isinstance(batches(X, Z), Named):
        with pytest.raises(TypeError, match="whether its part 1, counted from 0, is the argument 'weight' or a label"):
            list(found(batches(X, Z), 1))
    else:
        assert found(batches(X, Z), 1).attributions["ids"].shape == X.shape
    assert all(weight is None for weight in seen)


def test_a_padding_mask_in_a_named_tuple_is_no_argument_that_must_be_said():
    steps = torch.ones(2, 3, dtype=torch.bool)
    call = extract(Two(), Masked(X, steps), padding_mask="mask")
    assert same(call.kwargs, {"image": X}) and call.args == () and torch.equal(call.steps, steps)


def test_what_is_advised_for_a_named_tuple_explains_it():
    for advised, names in (("mask", ["mask"]), (Keywords({"x": "image", "mask": "mask"}), ["x", "mask"])):
        assert list(extract(MayBeMasked(), Masked(X, Y), advised).kwargs) == names


def test_what_the_model_does_not_run_without_is_no_label():
    class Both(nn.Module):
        def forward(self, x, y):
            return x

    for batch in ((X, Y), {"x": X, "y": Y}):
        call = extract(Both(), batch)
        assert len(call.values) == 2
        Both()(*call.args, **call.kwargs)


def test_a_packed_sequence_is_one_input():
    sequence = pack_sequence([torch.ones(2, 1), torch.zeros(1, 1)])
    for batch, forward in ((sequence, None), ({"x": sequence}, "x"), ((sequence, Z), 0), (sequence, lambda b: b)):
        call = extract(One(), batch, forward)
        assert call.batch_size == 2 and len(call.values) == 1
        (value,) = [*call.args, *call.kwargs.values()]
        assert isinstance(value, PackedSequence) and torch.equal(value.data, sequence.data)


@pytest.mark.parametrize("forward", ["state", 0])
def test_one_argument_that_is_itself_a_tuple_or_a_mapping(forward):
    class State(nn.Module):
        def forward(self, state):
            return state

    for state in ((X, Y), [X, Y], {"h": X, "c": Y}):
        batch = {"state": state} if forward == "state" else (state,)
        call = extract(State(), batch, forward)
        assert same(State()(*call.args, **call.kwargs), state)
        assert call.batch_size == 2
        assert same(call.with_values(call.values).forward, state)


def test_with_values_keeps_places():
    call = extract(Two(), {"image": X, "meta": Y}, ("image", "meta"))
    other = call.with_values([2 * X, 3 * Y])
    assert same(other.kwargs, {"image": 2 * X, "meta": 3 * Y}) and same(call.kwargs, {"image": X, "meta": Y})
    call = extract(Bert(), {"inputs_embeds": X, "attention_mask": Z})
    assert same(call.with_values([2 * X]).kwargs, {"inputs_embeds": 2 * X, "attention_mask": Z})


def test_arrays_become_tensors_of_the_models_precision():
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        model = nn.Linear(3, 2, dtype=dtype)
        assert extract(model, np.ones((2, 3))).args[0].dtype == dtype
        assert extract(model, (np.ones((2, 3), np.float16), [np.arange(2)])[0]).args[0].dtype == dtype
    call = extract(Two(), (np.arange(6).reshape(2, 3), np.ones(2)), 0, 1)
    assert call.args[0].dtype == torch.int64 and call.args[1].dtype == torch.float64  # no parameters: as they are
    call = extract(Bert(), {"inputs_embeds": np.ones((2, 3)), "input_ids": np.arange(2), "attention_mask": [1, 1]})
    assert isinstance(call.kwargs["inputs_embeds"], torch.Tensor) and isinstance(call.kwargs["input_ids"], torch.Tensor)
    assert call.kwargs["attention_mask"] == [1, 1]


def test_masked_arrays_are_refused():
    masked = np.ma.masked_array(np.ones((2, 3), dtype=np.float32), mask=[[0, 1, 0], [0, 0, 0]])
    message = (
        "a masked array is among what the model is to be given, but tensors have no masks; fill it first, by "
        "array.filled(value)"
    )
    for batch in (masked, (masked,)):
        with raises(TypeError, message):
            pnpx.Gradient(nn.Linear(3, 2), forward_arg_extractor=0 if batch is not masked else None).attribute(batch, 0)
    for along in (masked, [masked], {"rows": {"a": masked}}):
        with raises(TypeError, message):
            extract(Two(), (X, along), 0, 1)
    with raises(TypeError, message.replace("the model is to be given", "padding_mask_extractor takes")):
        extract(One(), (X, np.ma.masked_array(np.ones((len(X), 4)), mask=False)), 0, padding_mask=1)


@pytest.mark.parametrize("array", [np.array(["a", "b"]), np.array([{"a": 1}, None], dtype=object),
                                   np.array(["2020-01-01", "2020-01-02"], dtype="datetime64[D]")], ids=["str", "object",
                                                                                                        "datetime"])
def test_arrays_that_are_no_numbers_go_along_as_they_are(array):
    call = extract(Two(), (X, array), 0, 1)
    assert isinstance(call.args[1], np.ndarray) and call.args[1].tolist() == array.tolist()
    with pytest.raises(TypeError, match="the forward arguments must hold a tensor, but are ndarray of "):
        extract(One(), array)


@pytest.mark.parametrize("dtype", [">f4", "<f4", ">i8", np.longdouble, np.bool_, np.uint8])
def test_arrays_of_any_kind_of_number(dtype):
    values = np.array([[0, 1, 1], [1, 0, 0]], dtype=dtype)
    assert extract(One(), values).args[0].tolist() == values.tolist()


def test_the_names_in_extractors():
    extractor = [0, Shared(["a", Shared(1)]), Items((2, "b")), Keywords({"x": "c"}), len]
    assert named_by(extractor) == {0, "a", 1, 2, "b", "c"} and named_by(extractor, shared=True) == {"a", 1}
    assert named_by(None) == named_by(len) == set()
    assert Shared(["a", lambda b: b["c"]])({"a": 1, "c": 2}) == (1, 2)
    assert repr(Shared("weights")) == "Shared(extractor='weights')"


class Weighted(nn.Module):
    """Scores weighted by class, and a shift that each sample has of its own: both go along."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.linear = nn.Linear(4, 6, dtype=torch.float64)

    def forward(self, x, weights=None, shift=0.0, positions=None):
        if positions is not None:
            x = x * (1 + positions)
        return (self.linear(x).sin() + shift[:, None]) * weights


@pytest.mark.parametrize("layer", [None, "linear"])
@pytest.mark.parametrize("batch_size", [1, 2, 4, 32])
def test_what_all_samples_share_is_whole_in_every_piece(layer, batch_size):
    """As many classes as samples: weights (6,), and a shift (6,) that is cut; positions (1, 4) beside them."""
    model, x = Weighted(), torch.randn(6, 4, dtype=torch.float64)
    weights, shift = torch.arange(1.0, 7.0, dtype=torch.float64), torch.randn(6, dtype=torch.float64)
    batch = {"x": x, "weights": weights, "shift": shift, "positions": torch.arange(4.0)[None].double()}
    explainer = pnpx.SmoothGrad(model, layer=layer, noise_std=0.1, n_iter=4, batch_size=batch_size,
                                forward_arg_extractor="x",
                                additional_forward_arg_extractor=["shift", "positions", Shared("weights")])
    whole = pnpx.SmoothGrad(model, layer=layer, noise_std=0.1, n_iter=4, batch_size=999, forward_arg_extractor="x",
                            additional_forward_arg_extractor=["shift", "positions", Shared("weights")])
    torch.testing.assert_close(explainer.attribute(batch, 2), whole.attribute(batch, 2))
    gradient = pnpx.Gradient(model, forward_arg_extractor="x", batch_size=batch_size,
                             additional_forward_arg_extractor=["shift", "positions", Shared("weights")])
    inputs = x.clone().requires_grad_()
    model(inputs, weights, shift, batch["positions"])[:, 2].sum().backward()
    torch.testing.assert_close(gradient.attribute(batch, 2), inputs.grad)


class Lengths(nn.Module):
    """Sequences (batch, 5, 3), of which each has a length and weights, (length,), of its own: both go along."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.inner, self.outer, self.flat = nn.Linear(3, 6), nn.Linear(6, 4), nn.Flatten(0, 1)
        self.double()

    def forward(self, x, lengths, weights=None, size=(1.0, 2.0)):
        assert type(lengths) in (list, tuple) and len(lengths) == len(x)
        hidden = torch.tanh(self.inner(self.flat(x))).unflatten(0, x.shape[:2])
        parts = []
        for row, (steps, length) in enumerate(zip(hidden, lengths, strict=True)):
            weight = torch.ones(length, 1) if weights is None else weights[row][:, None]
            parts.append((steps[:length] * weight).mean(0) * size[0] + size[1])
        return self.outer(torch.stack(parts))


@pytest.mark.parametrize("extractor", [("x", ["lengths"]), ("x", ["lengths", "weights"]), ("lengths", None)], ids=str)
@pytest.mark.parametrize("kind", [list, tuple])
@pytest.mark.parametrize("layer", [None, "inner", "flat", "outer:input"])
@pytest.mark.parametrize("batch_size", [1, 3, 4, 32])
@pytest.mark.parametrize("size", [1, 2, 4, 7])
def test_lists_with_an_entry_a_sample_are_cut_and_repeated_with_the_batch(size, batch_size, layer, kind, extractor):
    model, x = Lengths(), torch.randn(size, 5, 3, dtype=torch.float64)
    lengths = kind([1 + 3 * row % 5 for row in range(size)])
    weights = [torch.arange(1.0, length + 1).double() for length in lengths]
    batch = {"x": x, "lengths": lengths, "weights": weights}
    forward, additional = extractor
    if forward == "lengths":  # what is explained may hold a list as well
        forward = ["x", "lengths"]
    with_weights = additional is not None and "weights" in additional
    extractors = {"forward_arg_extractor": forward, "additional_forward_arg_extractor": additional}
    explainer = pnpx.SquareGrad(model, layer=layer, noise_std=0.1, n_iter=4, batch_size=batch_size, **extractors)
    whole = pnpx.SquareGrad(model, layer=layer, noise_std=0.1, n_iter=4, batch_size=size, replay=False, **extractors)
    torch.testing.assert_close(explainer.attribute(batch, 2), whole.attribute(batch, 2))
    if layer is not None:
        return
    found = pnpx.Gradient(model, batch_size=batch_size, **extractors).attribute(batch, 2)
    inputs = x.clone().requires_grad_()
    model(inputs, lengths, weights if with_weights else None)[:, 2].sum().backward()
    torch.testing.assert_close(found[0] if isinstance(found, tuple) else found, inputs.grad)


def test_a_list_is_shared_if_it_is_marked():
    """Two samples and a size of two numbers, which is no value for each of them."""
    model, x = Lengths(), torch.randn(2, 5, 3, dtype=torch.float64)
    batch = {"x": x, "lengths": [2, 5], "size": (3.0, 4.0)}
    inputs = x.clone().requires_grad_()
    model(inputs, [2, 5], size=(3.0, 4.0))[:, 1].sum().backward()
    for batch_size in (1, 2, 32):
        explainer = pnpx.Gradient(model, batch_size=batch_size, forward_arg_extractor="x",
                                  additional_forward_arg_extractor=["lengths", Shared("size")])
        torch.testing.assert_close(explainer.attribute(batch, 1), inputs.grad)


def test_a_model_may_change_the_lists_that_it_is_given():
    class Pops(nn.Module):
        def forward(self, x, shifts):
            shifts[0].mul_(0)
            return torch.stack([row + shifts.pop(0) for row in x]) ** 2

    x, shifts = torch.ones(3, 2), [torch.tensor([1.0, row]) for row in range(3)]
    before = [shift.clone() for shift in shifts]
    explainer = pnpx.SmoothGrad(Pops(), noise_std=0.0, n_iter=3, forward_arg_extractor=0,
                                additional_forward_arg_extractor=1, batch_size=3)
    expected = torch.tensor([[0.0, 2.0], [0.0, 4.0], [0.0, 6.0]])
    torch.testing.assert_close(explainer.attribute((x, shifts), 1), expected)
    assert len(shifts) == 3 and all(map(torch.equal, shifts, before))


@pytest.mark.parametrize("value, found", [
    ([1, 2, 3], True), ((1.5, "a", None), True), ([None, None, None], False), ([1, 2], False), ([], False),
    ([torch.ones(2), torch.ones(4), torch.ones(3)], False),
    ([torch.ones(2), torch.ones(2), torch.ones(2)], True),
    ([torch.ones(5, 3, 2), torch.ones(1, 3, 2), torch.ones(2, 3, 2)], False),  # states of several layers
    ([torch.ones(3, 2), torch.ones(3, 2), torch.ones(3, 2)], False),
    ([torch.ones(5, 3, 2), torch.ones(5, 3, 2), torch.ones(5, 3, 4)], False),
    ([{"boxes": torch.ones(7, 4)}, {"boxes": torch.ones(0, 4)}, {"boxes": torch.ones(1, 4)}], True),
    ([np.ones((2, 1)), np.ones((5, 1)), np.ones((4, 1))], True), ([[1, 2], [3], []], True),
], ids=str)
def test_which_lists_have_an_entry_a_sample(value, found):
    assert is_by_sample(value, 3) is found


@pytest.mark.parametrize("lengths, found", [
    ([5, 4, 2, 7], True),  # one happens to be as long as the batch is large
    ([5, 4, 2, 4], False), ([4, 4, 4, 4], False), ([5, 1, 2, 7], True),
])
def test_which_lists_of_sequences_have_one_a_sample(lengths, found):
    assert is_by_sample([torch.ones(length, 2) for length in lengths], 4) is found
    assert is_by_sample(tuple(torch.ones(length, 2) for length in lengths), 4) is (4 not in lengths)
    assert not is_by_sample([*(torch.ones(length, 2) for length in lengths[:3]), torch.ones(4, 3)], 4)


@pytest.mark.parametrize("extractor", [1, [Shared(1)]])
def test_a_batch_of_as_many_parts_as_samples_is_cut_part_by_part(extractor):
    """Two samples and a table, which the scores are given as well."""
    class Looks(nn.Module):
        def forward(self, x, table):
            return x @ table.T

    x, table = torch.randn(2, 4), torch.randn(5, 4)
    seen = []

    def target(output, batch):
        seen.append([tuple(part.shape) for part in batch])
        return output[:, 1] * batch[1].sum()

    explainer = pnpx.Gradient(Looks(), forward_arg_extractor=0, batch_size=1,
                              additional_forward_arg_extractor=extractor)
    torch.testing.assert_close(explainer.attribute((x, table), target), table[1].expand(2, 4) * table.sum())
    assert seen == [[(1, 4), (5, 4)]] * len(seen)


def test_what_fails_in_a_piece_says_that_it_was_one():
    """Nodes of a graph, whose edges name all of them: they cannot be cut."""
    class Graph(nn.Module):
        def forward(self, x, edges):
            return x.index_add(0, edges[1], x[edges[0]])

    nodes, edges = torch.ones(5, 2), torch.tensor([[0, 4, 3], [1, 2, 0]])
    explainer = pnpx.Gradient(Graph(), forward_arg_extractor=0, additional_forward_arg_extractor=1, batch_size=3)
    with pytest.raises(IndexError) as found:
        explainer.attribute((nodes, edges), 0)
    said = "".join([str(found.value), *getattr(found.value, "__notes__", [])])
    assert "samples 0 to 2 of 5 were explained when this happened" in said and "batch_size must be as large as" in said
    assert explainer.attribute((nodes[:2], edges[:, :0]), 0).shape == (2, 2)


def test_as_many_rows_in_a_table_as_in_the_last_piece():
    """Ten samples in pieces of four, the last of two; weights (2, 6) have no axis of the batch there either."""
    model, x = Weighted(), torch.randn(10, 4, dtype=torch.float64)

    class Table(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = model

        def forward(self, x, table):
            assert table.shape == (2, 6), "the table was cut or repeated"
            return self.inner.linear(x).sin() * table.sum(0)

    table = torch.randn(2, 6, dtype=torch.float64)
    for layer in (None, "inner.linear"):
        found = pnpx.SmoothGrad(Table(), layer=layer, n_iter=6, batch_size=4, forward_arg_extractor=0,
                                additional_forward_arg_extractor=1).attribute((x, table), 1)
        whole = pnpx.SmoothGrad(Table(), layer=layer, n_iter=6, batch_size=99, forward_arg_extractor=0,
                                additional_forward_arg_extractor=1).attribute((x, table), 1)
        torch.testing.assert_close(found, whole)


def test_positions_of_sequences_as_long_as_the_batch_is_large():
    """(1, length) with as many samples as steps: no axis of the batch, without a word."""
    model, x = Weighted(), torch.randn(4, 4, dtype=torch.float64)
    batch = {"x": x, "weights": torch.ones(6).double(), "shift": torch.zeros(4).double(),
             "positions": torch.arange(4.0)[None].double()}
    along = ["weights", "shift", "positions"]
    found = pnpx.Gradient(model, forward_arg_extractor="x", batch_size=3,
                          additional_forward_arg_extractor=along).attribute(batch, 1)
    inputs = x.clone().requires_grad_()
    model(inputs, batch["weights"], batch["shift"], batch["positions"])[:, 1].sum().backward()
    torch.testing.assert_close(found, inputs.grad)


def test_a_target_function_is_given_shared_parts_whole():
    model, x, weights = nn.Linear(4, 6).double(), torch.randn(6, 4, dtype=torch.float64), torch.randn(6).double()

    def weighted(output, batch):
        return (output * batch["weights"]).sum(1)

    class Loose(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = model

        def forward(self, x, weights):
            return self.inner(x).tanh()

    found = pnpx.Gradient(Loose(), batch_size=4, forward_arg_extractor="x",
                          additional_forward_arg_extractor=Shared("weights")).attribute(
                              {"x": x, "weights": weights}, weighted)
    inputs = x.clone().requires_grad_()
    (model(inputs).tanh() * weights).sum().backward()
    torch.testing.assert_close(found, inputs.grad)


@pytest.mark.parametrize("batches", [
    lambda x: (x[i : i + 2] for i in (0, 2)), lambda x: iter([x[:2], x[2:]]), lambda x: map(torch.clone, x.split(2)),
], ids=["generator", "list iterator", "map"])
def test_batches_from_any_iterator(batches):
    x, explainer = torch.randn(4, 3), pnpx.Gradient(nn.Linear(3, 2))
    found = list(explainer.explain(batches(x), 1))
    torch.testing.assert_close(torch.cat([one.attributions for one in found]), explainer.attribute(x, 1))
    with pytest.raises(TypeError, match=r"attribute takes one batch, but got a .*; use explain, which goes through"):
        explainer.attribute(batches(x), 1)


def test_arrays_are_copied():
    array = np.ones((2, 3))[::-1]  # negative strides
    array.flags.writeable = False
    found = extract(One(), array).args[0]
    found.zero_()
    assert array.all()


def test_tensors_keep_their_precision_and_the_graph_of_the_user_is_left_out():
    x = torch.ones(2, 3, dtype=torch.float64, requires_grad=True)
    found = extract(nn.Linear(3, 2), 2 * x).args[0]
    assert found.dtype == torch.float64 and not found.requires_grad


def test_inputs_made_in_inference_mode_can_take_part():
    with torch.inference_mode():
        x = torch.ones(2, 3)
    found = extract(One(), x).args[0]
    assert not found.is_inference() and torch.equal(found, x)


@pytest.mark.parametrize("batch, forward, size", [
    (X, None, 2), ((X,), None, 2), ({"image": torch.ones(5, 1), "meta": torch.ones(5, 2)}, None, 5), ((X, Z), 0, 2),
])
def test_batch_size(batch, forward, size):
    model = Two() if forward is None else One()
    assert extract(model, batch, forward).batch_size == size


@pytest.mark.parametrize("forward, kind, message", [
    ((X, torch.ones(3, 1)), ValueError,
     "several inputs must have the same batch size, their first axis, but their shapes are (2, 3), (3, 1); let what "
     "has no batch axis go along: additional_forward_arg_extractor"),
    (torch.tensor(1.0), ValueError,
     "inputs need a batch axis, but a tensor of no axes was given; did you mean x[None]?"),
    (torch.ones(0, 3), ValueError, "the batch is empty: its first axis has size 0; give at least one sample"),
    (("a", 3), TypeError, "the forward arguments must hold a tensor, but are (str 'a', int 3)"),
    ({"a": None}, TypeError, "the forward arguments must hold a tensor, but are {'a': NoneType}"),
])
def test_no_batch_size(forward, kind, message):
    count = len(forward) if isinstance(forward, (tuple, dict)) else 1
    with raises(kind, message):
        Call(forward, (None,) * count).batch_size  # noqa: B018


@pytest.mark.parametrize("model, batch, forward, additional, kind, message", [
    (One(), (X, Z), None, None, TypeError,
     "the batch has 2 parts, but the model's forward takes 1 (x); say which part is explained: "
     "forward_arg_extractor=0"),
    (Two(), (X, Z), None, None, TypeError,
     "the batch has 2 parts, and Two.forward requires 1 argument ('image'); whether its part 1, counted from 0, is the "
     "argument 'meta' or a label must be said: forward_arg_extractor=0, or forward_arg_extractor=(0, 1)"),
    (Pairs(), [X, Y, Z], None, None, TypeError,
     "the batch has 3 parts, and Pairs.forward requires 2 arguments ('left', 'right'); whether its part 2, counted "
     "from 0, is the argument 'scale' or a label must be said: forward_arg_extractor=(0, 1), or "
     "forward_arg_extractor=(0, 1, 2)"),
    (HuggingFace(), Named(X, Z), None, None, TypeError,
     "the batch has 2 parts, and HuggingFace.forward requires no arguments; whether its part 1, counted from 0, is "
     "the argument 'attention_mask' or a label must be said: forward_arg_extractor=0, or forward_arg_extractor=(0, 1)"),
    (AnyAtAll(), Masked(X, Y), None, None, TypeError,
     "the batch has 2 parts, and AnyAtAll.forward requires no arguments; whether its part 1, counted from 0, is one "
     "more argument or a label must be said: forward_arg_extractor=0, or forward_arg_extractor=(0, 1)"),
    (MayBeMasked(), Masked(X, Y), None, None, TypeError,
     "the Masked as batch has no part for the argument 'x' of MayBeMasked.forward; whether its part 'image' is that "
     "argument or a label must be said: forward_arg_extractor='mask', or "
     "forward_arg_extractor=Keywords({'x': 'image', 'mask': 'mask'})"),
    (Bert(), namedtuple("Rows", "input_ids attention_mask row")(Z, Z, Z), None, None, TypeError,
     "the Rows as batch has no part for the argument 'inputs_embeds' of Bert.forward; whether its part 'row' is that "
     "argument or a label must be said: forward_arg_extractor=('input_ids', 'attention_mask'), or "
     "forward_arg_extractor=Keywords({'inputs_embeds': 'row', 'input_ids': 'input_ids', "
     "'attention_mask': 'attention_mask'})"),
    (Positional(), (X, Z, Y), None, 2, TypeError,
     "the batch has 3 parts, and Positional.forward requires 1 argument ('image'); whether its part 1, counted from 0, "
     "is one more argument or a label must be said: forward_arg_extractor=0, or forward_arg_extractor=(0, 1)"),
    (Trained(), (X, Z, Y), None, None, TypeError,
     "the batch has 3 parts, and Trained.forward requires 1 argument ('x'); whether its part 2, counted from 0, is the "
     "argument 'weight' or a label must be said: forward_arg_extractor=0, or "
     "forward_arg_extractor=Keywords({'x': 0, 'weight': 2})"),
    (Two(), (X,), None, 7, LookupError, "the batch has 1 parts, counted from 0: there is no part 7"),
    (Two(), {"x": X, "labels": Z}, None, None, TypeError,
     "none of the batch's parts ('x', 'labels') is a forward argument of the model (image, meta); say which part is "
     "explained: forward_arg_extractor"),
    (KeywordOnly(), (X, Z), None, None, TypeError,
     "the batch has 2 parts, but the model's forward takes 1 (by keyword: pixel_values, scale, labels); say which part "
     "is explained: forward_arg_extractor=0"),
    (KeywordOnly(), (X, Y), 0, 1, TypeError,
     "KeywordOnly.forward takes its arguments by keyword alone (pixel_values, scale, labels), but got 2 without; give "
     "them by extractors that return a mapping: forward_arg_extractor=lambda batch: {argument: part}"),
    (Anything(), X, None, None, TypeError,
     "Anything.forward takes its arguments by keyword alone (**), but got 1 without; give them by extractors that "
     "return a mapping: forward_arg_extractor=lambda batch: {argument: part}"),
    (One(), SimpleNamespace(n=3, y=Z, pixels=X), None, None, TypeError,
     "a batch must be a tensor, an array, a tuple, a list, a mapping or a dataclass, but is SimpleNamespace, whose "
     "'pixels' holds tensors; say which part is explained: forward_arg_extractor='pixels'"),
    (One(), SimpleNamespace(n=3), None, None, TypeError,
     "the forward arguments must hold a tensor, but are SimpleNamespace"),
    (One(), X, True, None, TypeError,
     "forward_arg_extractor must be an int, a str, a sequence of them, or a callable, but is True"),
    (One(), X, None, 1.5, TypeError,
     "additional_forward_arg_extractor must be an int, a str, a sequence of them, or a callable, but is 1.5"),
    (One(), {"image": X}, "img", None, LookupError, "the batch has no part 'img'; the nearest: 'image'"),
    (Two(), {"image": X, "meta": Y}, "image", ["image"], ValueError,
     "the forward argument 'image' is taken twice, to be explained and to go along; leave it out of "
     "additional_forward_arg_extractor"),
    (Bert(), {"inputs_embeds": X, "attention_mask": Y}, None, Keywords({"inputs_embeds": "attention_mask"}), ValueError,
     "the forward argument 'inputs_embeds' is taken twice, to be explained and to go along; leave it out of "
     "additional_forward_arg_extractor"),
    (One(), (X, Y), [], None, TypeError,
     "forward_arg_extractor must take what is explained, but takes nothing: it is empty"),
    (One(), (X, Y), lambda b: {}, None, TypeError,
     "forward_arg_extractor must take what is explained, but takes nothing: it is empty"),
    (One(), (X, Y), lambda b: None, None, TypeError, "the forward arguments must hold a tensor, but are NoneType"),
    (Two(), (X, Y), [lambda b: None, lambda b: np.array(["a"])], None, TypeError,
     "the forward arguments must hold a tensor, but are (NoneType, ndarray of <U1)"),
    (One(), (X, Y), -3, None, LookupError, "the batch has 2 parts, counted from 0: there is no part -3"),
    (One(), (X, Y), 0, [Shared(7)], LookupError, "the batch has 2 parts, counted from 0: there is no part 7"),
    (Two(), {"image": X}, "image", Shared("metta"), LookupError,
     "the batch has no part 'metta'; there are: 'image'"),
    (One(), (X, Y), Shared(0), None, TypeError,
     "what is explained has an axis of the batch, so that Shared is for additional_forward_arg_extractor, but "
     "forward_arg_extractor is Shared(extractor=0)"),
    (Two(), {"image": X, "pad": Y}, "image", "pad", TypeError,
     "what the extractors take under no name of a forward argument goes by position, but the first 1 of them (image) "
     "would get 'image', which is taken by name, too; say which argument each part is for: "
     "pnpx.extractors.Keywords({argument: key})"),
    (HuggingFace(), {"input_ids": X, "mask": Y}, "input_ids", "mask", TypeError,
     "the model's forward has no argument 'mask', but takes any keyword, and 'attention_mask' as well; say which it "
     "is: additional_forward_arg_extractor=Keywords({argument: 'mask'})"),
    (One(), {"image": X}, "image", ["imag"], LookupError, "the batch has no part 'imag'; the nearest: 'image'"),
])
def test_errors(model, batch, forward, additional, kind, message):
    with raises(kind, message):
        extract(model, batch, forward, additional)


def test_what_is_advised_for_an_object_explains_it():
    model = nn.Linear(3, 2)
    found = pnpx.SmoothGrad(model, n_iter=2, forward_arg_extractor="x").attribute(SimpleNamespace(x=X, y=Z), 1)
    torch.testing.assert_close(found, model.weight[1].detach().expand(2, 3))


@pytest.mark.parametrize("layer", [None, "linear"])
def test_a_tensor_for_a_model_that_takes_keywords_alone(layer):
    class Scales(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(3, 2)

        def forward(self, *, scale=2.0, pixels):
            return scale * self.linear(pixels)

    model = Scales()
    found = pnpx.SmoothGrad(model, layer=layer, n_iter=3).attribute(X, 1)
    expected = 2 * model.linear.weight[1].detach().expand(2, 3) if layer is None else torch.tensor([[0.0, 2.0]] * 2)
    torch.testing.assert_close(found, expected)


def test_signature_of_each_kind_of_forward():
    assert Signature(Two()).names == Signature(Wrapped()).names == ["image", "meta"]
    assert Signature(KeywordOnly()).names == ["pixel_values", "scale", "labels"]
    assert Signature(KeywordOnly()).positional == []
    assert Signature(Positional()).names == [] and Signature(Positional()).positional == ["image"]
    assert Signature(Positional()).positional_open_ended and Signature(Anything()).open_ended
    assert Signature(Anything()).keyword("x") == "x" and Signature(Two()).keyword("x") is None


def test_a_forward_whose_signature_cannot_be_read_takes_anything():
    class Compiled(nn.Module):
        forward = dict  # a built-in has no signature

    call = extract(Compiled(), {"a": X})
    assert same(call.kwargs, {"a": X})
