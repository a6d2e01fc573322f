"""Groups of features that are switched off together: to which group each element of a value belongs."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from pnpx.attributors import Bound, Value
from pnpx.masked import require_unmasked
from pnpx.parameters import plain_numbers
from pnpx.structure import Structure
from pnpx.suggest import nearest

Groups: TypeAlias = Any
"""Which features belong together:

* None: each element of (batch, features) and of token ids (batch, tokens); each step of (batch, steps, features); each
  patch of (batch, channels, height, width), its channels together, on a grid of at most 8 by 8.
* a name of `GROUPINGS`: "elements", "positions" (the channels of a pixel, the features of a step, together) or
  "channels" (a channel, or feature, everywhere).
* `Patches`, or an int for its size.
* ints of the shape of the value, with its batch axis (then one sample may differ from another) or without, or of a
  shape that expands to it: elements of the same number are a group. Those below 0 belong to none and always stay.
* a callable from the value to such ints, for each sample by itself.
* a tuple or a mapping of these, one for each tensor of what is explained.

Numbers given as ints hold for all tensors, so that a group may have a part in each; all other groups are numbered on.
"""

_CELLS = 64  # of the grid where nothing else is asked for: as many passes of the model, or more, each
_LARGEST = 2**20


@dataclass(frozen=True)
class Patches:
    """Adjacent positions together, with all their channels, on a grid: patches of images, windows of series.

    The last ones are smaller where the extent is no multiple of ``size``: an int, or one for each axis but those of the
    batch and the channels.

    >>> Patches(2).number((1, 2, 4), channel=0)
    tensor([[[0, 0, 1, 1],
             [0, 0, 1, 1]]])
    """

    size: int | tuple[int, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "size", plain_numbers(self.size))
        sizes = self.size if isinstance(self.size, tuple) else (self.size,)
        if not sizes or any(isinstance(size, bool) or not isinstance(size, int) or size < 1 for size in sizes):
            raise ValueError(
                f"the size of patches must be an int, at least 1, or a tuple of them, but is {self.size!r}"
            )

    def number(self, shape: Sequence[int], channel: int | None) -> Tensor:
        """The numbers of a sample's elements, of ``shape``, whose axis of channels is ``channel``."""
        axes = positions_of(shape, channel)
        ids = torch.zeros((), dtype=torch.long)
        for axis, size in zip(axes, for_each(self.size, len(axes), "size", shape), strict=True):
            cells = torch.arange(shape[axis]) // size
            ids = ids * (-(-shape[axis] // size)) + cells.reshape([-1 if a == axis else 1 for a in range(len(shape))])
        return ids.expand(tuple(shape))


def elements(shape: Sequence[int], channel: int | None) -> Tensor:
    """Each element of a sample by itself."""
    return torch.arange(prod(shape)).reshape(tuple(shape))


def positions(shape: Sequence[int], channel: int | None) -> Tensor:
    """The channels of each pixel, or the features of each step, together."""
    return Patches(1).number(shape, channel)


def channels(shape: Sequence[int], channel: int | None) -> Tensor:
    """Each channel, or feature, at all its positions together."""
    if channel is None:
        return elements(shape, channel)
    return torch.arange(shape[channel]).reshape([-1 if a == channel else 1 for a in range(len(shape))]).expand(*shape)


GROUPINGS: dict[str, Callable[[Sequence[int], int | None], Tensor]] = {
    "elements": elements,
    "positions": positions,
    "channels": channels,
}
"""The groupings that have a name: from the shape of a sample and its axis of channels to the number of each element."""


def check_groups(groups: Groups) -> None:
    """Require that ``groups`` is one of `Groups`, as far as can be told without a value.

    Raises:
        ValueError, TypeError: it is not.
    """
    require_unmasked("the groups", groups)
    if isinstance(groups, str) and groups not in GROUPINGS:
        raise ValueError(f"no grouping {groups!r}; {nearest(groups, GROUPINGS)}")
    if isinstance(groups, int):
        Patches(groups)
    elif isinstance(groups, Mapping):
        for part in groups.values():
            check_groups(part)
    elif isinstance(groups, float):
        raise TypeError(
            "groups must be None, a name, Patches, ints of the value's shape, a callable, or one of these for each "
            f"tensor explained, but is {groups!r}"
        )


def channel_of(value: Value, channel_axis: int | None = None) -> int | None:
    """Which axis of a sample of ``value`` is that of its channels: the first of three or more, the last of two.

    ``channel_axis``, one of the value's axes, says otherwise. A vector has none.
    """
    count = len(value.sample_shape)
    if count < 2:
        return None
    if channel_axis is None:
        return 0 if count > 2 else 1
    ndim = value.tensor.ndim
    if not -ndim <= channel_axis < ndim or channel_axis % ndim == value.axis:
        raise ValueError(f"channel_axis must be one of the axes 1 to {ndim - 1} of the value, but is {channel_axis}")
    axis = channel_axis % ndim
    return axis - (value.axis is not None and axis > value.axis)


def positions_of(shape: Sequence[int], channel: int | None) -> list[int]:
    """The axes of a sample that are not those of the channels."""
    return [axis for axis in range(len(shape)) if axis != channel]


def for_each(size: int | tuple[int, ...], count: int, name: str, shape: Sequence[int]) -> list[int]:
    """``size`` for each of so many axes."""
    sizes = [size] * count if isinstance(size, int) else list(size)
    if len(sizes) != count:
        raise ValueError(
            f"{name} must be an int or have one for each of the {count} axes of positions of a sample, whose shape is "
            f"{tuple(shape)}, but is {size!r}"
        )
    return sizes


def numbered(
    bound: Bound, groups: Groups, channel_axis: int | None, rows: Tensor | None = None, total: int | None = None
) -> tuple[list[Tensor], int]:
    """The number of the group of each element at a place, below 0 for none, and how many numbers there are.

    For each value the numbers are (batch, *sample), or (1, *sample) where they are those of every sample.

    Args:
        bound: the place.
        groups: see `Groups`.
        channel_axis: which axis of the values is that of channels; None: as of `channel_of`.
        rows: which samples of the whole batch these are; None: all.
        total: how many samples the whole batch has; None: as many as these.

    Raises:
        ValueError, TypeError, LookupError: the groups do not fit the values.
    """
    rows = torch.arange(bound.batch_size) if rows is None else rows.cpu()
    total = len(rows) if total is None else total
    parts: list[Groups] = [None] * len(bound.values)
    _assign(bound.mirrored(list(range(len(parts)))), groups, parts)  # type: ignore[arg-type]
    found: list[Tensor | None] = [None] * len(parts)
    count = 0
    for index, (value, part) in enumerate(zip(bound.values, parts, strict=True)):
        if not (part is None or callable(part) or isinstance(part, (str, int, Patches))):
            ids = _integers(part)
            found[index] = _fitted(ids, value, rows, total)
            count = max(count, int(ids.max()) + 1 if ids.numel() else 0)
    for index, (value, part) in enumerate(zip(bound.values, parts, strict=True)):
        if found[index] is not None:
            continue
        if callable(part):
            every = torch.arange(1 if value.axis is None else value.tensor.shape[value.axis])
            ids = _fitted(_integers(part(value.tensor)), value, every, len(every))
        else:
            ids = _made(part, value.sample_shape, channel_of(value, channel_axis))[None]
        found[index] = torch.where(ids < 0, -1, ids + count)
        count += int(ids.max()) + 1 if ids.numel() else 0
    return [_inside(ids, value) for ids, value in zip(found, bound.values, strict=True) if ids is not None], count


def _inside(ids: Tensor, value: Value) -> Tensor:
    """``ids`` with padding in no group."""
    if value.valid is None:
        return ids
    valid = value.valid.cpu()
    return torch.where(valid.reshape(*valid.shape, *[1] * (ids.ndim - 2)), ids, -1)


def _made(part: Groups, shape: Sequence[int], channel: int | None) -> Tensor:
    """The numbers of a sample's elements, for groups that its shape tells."""
    check_groups(part)
    if isinstance(part, str):
        return GROUPINGS[part](shape, channel)
    if part is None:
        if len(shape) < 3:
            return positions(shape, channel)
        axes = positions_of(shape, channel)
        cells = max(1, round(_CELLS ** (1 / len(axes))))
        part = Patches(tuple(-(-shape[axis] // cells) for axis in axes))
    return (Patches(part) if isinstance(part, int) else part).number(shape, channel)


def _integers(given: Any) -> Tensor:
    require_unmasked("the groups", given)
    try:
        ids = given.detach().cpu() if isinstance(given, Tensor) else torch.as_tensor(np.asarray(given))
    except (TypeError, ValueError):
        raise TypeError(f"groups must be ints, one for each element, but are {given!r}") from None
    if ids.is_floating_point() or ids.is_complex() or ids.dtype == torch.bool:
        raise TypeError(f"groups must be ints, one for each element, but are {ids.dtype}")
    if ids.numel() and int(ids.max()) >= _LARGEST:
        raise ValueError(f"groups must be numbered from 0 to at most {_LARGEST - 1}, but one is {int(ids.max())}")
    return ids.long()


def _fitted(given: Tensor, value: Value, rows: Tensor, total: int) -> Tensor:
    """Numbers that a user gave for ``value``, (batch, *sample), of these ``rows`` of the whole batch."""
    ids, shape = given, value.sample_shape
    per_sample = ids.ndim == len(shape) + 1
    if per_sample and value.axis is not None:
        ids = ids.movedim(value.axis, 0)
    if per_sample and len(ids) == total:
        ids = ids[rows]
    elif not per_sample:
        ids = ids[None]
    if value.valid is not None and ids.ndim > 1 and ids.shape[1] > shape[0]:
        ids = ids[:, : shape[0]]  # some samples of a batch may all be shorter than the longest
    try:
        fitted = ids.expand(len(ids), *shape)
    except RuntimeError:
        fitted = ids
    if fitted.shape[1:] != torch.Size(shape) or len(fitted) not in (1, len(rows)):
        raise ValueError(
            f"groups must have the shape of what is explained, {tuple(value.tensor.shape)}, or expand to it, but have "
            f"{tuple(given.shape)}"
        )
    return fitted


def _assign(structure: Structure, groups: Groups, parts: list[Groups]) -> None:
    """Put into ``parts`` which of ``groups`` is meant for each tensor; ``structure`` holds their positions there."""
    if isinstance(structure, int):
        parts[structure] = groups
    elif isinstance(structure, dict):
        if isinstance(groups, Mapping) and (unknown := [key for key in groups if key not in structure]):
            raise LookupError(f"there is nothing {unknown[0]!r} to group; {nearest(str(unknown[0]), structure)}")
        for key, part in structure.items():
            _assign(part, groups.get(key) if isinstance(groups, Mapping) else _shared(groups), parts)
    elif isinstance(structure, (tuple, list)):
        several = isinstance(groups, (tuple, list))
        if several and len(groups) != len(structure):
            raise ValueError(
                f"there are {len(structure)} tensors to group, so as many groupings, but {len(groups)} were given"
            )
        for index, part in enumerate(structure):
            _assign(part, groups[index] if several else _shared(groups), parts)


def _shared(groups: Groups) -> Groups:
    """Groups that hold for each of several tensors: ints do for one."""
    if isinstance(groups, (Tensor, np.ndarray, Mapping, tuple, list)):
        raise ValueError(
            "several tensors are explained, so groups given as ints must be a tuple (of a mapping: a mapping) of them, "
            f"but are a {type(groups).__name__}"
        )
    return groups
