"""A call of a model for several copies of its batch, or for some of its samples; and what a user's function is given
beside the output, for some of the samples."""

from collections import deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from numbers import Number
from typing import Any

import numpy as np
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence

from pnpx.attributors.passes import repeat
from pnpx.extractors import Call, batch_axes, is_by_sample
from pnpx.structure import (
    LEAVES,
    Entries,
    Leaf,
    Repeats,
    Rows,
    is_container,
    items,
    like,
    map_leaves,
    padded,
    rebuild,
    tensors,
)

Make = Callable[[Tensor, Repeats, int | None], Tensor]
"""Gives so many copies of a tensor along an axis, or some samples of it, or something in their place."""


def repeated(value: Any, copies: Repeats, axes: Sequence[int | None], make: Make = repeat) -> Any:
    """``value``, an argument or a structure of them, for so many copies of the batch, along the ``axes`` of its leaves.

    Or for some samples of it.

    Its tensors, as ``make`` gives them, are copies always: a model may change what it is given in place.
    """
    supply = iter(axes)

    def put(leaf: Leaf) -> Any:
        axis = next(supply)
        if isinstance(leaf, Entries):
            return leaf.repeated(copies)
        if isinstance(leaf, PackedSequence):
            return rebuild(leaf, [repeat(padded(leaf)[0], copies, axis)], 1 if axis is None else copies)
        if isinstance(leaf, np.ndarray):
            if axis is None:
                return leaf.copy()
            if isinstance(copies, Rows):
                return leaf.take(copies.places(leaf.shape[axis]).numpy(), axis)
            return np.concatenate([leaf] * copies, axis)
        return make(leaf, copies, axis)

    return map_leaves(put, value)


def copies_of(call: Call, copies: Repeats, forward: Sequence[Tensor] | None = None, make: Make = repeat) -> Call:
    """The call for so many copies of the batch, or some samples of it.

    ``forward`` are the tensors of ``call.forward``, repeated already.
    """
    size, axes = call.batch_size, _axes(call)
    values = call.values
    if forward is not None:
        supply = iter(forward)
        values = [rebuild(value, [next(supply) for _ in tensors(value)], copies) for value in values]
        values = [_with_repeated_entries(value, copies) for value in values]
    else:
        values = [repeated(value, copies, batch_axes(value, size), make) for value in values]
    extra_args, extra_kwargs = repeated(_extras(call), copies, axes, make)
    explained = call.with_values(values).forward
    return Call(explained, call.keywords, extra_args, extra_kwargs, axes=tuple(axes))


def arguments(
    call: Call, copies: Repeats, forward: Sequence[Tensor] | None = None, make: Make = repeat
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """What the model is called with for `copies_of` a call."""
    new = copies_of(call, copies, forward, make)
    return new.args, new.kwargs


def _with_repeated_entries(value: Any, copies: Repeats) -> Any:
    return map_leaves(lambda leaf: leaf.repeated(copies) if isinstance(leaf, Entries) else leaf, value)


def _extras(call: Call) -> tuple[tuple[Any, ...], dict[str, Any]]:
    return call.additional_args, dict(call.additional_kwargs)


def _axes(call: Call) -> Sequence[int | None]:
    """The axes of the batch in what goes along: as they were found for the whole batch, of which this is a part."""
    return batch_axes(_extras(call), call.batch_size) if call.axes is None else call.axes


def rows_of_batch(batch: Any, rows: slice, batch_size: int, shared: Collection[int | str] = ()) -> Any:
    """A user's ``batch`` for some of the samples: as `rows_of`, and lists with an entry a sample are cut as well.

    The parts named in ``shared`` stay as they are.

    Raises:
        TypeError: something for each sample is in an object that cannot be cut.
    """
    cut = _Cut(rows, batch_size, is_by_sample, batch_axes, "a function as targets is given the batch")
    if not is_container(batch):
        return cut.of(batch)
    whole = set(shared)
    if isinstance(batch, (list, tuple)):
        # A list of tensors is the parts of the batch, even where there are as many as samples.
        plain = all(part is None or isinstance(part, (int, float, str)) for part in batch)
        if type(batch) in (list, tuple) and plain and is_by_sample(batch, batch_size):
            return batch[rows]
        whole = {key % len(batch) for key in shared if isinstance(key, int) and batch}
        whole |= {number for number, name in enumerate(getattr(batch, "_fields", ())) if name in shared}
    return like(batch, [part if key in whole else cut.of(part) for key, part in items(batch)])


def rows_of_own_targets(targets: Any, rows: slice, batch_size: int) -> Any:
    """The targets of a user's own score for some of the samples.

    Tensors and arrays are cut whose first axis is as long as the batch is large, and lists, deques and ranges of that
    length. So are tuples of it, but for those of parts that are cut themselves, as (classes, weights): where all have
    that length, or one has and they are not of one kind. Boxes of each sample are, and a few may happen to be as many
    as the samples. A tuple with numbers is one for all samples, as a tuple of indices is; as a part of the targets it
    is not.

    Raises:
        TypeError: something for each sample is in an object that cannot be cut.
        ValueError: a tuple of as many numbers as there are samples may be one for all, or hold one for each.
    """
    cut = _Cut(rows, batch_size, _has_entries, _first_axes, "a callable score is given the targets")
    numbers = [isinstance(part, (Number, np.bool_)) for part in targets] if type(targets) is tuple else []
    if any(numbers):
        if all(numbers) and len(targets) == batch_size:
            raise ValueError(
                f"a tuple of {batch_size} numbers as the targets of {batch_size} samples may be one for all of them, "
                f"or hold one for each; give a list or a tensor of one for each, or batch_size={batch_size}"
            )
        return tuple(map(cut.of, targets))
    return cut.of(targets)


def _has_entries(value: Sequence[Any], batch_size: int) -> bool:
    """Whether a list or tuple of targets has an entry for each sample; see `rows_of_own_targets`."""
    if len(value) != batch_size or type(value) is list:
        return len(value) == batch_size
    lists = (list, tuple, deque, range)
    parts = [p for p in value if type(p) in lists or (isinstance(p, (Tensor, np.ndarray)) and p.ndim)]
    fitting = [len(part) == batch_size for part in parts]
    kinds = {(type(part), getattr(part, "ndim", 1), getattr(part, "dtype", None)) for part in parts if len(part)}
    return not any(fitting) or (len(kinds) == 1 and not all(fitting))


def _first_axes(value: Any, batch_size: int) -> list[int | None]:
    return [axis if axis == 0 else None for axis in batch_axes(value, batch_size)]


@dataclass(frozen=True)
class _Cut:
    """Cuts what a user's function is given to some of the samples."""

    rows: slice
    batch_size: int
    is_listed: Callable[[Sequence[Any], int], bool]
    """Whether a list or tuple has an entry for each sample of a batch of that size."""
    axes: Callable[[Any, int], list[int | None]]
    """The axes of the batch in the tensors and arrays of a value."""
    given: str
    """Who is given what, for errors."""

    def of(self, value: Any) -> Any:
        """``value``, for these samples."""
        if isinstance(value, deque):  # it takes no slices
            return deque(self.of([*value]), value.maxlen)
        if self._is_listed(value):
            return value[self.rows]
        if is_container(value):
            return like(value, [self.of(part) for _, part in items(value)])
        self._require_nothing_by_sample(value)
        return rows_of(value, self.rows, self.batch_size, self.axes(value, self.batch_size))

    def _is_listed(self, value: Any) -> bool:
        value = [*value] if isinstance(value, deque) else value
        return type(value) in (list, tuple, range) and self.is_listed(value, self.batch_size)

    def _require_nothing_by_sample(self, value: Any) -> None:
        """Require that an object which is not looked into holds nothing for each sample."""
        if isinstance(value, (*LEAVES, nn.Module, type)):
            return
        for name, part in getattr(value, "__dict__", {}).items():
            if self._is_listed(part) or any(axis is not None for axis in self.axes(part, self.batch_size)):
                kind = type(value).__name__
                raise TypeError(
                    f"{self.given} in pieces of at most batch_size samples, but a {kind} is nothing that can be cut, "
                    f"and its {name!r} has something for each of the {self.batch_size}; give a tuple, a mapping or a "
                    f"dataclass, or batch_size={self.batch_size}"
                )


def rows_of(value: Any, rows: slice, batch_size: int, axes: Sequence[int | None] | None = None) -> Any:
    """``value`` for some of the samples: each tensor or array in it with an axis of the batch is cut to ``rows``.

    ``axes`` says which it is, for each; without them, shapes tell.
    """
    supply = iter(batch_axes(value, batch_size) if axes is None else axes)

    def cut(leaf: Leaf) -> Any:
        axis = next(supply)
        if axis is None:
            return leaf
        if isinstance(leaf, Entries):
            return leaf.some(rows)
        if isinstance(leaf, PackedSequence):
            sequences, lengths = padded(leaf)
            lengths = lengths[rows]
            longest = int(lengths.max())
            return pack_padded_sequence(sequences[rows, :longest], lengths, batch_first=True, enforce_sorted=False)
        return leaf[(slice(None),) * axis + (rows,)]

    return map_leaves(cut, value)


def rows_of_call(call: Call, rows: slice) -> Call:
    """The call for some of the samples."""
    axes, size = _axes(call), call.batch_size
    extra_args, extra_kwargs = rows_of(_extras(call), rows, size, axes)
    bare = replace(call, additional_args=(), additional_kwargs={})
    found: Call = rows_of(bare, rows, size)  # whatever else a kind of call holds by sample is cut as well
    return replace(found, additional_args=extra_args, additional_kwargs=extra_kwargs, axes=tuple(axes))
