"""From groups of features to the elements that they cover: which are kept, and what each gets of a group's worth."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from pnpx.attributors import Value
from pnpx.masks import channel_of, for_each, positions_of


class Cover(ABC):
    """The groups of each sample at a place.

    Every sample has its own number of groups, ``counts``, because it may have its own length or its own groups. What
    there is for each group, whether it is kept or what it is worth, comes as (..., batch, groups), where ``groups`` is
    the most that a sample has; what lies behind a sample's own number does not count.
    """

    def __init__(self, values: Sequence[Value], present: Tensor) -> None:
        self.values = values
        self.counts: list[int] = present.sum(1).tolist()
        self._present = present
        self._ranks = (present.cumsum(1) - 1).clamp(min=0)

    @abstractmethod
    def keeps(self, kept: Tensor) -> list[Tensor]:
        """What is kept of each tensor, (copies, *its shape), where (copies, batch, groups) is kept of the groups.

        Bools, or floats from 0 to 1, as what is given.
        """

    @abstractmethod
    def spread(self, worth: Tensor) -> list[list[Tensor]]:
        """For each target, for each tensor, its elements' part of what groups are worth, (targets, batch, groups)."""

    def _numbered(self, of_groups: Tensor, missing: float) -> Tensor:
        """From (..., batch, groups) to (..., batch, numbers): numbers that a sample does not have get ``missing``."""
        shape = (*of_groups.shape[:-1], self._present.shape[1])
        if not of_groups.shape[-1]:
            return of_groups.new_full(shape, missing)
        return of_groups.gather(-1, self._ranks.expand(shape)).masked_fill(~self._present, missing)


class Partition(Cover):
    """Groups of which each element belongs to one, or to none.

    Args:
        values: the tensors explained.
        ids: for each the number of the group of each element, as of `pnpx.masks.numbered`.
        count: how many numbers there are.
    """

    def __init__(self, values: Sequence[Value], ids: Sequence[Tensor], count: int) -> None:
        size = max(len(_front(value.tensor, value.axis)) for value in values)
        # Elements of no group have a place of their own, behind the last number.
        self._places = [torch.where(one < 0, count, one).reshape(len(one), -1).expand(size, -1) for one in ids]
        self._count = count
        present = torch.zeros(size, count + 1, dtype=torch.bool)
        for places in self._places:
            present.scatter_(1, places, True)
        super().__init__(values, present[:, :count])

    def keeps(self, kept: Tensor) -> list[Tensor]:
        ungrouped = torch.ones(*kept.shape[:2], 1, dtype=kept.dtype)
        return self._taken(torch.cat([self._numbered(kept, 1), ungrouped], dim=2))

    def spread(self, worth: Tensor) -> list[list[Tensor]]:
        ungrouped = worth.new_zeros(*worth.shape[:2], 1)
        by_tensor = self._taken(torch.cat([self._numbered(worth, 0.0), ungrouped], dim=2))
        return [list(of_target) for of_target in zip(*by_tensor, strict=True)]

    def read(self, found: Sequence[Sequence[Tensor]]) -> Tensor:
        """What groups are worth, by their numbers, from what `spread` made of it: (batch, targets, numbers).

        NaN stands for numbers that a sample does not have.
        """
        size, rows = len(self._present), []
        for of_target in found:
            row = torch.full((size, self._count + 1), torch.nan, dtype=of_target[0].dtype)
            for value, places, tensor in zip(self.values, self._places, of_target, strict=True):
                row.scatter_(1, places, _front(tensor, value.axis).reshape(size, -1).to(row))
            rows.append(row[:, : self._count])
        return torch.stack(rows, dim=1)

    def sizes(self) -> list[Tensor]:
        """Of how many elements each element's group consists, in all tensors: (batch, ...), in the shape of its tensor.

        1 for elements of no group.
        """
        counts = torch.zeros(len(self._present), self._count + 1, dtype=torch.float64)
        for places in self._places:
            counts.scatter_add_(1, places, torch.ones(1, 1, dtype=torch.float64).expand(places.shape))
        counts[:, self._count] = 1
        return [one[0] for one in self._taken(counts[None])]

    def _taken(self, numbered: Tensor) -> list[Tensor]:
        """Each element's share of what (..., batch, numbers) is there, as (..., *the shape of its tensor)."""
        found = []
        for value, places in zip(self.values, self._places, strict=True):
            device = value.tensor.device
            index = places.to(device).expand(len(numbered), -1, -1)
            taken = numbered.to(device).gather(2, index)
            found.append(_back(taken.reshape(*numbered.shape[:2], *value.sample_shape), value.axis))
        return found


class Windows(Cover):
    """Boxes of adjacent positions, with all their channels, that may overlap.

    Windows are numbered along the axes of positions, the last one fastest, one tensor after another. The last one along
    an axis ends with it. An element stays where every window over it is kept, and gets the mean of their worth.

    Args:
        values: the tensors explained.
        size: how long a window is along the axes of positions.
        stride: how far apart they begin, likewise; None: side by side.
        channel_axis: which axis of the values is that of channels; None: as of `channel_of`.
    """

    def __init__(
        self,
        values: Sequence[Value],
        size: int | tuple[int, ...],
        stride: int | tuple[int, ...] | None,
        channel_axis: int | None,
    ) -> None:
        batch = max(len(_front(value.tensor, value.axis)) for value in values)
        self._axes: list[list[int]] = []
        self._over: list[list[Tensor]] = []  # for each tensor and axis of positions: (windows, positions), 1 inside
        present = []
        for value in values:
            shape = value.sample_shape
            axes = positions_of(shape, channel_of(value, channel_axis))
            sizes = for_each(size, len(axes), "window", shape)
            steps = sizes if stride is None else for_each(stride, len(axes), "stride", shape)
            over = []
            for axis, extent, step in zip(axes, sizes, steps, strict=True):
                if step > extent:
                    raise ValueError(
                        f"`stride <= window` must hold, lest positions be left out, but got stride={step} and "
                        f"window={extent}"
                    )
                if extent > shape[axis] and value.valid is None:
                    raise ValueError(
                        f"a window must fit what is explained, whose samples have shape {shape}, but is {size!r}"
                    )
                over.append(_boxes(shape[axis], extent, step))
            self._axes.append(axes)
            self._over.append(over)
            there = torch.ones(batch, *(len(one) for one in over), dtype=torch.bool)
            if value.valid is not None:  # a window over padding alone is none
                reached = (value.valid.cpu().to(over[0]) @ over[0].T) > 0
                there &= reached.reshape(*reached.shape, *[1] * (there.ndim - 2))
            present.append(there.flatten(1))
        self._sizes = [there.shape[1] for there in present]
        super().__init__(values, torch.cat(present, dim=1))

    def keeps(self, kept: Tensor) -> list[Tensor]:
        gone = self._numbered((~kept).float(), 0.0)
        return [self._summed(one, index) < 0.5 for index, one in enumerate(self._by_tensor(gone))]

    def spread(self, worth: Tensor) -> list[list[Tensor]]:
        numbered, there = self._numbered(worth, 0.0), self._present[None].to(worth)
        by_tensor = [
            self._summed(one, index) / self._summed(count, index).clamp(min=1)
            for index, (one, count) in enumerate(zip(self._by_tensor(numbered), self._by_tensor(there), strict=True))
        ]
        return [list(of_target) for of_target in zip(*by_tensor, strict=True)]

    def _by_tensor(self, of_windows: Tensor) -> Sequence[Tensor]:
        return torch.split_with_sizes(of_windows, self._sizes, dim=2)

    def _summed(self, of_windows: Tensor, index: int) -> Tensor:
        """The sum over the windows on each element, of (..., batch, windows) of one tensor."""
        value, axes, over = self.values[index], self._axes[index], self._over[index]
        device = value.tensor.device
        lead = of_windows.shape[:2]
        total = of_windows.to(device).reshape(*lead, *(len(one) for one in over))
        for axis, one in enumerate(over, start=2):
            total = (total.movedim(axis, -1) @ one.to(total)).movedim(-1, axis)
        shape = [size if axis in axes else 1 for axis, size in enumerate(value.sample_shape)]
        return _back(total.reshape(*lead, *shape).expand(*lead, *value.sample_shape), value.axis)


def _boxes(extent: int, size: int, step: int) -> Tensor:
    """Which of so many positions lie in each window: (windows, positions), 1.0 inside."""
    count = 1 + -(-max(0, extent - size) // step)
    starts = torch.arange(count)[:, None] * step
    where = torch.arange(extent)
    return ((where >= starts) & (where < starts + size)).double()


def _front(tensor: Tensor, axis: int | None) -> Tensor:
    """``tensor`` with the axis of the batch first; with a new one for a single sample where there is none."""
    return tensor[None] if axis is None else tensor.movedim(axis, 0)


def _back(tensor: Tensor, axis: int | None) -> Tensor:
    """The opposite of `_front`, for a tensor with one more axis before that of the batch."""
    return tensor[:, 0] if axis is None else tensor.movedim(1, axis + 1)
