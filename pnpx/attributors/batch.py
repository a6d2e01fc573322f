"""A call of a model for several copies of its batch, or for some of its samples."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence

from pnpx.attributors.passes import repeat
from pnpx.extractors import Call
from pnpx.structure import is_packed, map_leaves, padded, rebuild, tensors


def argument_axis(tensor: Tensor | np.ndarray[Any, Any], batch_size: int) -> int | None:
    """The axis of the batch in an argument: the first one, or else, as in (layers, batch, features), the only one."""
    fitting = [axis for axis, size in enumerate(tensor.shape) if size == batch_size]
    if 0 in fitting:
        return 0
    # An axis of size 1 tells nothing.
    return fitting[0] if len(fitting) == 1 and batch_size > 1 else None


def repeated(value: Any, copies: int, batch_size: int) -> Any:
    """``value``, an argument or a structure of them, for so many copies of the batch; its tensors are copies always.

    A model may change what it is given in place.
    """
    packed = is_packed(value)
    return rebuild(
        value,
        [
            repeat(leaf, copies, 0 if is_sequence else argument_axis(leaf, batch_size))
            for leaf, is_sequence in zip(tensors(value), packed, strict=True)
        ],
        copies,
    )


def arguments(
    call: Call, copies: int, forward: Sequence[Tensor] | None = None
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments for so many copies of the batch; the tensors of ``call.forward`` already repeated, if given."""
    size = call.batch_size
    values = call.values
    if forward is not None:
        supply = iter(forward)
        values = [rebuild(value, [next(supply) for _ in tensors(value)], copies) for value in values]
    else:
        values = [repeated(value, copies, size) for value in values]
    new = Call(
        call.with_values(values).forward,
        call.keywords,
        tuple(repeated(value, copies, size) for value in call.additional_args),
        {name: repeated(value, copies, size) for name, value in call.additional_kwargs.items()},
    )
    return new.args, new.kwargs


def rows_of_batch(batch: Any, rows: slice, batch_size: int) -> Any:
    """A user's ``batch`` for some of the samples: as `rows_of`, and lists with an entry a sample are cut as well."""
    if type(batch) in (list, tuple):
        if len(batch) == batch_size and all(item is None or isinstance(item, (int, float, str)) for item in batch):
            return batch[rows]
        return type(batch)(rows_of_batch(item, rows, batch_size) for item in batch)
    if type(batch) is dict:
        return {key: rows_of_batch(item, rows, batch_size) for key, item in batch.items()}
    return rows_of(batch, rows, batch_size)


def rows_of(value: Any, rows: slice, batch_size: int) -> Any:
    """``value`` for some of the samples: each tensor or array in it with an axis of the batch is cut to ``rows``."""

    def cut(leaf: Tensor | PackedSequence | np.ndarray[Any, Any]) -> Any:
        if isinstance(leaf, PackedSequence):
            sequences, lengths = padded(leaf)
            lengths = lengths[rows]
            longest = int(lengths.max())
            return pack_padded_sequence(sequences[rows, :longest], lengths, batch_first=True, enforce_sorted=False)
        axis = argument_axis(leaf, batch_size)
        return leaf if axis is None else leaf[(slice(None),) * axis + (rows,)]

    return map_leaves(cut, value)


def rows_of_call(call: Call, rows: slice) -> Call:
    """The call for some of the samples."""
    found: Call = rows_of(call, rows, call.batch_size)  # whatever else a kind of call holds by sample is cut as well
    return found
