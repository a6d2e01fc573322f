"""Nested values are taken apart and put together again without loss."""

from collections import OrderedDict, UserDict, namedtuple
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import pytest
import torch
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pack_sequence, pad_packed_sequence
from transformers import BatchEncoding
from transformers.modeling_outputs import BaseModelOutputWithPast, SequenceClassifierOutput

from pnpx.structure import (
    Rows,
    is_container,
    is_packed,
    items,
    map_leaves,
    map_tensors,
    mirror,
    rebuild,
    tensors,
    valid_steps,
)

Pair = namedtuple("Pair", "left right")
A, B, C = torch.tensor([1.0]), torch.tensor([2]), torch.tensor([[3.0]])


@dataclass
class Batch:
    x: torch.Tensor
    name: str
    more: Any = field(default_factory=dict)


@dataclass(frozen=True)
class Frozen:
    x: torch.Tensor


class ReadOnly(Mapping):
    """A mapping of the user's own, of which a shallow copy holds the same dict."""

    def __init__(self, data):
        self._data = data

    def __getitem__(self, key):
        return self._data[key]

    def __iter__(self):
        return iter(self._data)

    def __len__(self):
        return len(self._data)


class Writable(ReadOnly, MutableMapping):
    def __setitem__(self, key, value):
        self._data[key] = value

    def __delitem__(self, key):
        del self._data[key]


@dataclass
class Wrapped(ReadOnly):
    _data: dict


class Attributes(dict):
    def __init__(self, **items):
        super().__init__(**items)
        self.__dict__ = self


def packed(lengths=(2, 3), features=1, sort=False):
    sequences = [torch.arange(1.0, 1 + length * features).reshape(length, features) for length in lengths]
    return pack_sequence(sequences, enforce_sorted=sort)


NESTINGS = {
    "tensor": (A, [A]),
    "tuple": ((A, B), [A, B]),
    "list": ([A, [B]], [A, B]),
    "dict": ({"b": B, "a": A}, [B, A]),
    "ordered": (OrderedDict(b=B, a=A), [B, A]),
    "user dict": (UserDict(b=B, a=A), [B, A]),
    "namedtuple": (Pair(A, {"k": B}), [A, B]),
    "dataclass": (Batch(A, "n", (B, None)), [A, B]),
    "frozen dataclass": (Frozen(A), [A]),
    "batch encoding": (BatchEncoding({"input_ids": B, "mask": A}), [B, A]),
    "model output": (SequenceClassifierOutput(loss=None, logits=A, hidden_states=(B, C)), [A, B, C]),
    "lstm": ((A, (B, C)), [A, B, C]),
    "with others": ((A, None, 3, "text", {"k": [B, 1.5]}), [A, B]),
    "nothing": ((None, 3), []),
    "empty": ({}, []),
}
of_each = pytest.mark.parametrize("value, leaves", NESTINGS.values(), ids=NESTINGS)


@of_each
def test_tensors_depth_first(value, leaves):
    assert [id(leaf) for leaf in tensors(value)] == [id(leaf) for leaf in leaves]
    assert is_packed(value) == [False] * len(leaves)
    assert valid_steps(value) == [None] * len(leaves)


@of_each
def test_rebuilt_in_kind(value, leaves):
    new = [leaf + 1 for leaf in leaves]
    twin = rebuild(value, new)
    assert type(twin) is type(value)
    assert [id(leaf) for leaf in tensors(twin)] == [id(leaf) for leaf in new]
    assert [id(leaf) for leaf in tensors(value)] == [id(leaf) for leaf in leaves], "the original is left alone"
    if is_container(value):
        assert [key for key, _ in items(twin)] == [key for key, _ in items(value)]


@of_each
def test_map_is_rebuilding(value, leaves):
    for function in (map_tensors, map_leaves):
        twin = function(torch.neg, value)
        assert type(twin) is type(value)
        assert all(torch.equal(one, -other) for one, other in zip(tensors(twin), leaves, strict=True))


def test_what_is_no_tensor_is_carried_along():
    assert rebuild((A, None, 3, "text"), [B]) == (B, None, 3, "text")
    assert rebuild(Batch(A, "n", None), [B]).name == "n"
    output = rebuild(BaseModelOutputWithPast(last_hidden_state=A, past_key_values="cache"), [B])
    assert output.past_key_values == "cache" and output.last_hidden_state is B and output[0] is B


@pytest.mark.parametrize("kind", [ReadOnly, Writable, Wrapped, MappingProxyType])
def test_mappings_that_a_copy_may_share_become_dicts(kind):
    value = kind({"x": A, "more": (B, 3)})
    twin = rebuild(value, [B, A])
    assert type(twin) is dict and twin["x"] is B and twin["more"] == (A, 3)
    assert value["x"] is A and value["more"][0] is B, "the original is left alone"


def test_attributes_that_are_items_follow_them():
    value = Attributes(x=A, n=3)
    twin = rebuild(value, [B])
    assert type(twin) is Attributes and twin["x"] is B and twin.x is B and twin.n == 3
    twin.n = 4
    assert twin["n"] == 4 and value.x is A and value.n == 3


@pytest.mark.parametrize("value, expected", [
    (A, C),
    ((A, 3, "t"), (C, None, None)),
    ([A, [None]], [C, [None]]),
    (Pair(A, None), (C, None)),
    (BatchEncoding({"a": A, "n": 2}), {"a": C, "n": None}),
    (Batch(A, "n", ()), {"x": C, "name": None, "more": ()}),
    (OrderedDict(a=A), {"a": C}),
    (SequenceClassifierOutput(logits=A), {"logits": C}),
])
def test_mirror_has_plain_containers(value, expected):
    found = mirror(value, [C])
    # A named tuple is a tuple all the same, and `==` sees the tensors by identity.
    assert found == expected
    assert type(found) in (torch.Tensor, tuple, list, dict) or isinstance(found, tuple)


def test_a_packed_sequence_counts_as_one_padded_tensor():
    sequence = packed((2, 3), features=2)
    assert not is_container(sequence)
    (leaf,) = tensors((sequence,))
    assert torch.equal(leaf, torch.tensor([[[1.0, 2], [3, 4], [0, 0]], [[1, 2], [3, 4], [5, 6]]]))
    assert is_packed([A, sequence]) == [False, True]
    assert valid_steps([A, sequence])[0] is None
    assert valid_steps([A, sequence])[1].tolist() == [[True, True, False], [True, True, True]]


@pytest.mark.parametrize("sort", [False, True])
@pytest.mark.parametrize("repeats", [1, 2, 3])
def test_a_packed_sequence_is_packed_again(sort, repeats):
    lengths = (3, 2, 2) if sort else (2, 3, 1)
    sequence = packed(lengths, sort=sort)
    new = torch.randn(3 * repeats, 3, 1)
    twin = rebuild(sequence, [new], repeats)
    assert isinstance(twin, PackedSequence)
    values, found = pad_packed_sequence(twin, batch_first=True)
    assert found.tolist() == list(lengths) * repeats
    for row, length in enumerate(found.tolist()):
        assert torch.equal(values[row, :length], new[row, :length])
        assert not values[row, length:].any()
    if sort and repeats == 1:
        assert twin.sorted_indices is None


def test_rows_that_came_sorted_may_be_read_without_unsorting():
    sequence = pack_padded_sequence(torch.arange(6.0).reshape(2, 3, 1), torch.tensor([3, 1]), batch_first=True)
    twin = rebuild(sequence, tensors(sequence))
    assert torch.equal(twin.data, sequence.data)


def test_mapping_a_packed_sequence():
    sequence = packed()
    doubled = map_tensors(lambda data: 2 * data, {"s": sequence})["s"]
    assert torch.equal(doubled.data, 2 * sequence.data)
    assert torch.equal(doubled.sorted_indices, sequence.sorted_indices)
    assert map_leaves(type, (A, sequence)) == (torch.Tensor, PackedSequence)


def test_gradients_flow_through_a_repacked_sequence():
    sequence = packed((2, 3))
    values = tensors(sequence)[0].clone().requires_grad_()
    rebuild(sequence, [values]).data.square().sum().backward()
    assert torch.equal(values.grad[..., 0], torch.tensor([[2.0, 4.0, 0.0], [2.0, 4.0, 6.0]]))


def test_a_dataclass_type_is_no_container():
    assert not is_container(Batch) and tensors(Batch) == []


def test_samples_of_a_batch_are_found_along_an_axis_that_has_several_entries_of_each():
    rows = Rows((2, 0, 2), batch_size=3)
    assert rows.places(3).tolist() == [2, 0, 2]
    assert rows.places(6).tolist() == [4, 5, 0, 1, 4, 5]
    assert [rows.entries(size) for size in (3, 6)] == [3, 6]
    for ask in (rows.places, rows.entries):
        with pytest.raises(ValueError, match="an axis of 4 entries is not that of a batch of 3"):
            ask(4)
