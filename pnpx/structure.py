"""Nested values: what models take and return, seen as a sequence of tensors and put together again.

A value may be a tensor, a tuple (named or not), a list, a mapping (a ``BatchEncoding`` or a ``ModelOutput``
included), a dataclass, a ``PackedSequence``, or any nesting of them. Everything else (None, numbers, strings, caches)
is carried along unchanged. A ``PackedSequence`` counts as one tensor: its sequences padded to (batch, time, features).
"""

import copy
from collections import UserDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

Structure: TypeAlias = Any
"""A tensor or a nesting of containers with tensors in it."""


@dataclass(frozen=True)
class Rows:
    """Samples of a batch, by number, that are the rows of a pass of a model; ``batch_size`` is that of the batch."""

    samples: tuple[int, ...]
    batch_size: int

    def places(self, size: int) -> Tensor:
        """Where these samples are along an axis of so many entries, (entries,): each sample has as many, side by side.

        Raises:
            ValueError: it cannot be said which entries belong to a sample.
        """
        each = self._each(size)
        return (torch.tensor(self.samples)[:, None] * each + torch.arange(each)).flatten()

    def entries(self, size: int) -> int:
        """How many of an axis of so many entries they have together; errors as those of `places`."""
        return len(self.samples) * self._each(size)

    def _each(self, size: int) -> int:
        each, rest = divmod(size, self.batch_size)
        if rest:
            raise ValueError(f"an axis of {size} entries is not that of a batch of {self.batch_size}")
        return each


Repeats: TypeAlias = int | Rows
"""How many times over a pass has the batch, one after another, or which of its samples."""


@dataclass(frozen=True)
class Entries:
    """A list or tuple, of type ``kind``, that holds one of ``items`` for each sample, whatever they are: lengths, say.

    Seen as one leaf with an axis of the batch.
    """

    items: tuple[Any, ...]
    kind: type[list[Any]] | type[tuple[Any, ...]]

    @property
    def shape(self) -> tuple[int]:
        """The batch alone."""
        return (len(self.items),)

    def some(self, samples: slice) -> "Entries":
        """Those of some of the samples."""
        return Entries(self.items[samples], self.kind)

    def repeated(self, repeats: Repeats) -> "Entries":
        """So many times over, or those of some samples; the tensors in them are copies."""
        if isinstance(repeats, Rows):
            numbers = repeats.places(len(self.items)).tolist()
        else:
            numbers = [*range(len(self.items))] * repeats
        return Entries(tuple(map_tensors(Tensor.clone, self.items[number]) for number in numbers), self.kind)

    def plain(self) -> Any:
        """The list or tuple itself."""
        return self.kind(self.items)


def is_container(value: object) -> bool:
    """Whether ``value`` is looked into for tensors; what counts as one leaf is not: a ``PackedSequence``, `Entries`."""
    if isinstance(value, (PackedSequence, Entries)):
        return False
    return isinstance(value, (tuple, list, Mapping)) or (is_dataclass(value) and not isinstance(value, type))


def items(value: Any) -> list[tuple[Any, Any]]:
    """The (key, item) pairs of a container: positions of sequences, keys of mappings, names of fields."""
    if isinstance(value, Mapping):
        return list(value.items())
    if isinstance(value, (tuple, list)):
        return list(enumerate(value))
    return [(field.name, getattr(value, field.name)) for field in fields(value)]


def like(value: Any, parts: Sequence[Any]) -> Any:
    """A container of the type of ``value`` that holds ``parts`` in place of its items.

    Mappings that are no ``dict`` and no ``UserDict`` become dicts: a copy of them may write into the original.
    """
    if isinstance(value, tuple):
        return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)
    if isinstance(value, list):
        return list(parts)
    new = dict(zip((key for key, _ in items(value)), parts, strict=True))
    if type(value) is dict or (isinstance(value, Mapping) and not isinstance(value, (dict, UserDict))):
        return new
    if isinstance(value, Mapping) and is_dataclass(value):  # a ModelOutput
        return type(value)(**new)
    twin: Any = copy.copy(value)
    if getattr(value, "__dict__", None) is value:  # a dict whose attributes are its items
        twin.__dict__ = twin
    for key, part in new.items():
        if isinstance(value, Mapping):
            twin[key] = part
        else:
            object.__setattr__(twin, key, part)
    return twin


def _walk(value: Any) -> Iterator[Tensor | PackedSequence]:
    if isinstance(value, (Tensor, PackedSequence)):
        yield value
    elif is_container(value):
        for _, item in items(value):
            yield from _walk(item)


def is_packed(value: Structure) -> list[bool]:
    """For each tensor of ``value``, whether it stands for a ``PackedSequence``."""
    if isinstance(value, Tensor):
        return [False]
    return [isinstance(leaf, PackedSequence) for leaf in _walk(value)]


def tensors(value: Structure) -> list[Tensor]:
    """The tensors in ``value``, depth first; a ``PackedSequence`` as (batch, time, features), padded with zeros."""
    if isinstance(value, Tensor):
        return [value]
    return [padded(leaf)[0] if isinstance(leaf, PackedSequence) else leaf for leaf in _walk(value)]


def valid_steps(value: Structure) -> list[Tensor | None]:
    """For each tensor of ``value``, which of its (batch, time) steps are no padding; None where all are."""
    masks: list[Tensor | None] = []
    for leaf in _walk(value):
        if isinstance(leaf, PackedSequence):
            sequences, lengths = padded(leaf)
            steps = torch.arange(sequences.shape[1], device=sequences.device)
            masks.append(steps < lengths.to(sequences.device)[:, None])
        else:
            masks.append(None)
    return masks


def padded(sequence: PackedSequence) -> tuple[Tensor, Tensor]:
    """The sequences of ``sequence`` as (batch, time, features), padded with zeros, and their lengths (batch,)."""
    values, lengths = pad_packed_sequence(sequence, batch_first=True)
    return values, lengths


def rebuild(value: Structure, replacements: Sequence[Any], repeats: Repeats = 1) -> Any:
    """``value`` with its tensors, in the order of `tensors`, replaced.

    ``repeats`` says how many times over the replacement of a ``PackedSequence`` holds the batch, or which samples of
    it: its rows have the lengths of the original ones.
    """
    if isinstance(value, Tensor):
        return replacements[0]
    supply = iter(replacements)

    def put(leaf: Tensor | PackedSequence) -> Any:
        replacement = next(supply)
        if not isinstance(leaf, PackedSequence) or replacement is None:
            return replacement
        lengths = padded(leaf)[1]
        lengths = lengths.repeat(repeats) if isinstance(repeats, int) else lengths[repeats.places(len(lengths))]
        # Rows that came sorted stay so: a model that then ignores the order of sorting still finds it.
        in_order = leaf.sorted_indices is None and repeats == 1
        return pack_padded_sequence(replacement, lengths, batch_first=True, enforce_sorted=in_order)

    return _map(value, put, plain=False)


def mirror(value: Structure, replacements: Sequence[Any]) -> Structure:
    """What an explanation of ``value`` looks like: its containers as tuples, lists and dicts, its tensors replaced.

    What is no tensor (None, a cache, a number) becomes None. A ``PackedSequence`` becomes its replacement,
    (batch, time, features).
    """
    supply = iter(replacements)
    return _map(value, lambda leaf: next(supply), plain=True)


Leaf: TypeAlias = Tensor | PackedSequence | np.ndarray[Any, Any] | Entries
"""What has, or may have, an axis of the batch."""
LEAVES = (Tensor, PackedSequence, np.ndarray, Entries)


def _map(
    value: Any,
    function: Callable[[Any], Any],
    plain: bool,
    kinds: tuple[type, ...] = (Tensor, PackedSequence),
) -> Any:
    if isinstance(value, kinds):
        return function(value)
    if not is_container(value):
        return None if plain else value
    parts = [_map(item, function, plain, kinds) for _, item in items(value)]
    if not plain or isinstance(value, (tuple, list)):
        return like(value, parts)
    return {key: part for (key, _), part in zip(items(value), parts, strict=True)}


def map_tensors(function: Callable[[Tensor], Any], value: Any) -> Any:
    """``value`` with ``function`` applied to each of its tensors (to the data of a ``PackedSequence``)."""

    def apply(leaf: Tensor | PackedSequence) -> Any:
        if not isinstance(leaf, PackedSequence):
            return function(leaf)
        data = function(leaf.data)
        order = (index if index is None else index.to(data.device) for index in (leaf[2], leaf[3]))
        return PackedSequence(data, leaf.batch_sizes, *order)

    return _map(value, apply, plain=False)


def map_leaves(function: Callable[[Any], Any], value: Any) -> Any:
    """``value`` with ``function`` applied to each of its tensors, arrays, `Entries`, and each ``PackedSequence``."""
    return _map(value, function, plain=False, kinds=LEAVES)
