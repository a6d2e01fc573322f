"""The call of a model: what is explained, what only goes along, and where the axis of the batch is."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from pnpx.structure import Entries, Leaf, Structure, map_leaves, map_tensors, tensors


@dataclass(frozen=True)
class Call:
    """What a model is called with.

    ``forward`` is what was extracted to be explained: one value, a tuple of values, or a mapping passed by keyword;
    ``keywords`` says under which name each of its values goes, or None for those that go by position. ``steps``, if it
    is known, (batch, length), says which steps of the sequences are no padding. ``axes`` are those of the batch in each
    tensor and array that goes along, in their order; None where one has none; no ``axes`` where only shapes can tell.
    Lists with an entry for each sample are `Entries` in it; the model gets them as they were.
    """

    forward: Structure
    keywords: tuple[str | None, ...]
    additional_args: tuple[Any, ...] = ()
    additional_kwargs: Mapping[str, Any] = field(default_factory=dict)
    steps: Tensor | None = None
    axes: tuple[int | None, ...] | None = None

    @property
    def values(self) -> list[Any]:
        """The values of ``forward``, one a forward argument."""
        if self.is_mapping:
            return list(self.forward.values())
        return list(self.forward) if self.is_tuple else [self.forward]

    @property
    def is_tuple(self) -> bool:
        """Whether ``forward`` is a tuple of values; a ``PackedSequence``, or a state (h, c), may be one value."""
        several = isinstance(self.forward, tuple) and not isinstance(self.forward, PackedSequence)
        return several and len(self.forward) == len(self.keywords)

    @property
    def is_mapping(self) -> bool:
        """Whether ``forward`` is a mapping of values, and not one value that is a mapping."""
        return isinstance(self.forward, Mapping) and tuple(self.forward) == self.keywords

    def with_values(self, values: Sequence[Any]) -> "Call":
        """The call with other ``values`` of the forward arguments that are explained."""
        forward: Structure = tuple(values)
        if self.is_mapping:
            forward = dict(zip(self.forward, values, strict=True))
        elif not self.is_tuple:
            (forward,) = values
        return replace(self, forward=forward)

    @property
    def args(self) -> tuple[Any, ...]:
        """The positional arguments."""
        positional = [value for value, name in zip(self.values, self.keywords, strict=True) if name is None]
        return tuple(map(_as_given, (*positional, *self.additional_args)))

    @property
    def kwargs(self) -> dict[str, Any]:
        """The keyword arguments."""
        named = {name: value for value, name in zip(self.values, self.keywords, strict=True) if name is not None}
        return {name: _as_given(value) for name, value in (*named.items(), *self.additional_kwargs.items())}

    def map(self, function: Callable[[Tensor], Tensor]) -> "Call":
        """The call with ``function`` applied to each tensor of each argument."""
        return replace(
            self,
            forward=map_tensors(function, self.forward),
            additional_args=map_tensors(function, self.additional_args),
            additional_kwargs=map_tensors(function, dict(self.additional_kwargs)),
            steps=None if self.steps is None else function(self.steps),
        )

    @property
    def batch_size(self) -> int:
        """The number of samples: the first axis of what is extracted to be explained."""
        sizes = {leaf.shape[0] if leaf.ndim else None for leaf in tensors(self.forward)}
        if not sizes:
            raise TypeError(f"the forward arguments must hold a tensor, but are {_describe(self.forward)}")
        if None in sizes:
            raise ValueError("inputs need a batch axis, but a tensor of no axes was given; did you mean x[None]?")
        if len(sizes) > 1:
            shapes = ", ".join(str(tuple(leaf.shape)) for leaf in tensors(self.forward))
            raise ValueError(
                f"several inputs must have the same batch size, their first axis, but their shapes are {shapes}; "
                "let what has no batch axis go along: additional_forward_arg_extractor"
            )
        (size,) = sizes
        if not size:
            raise ValueError("the batch is empty: its first axis has size 0; give at least one sample")
        return int(size)


def batch_axes(value: Any, batch_size: int, shared: bool = False) -> list[int | None]:
    """The axis of the batch in each tensor, array and `Entries` of an argument; None where there is none.

    It is the first one if it has the batch's size, or else, as in the (layers, batch, features) of a recurrent net's
    state, the only one that has it. A first axis of size 1 in front of just another is there for all samples, as that
    of position ids (1, length). With ``shared`` nothing has one.
    """
    axes: list[int | None] = []

    def note(leaf: Leaf) -> Any:
        fitting = [] if isinstance(leaf, PackedSequence) else [i for i, n in enumerate(leaf.shape) if n == batch_size]
        axis = None
        if isinstance(leaf, PackedSequence) or 0 in fitting:
            axis = 0
        elif len(fitting) == 1 and batch_size > 1 and tuple(leaf.shape) != (1, batch_size):
            # An axis of size 1 tells nothing.
            axis = fitting[0]
        axes.append(None if shared else axis)
        return leaf

    map_leaves(note, value)
    return axes


def with_entries(value: Any, batch_size: int) -> Any:
    """An argument with `Entries` in place of each list or tuple in it that has an entry for each sample.

    That are those of the batch's length, unless what they hold has an axis of the batch itself, as the tensors of a
    state (h, c) do. Of tensors in a list that differ in how long they are, as sequences do, a few may happen to be as
    long as the batch is large.
    """
    if type(value) is dict:
        return {key: with_entries(item, batch_size) for key, item in value.items()}
    if type(value) not in (list, tuple):
        return value
    if is_by_sample(value, batch_size):
        return Entries(tuple(value), type(value))
    return type(value)(with_entries(item, batch_size) for item in value)


def is_by_sample(value: Sequence[Any], batch_size: int) -> bool:
    """Whether a list or tuple has an entry for each sample; see `with_entries`."""
    if len(value) != batch_size or all(item is None for item in value):
        return False
    with_axis = sum(axis is not None for axis in batch_axes(value, batch_size))
    arrays = [item for item in value if isinstance(item, (Tensor, np.ndarray)) and item.ndim]
    alike = type(value) is list and len(arrays) == batch_size and len({tuple(item.shape[1:]) for item in arrays}) == 1
    return with_axis <= (batch_size // 4 if alike else 0)


def _as_given(argument: Any) -> Any:
    """An argument of a model as it was before `with_entries`."""
    return map_leaves(lambda leaf: leaf.plain() if isinstance(leaf, Entries) else leaf, argument)


def _describe(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key!r}: {_describe(item)}" for key, item in value.items()) + "}"
    if isinstance(value, (tuple, list)):
        return "(" + ", ".join(map(_describe, value)) + ")"
    if isinstance(value, np.ndarray):
        return f"ndarray of {value.dtype}"
    return f"{type(value).__name__} {value!r}" if isinstance(value, (str, int, float)) else type(value).__name__
