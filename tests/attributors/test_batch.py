"""Copies of a batch, and parts of it."""

from collections import deque, namedtuple
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.nn.utils.rnn import pack_sequence, pad_packed_sequence

from pnpx.attributors.batch import arguments, repeated, rows_of, rows_of_batch, rows_of_call, rows_of_own_targets
from pnpx.attributors.repeating import axes_of, axes_seen
from pnpx.extractors import Call, batch_axes
from tests.errors import raises

X = torch.arange(6.0).reshape(3, 2)
STATE = torch.arange(12.0).reshape(2, 3, 2)  # (layers, batch, features)
Boxes = namedtuple("Boxes", "boxes labels")


@pytest.mark.parametrize("shape, size, axis", [
    ((3, 2), 3, 0), ((2, 3), 3, 1), ((3, 3), 3, 0), ((2, 3, 3), 3, None), ((4, 5), 3, None), ((), 3, None),
    ((1, 4), 1, 0), ((4, 1), 1, None), ((2, 1, 3), 1, None), ((1, 3), 3, None), ((1, 3, 2), 3, 1),
], ids=str)
def test_the_axis_of_the_batch_in_an_argument(shape, size, axis):
    assert batch_axes(torch.ones(shape), size) == [axis]
    assert batch_axes((np.ones(shape), 3), size) == [axis]
    assert batch_axes(torch.ones(shape), size, shared=True) == [None]


def test_repeated():
    table = torch.ones(5, 7)
    found = repeated({"x": X, "state": (STATE, None), "table": table, "n": 3}, 2, [0, 1, None])
    assert torch.equal(found["x"], torch.cat([X, X])) and found["n"] == 3
    assert torch.equal(found["state"][0], torch.cat([STATE, STATE], 1)) and found["state"][1] is None
    assert torch.equal(found["table"], table)
    assert torch.equal(repeated(X, 1, [0]), X) and repeated(X, 1, [0]) is not X  # a model may change it in place
    names = np.array(["a", {"b": 1}, None], dtype=object)
    assert repeated(names, 2, [0]).tolist() == [*names, *names] and repeated(names, 2, [None]).tolist() == [*names]
    packed = pack_sequence([torch.ones(2, 1), torch.ones(1, 1)])
    assert repeated(packed, 2, [0]).batch_sizes.tolist() == [4, 2]
    assert repeated(packed, 2, [None]).batch_sizes.tolist() == [2, 1]


def test_arguments_for_copies():
    call = Call((X, STATE.movedim(1, 0)), (None, "state"), (X + 1,), {"mask": X[:, 0], "scale": 2.0})
    args, kwargs = arguments(call, 2)
    assert torch.equal(args[0], torch.cat([X, X])) and torch.equal(args[1], torch.cat([X + 1, X + 1]))
    assert list(kwargs) == ["state", "mask", "scale"] and kwargs["state"].shape == (6, 2, 2) and kwargs["scale"] == 2.0
    assert torch.equal(kwargs["mask"], torch.cat([X[:, 0], X[:, 0]]))
    given = [torch.zeros(6, 2), torch.ones(6, 2, 2)]
    args, kwargs = arguments(call, 2, given)
    assert args[0] is given[0] and kwargs["state"] is given[1] and args[1].shape == (6, 2)


def test_rows():
    value = {"x": X, "state": [STATE], "y": np.arange(3), "table": torch.ones(5, 7), "name": "n"}
    found = rows_of(value, slice(1, 3), 3)
    assert torch.equal(found["x"], X[1:]) and torch.equal(found["state"][0], STATE[:, 1:])
    assert found["y"].tolist() == [1, 2] and found["table"].shape == (5, 7) and found["name"] == "n"


def test_rows_of_packed_sequences():
    sequences = [torch.ones(2, 1), torch.full((4, 1), 2.0), torch.full((3, 1), 3.0)]
    packed = pack_sequence(sequences, enforce_sorted=False)
    for rows, lengths in ((slice(0, 1), [2]), (slice(1, 3), [4, 3]), (slice(2, 3), [3])):
        values, found = pad_packed_sequence(rows_of(packed, rows, 3), batch_first=True)
        assert found.tolist() == lengths and values.shape[1] == max(lengths)
        assert values[:, 0, 0].tolist() == [1.0, 2.0, 3.0][rows]


def test_rows_of_a_call():
    call = Call({"a": X}, ("a",), (STATE,), {"mask": torch.tensor([1, 2, 3]), "flag": True})
    found = rows_of_call(call, slice(2, 3))
    assert torch.equal(found.forward["a"], X[2:]) and torch.equal(found.additional_args[0], STATE[:, 2:])
    assert found.additional_kwargs["mask"].tolist() == [3] and found.additional_kwargs["flag"] is True
    assert found.batch_size == 1


def test_what_has_the_batch_in_it_is_judged_once():
    """Two of three samples, of which there are then as many as rows in the table."""
    call = Call(X, (None,), (torch.ones(2, 5),), {"mask": X[:, 0]}, axes=(None, 0))
    part = rows_of_call(call, slice(0, 2))
    assert part.additional_args[0].shape == (2, 5) and part.additional_kwargs["mask"].shape == (2,)
    args, kwargs = arguments(part, 2)
    assert args[1].shape == (2, 5) and kwargs["mask"].shape == (4,)
    assert rows_of_call(part, slice(0, 1)).additional_args[0].shape == (2, 5)


def test_rows_of_a_batch_with_parts_that_are_shared():
    batch = {"x": X, "table": torch.ones(3, 3), "names": ["a", "b", "c"]}
    found = rows_of_batch(batch, slice(1, 3), 3, {"table"})
    assert found["x"].shape == (2, 2) and found["table"].shape == (3, 3) and found["names"] == ["b", "c"]
    found = rows_of_batch((X, torch.ones(3), X), slice(1, 3), 3, {1, -3})
    assert [len(part) for part in found] == [3, 3, 2]
    for shared in ({"labels"}, {-1}):
        found = rows_of_batch(Boxes(X, torch.ones(3)), slice(1, 3), 3, shared)
        assert type(found) is Boxes and [len(part) for part in found] == [2, 3]


def seen(value):
    """``value`` with its tensors and arrays as lists."""
    if isinstance(value, (torch.Tensor, np.ndarray)):
        return value.tolist()
    if isinstance(value, dict):
        return {key: seen(part) for key, part in value.items()}
    return [seen(part) for part in value] if isinstance(value, (list, tuple, deque, range)) else value


RAGGED = tuple(torch.ones(length, 4) for length in (3, 2, 5))
ALIKE = tuple({"boxes": torch.full((3, 4), float(number))} for number in range(3))


@pytest.mark.parametrize("targets, expected", [
    (None, None), (4, 4), ("name", "name"), (torch.tensor(4), 4), (torch.arange(3.0), [1, 2]),
    (np.arange(3.0), [1, 2]), (torch.ones(2, 3), [[1, 1, 1]] * 2), (X, X[1:]), ([4, 5, 6], [5, 6]),
    ([0.5] * 3, [0.5] * 2), ([4, 5], [4, 5]), ([[4, 5, 6], torch.arange(3)], [[5, 6], [1, 2]]), ([X, X, X], [X, X]),
    ({"a": torch.arange(3), "b": [4, 5, 6], "c": 7, "d": (4, 5, 6)}, {"a": [1, 2], "b": [5, 6], "c": 7, "d": [5, 6]}),
    ((X, 4), (X[1:], 4)), (Boxes(X, [4, 5, 6]), (X[1:], [5, 6])),
    ((torch.arange(3), [4, 5, 6], {"a": torch.arange(3)}), ([1, 2], [5, 6], {"a": [1, 2]})),
    (range(4, 7), range(5, 7)), (range(2), range(2)), ({"a": range(3)}, {"a": range(1, 3)}),
    (deque([4, 5, 6]), deque([5, 6])), (deque([4, 5]), deque([4, 5])), (deque([X, 4]), deque([X[1:], 4])),
    (deque([X, X, X]), deque([X, X])),
    ((range(3), deque([4, 5, 6]), range(3)), (range(1, 3), deque([5, 6]), range(1, 3))),
    # One for each sample ...
    (("a", "b", "c"), ["b", "c"]), (({"a": 4}, {"a": 5}, {"a": 6}), [{"a": 5}, {"a": 6}]), (ALIKE, ALIKE[1:]),
    (RAGGED, RAGGED[1:]), ((*RAGGED[:2], torch.ones(0)), (RAGGED[1], [])), (([4, 5, 6], [4], []), [[4], []]),
    ((torch.tensor(4), torch.tensor(5), torch.tensor(6)), [5, 6]),
    # ... or parts, of which some have no axis of the batch.
    ((X, X, X), (X[1:], X[1:], X[1:])), ((torch.arange(3), torch.ones(5), torch.ones(2)), ([1, 2], [1] * 5, [1] * 2)),
    ((torch.arange(3), RAGGED[2], "mean"), ([1, 2], RAGGED[2], "mean")),
    # Numbers that are for all samples.
    ((4, 5), (4, 5)), ((np.int64(4), 5.0, True, 6), (4, 5, True, 6)),
    ((4, X, np.bool_(True)), (4, X[1:], True)),
], ids=str)
def test_rows_of_the_targets_of_a_users_own_score(targets, expected):
    found = rows_of_own_targets(targets, slice(1, 3), 3)
    assert seen(found) == seen(expected)
    assert type(found) is type(targets)


@pytest.mark.parametrize("targets", [(4, 5, 6), (np.int64(4), 5.0, True)])
def test_as_many_numbers_as_samples_may_be_either(targets):
    message = (
        "a tuple of 3 numbers as the targets of 3 samples may be one for all of them, or hold one for each; give a "
        "list or a tensor of one for each, or batch_size=3"
    )
    with raises(ValueError, message):
        rows_of_own_targets(targets, slice(1, 3), 3)


def test_attributes_of_an_object_are_judged_as_targets_are():
    """A table with an axis of the batch's size is that of no batch among targets; in a batch it would be."""
    targets = SimpleNamespace(table=torch.ones(5, 3))
    assert rows_of_own_targets(targets, slice(1, 3), 3) is targets
    message = "in pieces of at most batch_size samples, but a SimpleNamespace is nothing that can be cut, and its "
    end = " has something for each of the 3; give a tuple, a mapping or a dataclass, or batch_size=3"
    with raises(TypeError, f"a function as targets is given the batch {message}'table'{end}"):
        rows_of_batch(targets, slice(1, 3), 3)
    for boxes in (torch.ones(3), [*RAGGED], (4, 5, 6), range(3), deque(RAGGED)):
        with raises(TypeError, f"a callable score is given the targets {message}'boxes'{end}"):
            rows_of_own_targets({"a": SimpleNamespace(n=3, boxes=boxes)}, slice(1, 3), 3)


@pytest.mark.parametrize("shape, size, axis", [
    ((3, 5), 3, 0), ((5, 3), 3, 1), ((3, 3), 3, 0), ((5, 3, 3), 3, None), ((4, 5), 3, None), ((1, 4), 1, 0),
    ((4, 1), 1, 1),
], ids=str)
def test_axes_by_size(shape, size, axis):
    assert axes_of((torch.ones(shape),), size) == [axis]


@pytest.mark.parametrize("shape, twin, size, axis", [
    ((3, 5), (1, 5), 3, 0), ((5, 3), (5, 1), 3, 1), ((3, 3), (3, 1), 3, 1), ((3, 3), (1, 3), 3, 0),
    ((4, 5), (4, 5), 3, None), ((12, 5), (4, 5), 3, 0), ((1, 5), (2, 5), 1, 0), ((4, 1), (4, 2), 1, 1),
    ((6, 4, 4), (6, 3, 4), 3, None),
], ids=str)
def test_axes_by_what_follows_the_batch(shape, twin, size, axis):
    assert axes_seen((torch.ones(shape), None), [torch.ones(twin), None], size) == [axis]


def test_axes_of_packed_sequences_are_the_first():
    packed = pack_sequence([torch.ones(3, 1), torch.ones(3, 1), torch.ones(3, 1)])
    assert axes_of(packed, 3) == [0] and axes_seen(packed, packed, 3) == [0]


@pytest.mark.parametrize("one, other", [((torch.ones(2, 2),), (torch.ones(2),)), ((X, X), (X,))])
def test_axes_of_other_tensors(one, other):
    with pytest.raises(ValueError):
        axes_seen(one, other, 3)
