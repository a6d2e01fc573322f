"""A call of a model for several copies of its batch, or for some of its samples."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
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
    if not is_container(batch):
        _require_nothing_by_sample(batch, batch_size)
        return rows_of(batch, rows, batch_size)
    # A list of tensors is the parts of the batch, even where there are as many as samples.
    plain = type(batch) in (list, tuple) and all(item is None or isinstance(item, (int, float, str)) for item in batch)
    if plain and is_by_sample(batch, batch_size):
        return batch[rows]
    parts, whole = items(batch), set(shared)
    if isinstance(batch, (list, tuple)):
        whole = {key % len(batch) if isinstance(key, int) else key for key in shared} if batch else set()
    return like(batch, [part if key in whole else _rows_of_part(part, rows, batch_size) for key, part in parts])


def _rows_of_part(part: Any, rows: slice, batch_size: int) -> Any:
    if type(part) in (list, tuple) and is_by_sample(part, batch_size):
        return part[rows]
    return rows_of_batch(part, rows, batch_size)


def _require_nothing_by_sample(value: Any, batch_size: int) -> None:
    """Require that an object which is not looked into holds nothing for each sample."""
    if isinstance(value, (*LEAVES, nn.Module, type)):
        return
    for name, part in getattr(value, "__dict__", {}).items():
        listed = type(part) in (list, tuple) and is_by_sample(part, batch_size)
        if listed or any(axis is not None for axis in batch_axes(part, batch_size)):
            kind = type(value).__name__
            raise TypeError(
                f"a function as targets is given the batch in pieces of at most batch_size samples, but a {kind} is "
                f"nothing that can be cut, and its {name!r} has something for each of the {batch_size}; give a tuple, "
                f"a mapping or a dataclass, or batch_size={batch_size}"
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
