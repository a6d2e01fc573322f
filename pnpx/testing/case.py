"""A small model with all that is needed to examine an explainer on it."""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from pnpx.attributors.places import Layer


@dataclass(frozen=True)
class Case:
    """A small model in float64, a batch for it, and places in it that are worth explaining.

    ``args`` and ``kwargs`` say what the model must be called with, independently of any extractor. The number of
    samples differs from every other size in the model, so that the axis of the batch is plain to see.

    Args:
        name: of the case.
        model: in eval mode.
        batch: what a user has.
        targets: the class explained for each sample, (batch,).
        layers: places to explain; None among them if the inputs are floats.
        args: the positional arguments of the model for this batch.
        kwargs: its keyword arguments.
        parameters: the parameters of an explainer that the model needs, such as extractors.
        explained: which arguments are explained, by position or keyword; None: all positional ones.
        steps: which steps (batch, length) of the sequences are no padding, if the parameters say so as well.
        read: finds the tensor of scores, (batch, classes), in what the model returns.
        first: a place that holds just what the model is given, such as ``"conv:input"``.
        chain: layers of which each is computed from the one before.
        apart: layers of which none is computed from another.
    """

    name: str
    model: nn.Module
    batch: Any
    targets: Tensor
    layers: tuple[Layer, ...]
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    parameters: Mapping[str, Any] = field(default_factory=dict)
    explained: tuple[int | str, ...] | None = None
    steps: Tensor | None = None
    read: Callable[[Any], Tensor] = lambda output: output
    first: str | None = None
    chain: tuple[str, ...] = ()
    apart: tuple[str, ...] = ()

    @property
    def keys(self) -> tuple[int | str, ...]:
        """The arguments that are explained, by position or keyword."""
        return tuple(range(len(self.args))) if self.explained is None else self.explained

    @property
    def inputs(self) -> Any:
        """What is explained where no layer is chosen: one value, a tuple of values, or a mapping of keywords."""
        values = [self.args[key] if isinstance(key, int) else self.kwargs[key] for key in self.keys]
        if isinstance(self.batch, Mapping) and "forward_arg_extractor" not in self.parameters:
            return dict(zip(self.keys, values, strict=True))
        return values[0] if len(values) == 1 else tuple(values)

    @property
    def size(self) -> int:
        """The number of samples."""
        return len(self.targets)

    def samples(self, rows: Sequence[int]) -> "Case":
        """The case with some of its samples only, in the order of ``rows``."""
        index = torch.tensor(rows)
        return replace(
            self,
            batch=chosen(self.batch, index, self.size),
            targets=self.targets[index],
            steps=None if self.steps is None else self.steps[index],
            args=chosen(self.args, index, self.size),
            kwargs=chosen(dict(self.kwargs), index, self.size),
        )

    def to(self, dtype: torch.dtype) -> "Case":
        """The case with the model, and all floats, in another precision."""
        model = copy.deepcopy(self.model).to(dtype)
        batch, args, kwargs = (floats_to(part, dtype) for part in (self.batch, self.args, dict(self.kwargs)))
        return replace(self, model=model, batch=batch, args=args, kwargs=kwargs)

    def output(self) -> Tensor:
        """The scores of the model for the batch, (batch, classes), without gradients."""
        with torch.no_grad():
            return self.read(self.model(*self.args, **self.kwargs))


def chosen(value: Any, rows: Tensor, size: int) -> Any:
    """``value`` for some of ``size`` samples: of every tensor whose first axis has that size, the ``rows``."""
    if isinstance(value, PackedSequence):
        sequences, lengths = pad_packed_sequence(value, batch_first=True)
        lengths = lengths[rows]
        longest = int(lengths.max())
        return pack_padded_sequence(sequences[rows, :longest], lengths, batch_first=True, enforce_sorted=False)
    if isinstance(value, Tensor):
        return value[rows] if value.ndim and len(value) == size else value
    if isinstance(value, (tuple, list)):
        return type(value)(chosen(part, rows, size) for part in value)
    if isinstance(value, Mapping):
        return {key: chosen(part, rows, size) for key, part in value.items()}
    return value


def floats_to(value: Any, dtype: torch.dtype) -> Any:
    """``value`` with the floats in it in another precision."""
    if isinstance(value, PackedSequence):
        return value.to(dtype)
    if isinstance(value, Tensor):
        return value.to(dtype) if value.is_floating_point() else value
    if isinstance(value, (tuple, list)):
        return type(value)(floats_to(part, dtype) for part in value)
    if isinstance(value, Mapping):
        return {key: floats_to(part, dtype) for key, part in value.items()}
    return value
