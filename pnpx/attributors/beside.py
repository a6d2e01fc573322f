"""Passes in which samples stand beside others than their own batch: what they give there shows whether that matters."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pnpx.attributors.value import Value
from pnpx.structure import Rows

Point = Sequence[Tensor]
"""A tensor for each explained tensor of a place, of its shape: where to take the gradient."""

_FAR = 8  # in units of the largest value


def far(one: Point, other: Point) -> tuple[Point, Point]:
    """Two points far from both, above and below them: beside them shows what depends on other samples.

    So does what depends on the largest or smallest of all. What is no float is that of the ``other`` point.
    """
    above, below = [], []
    for first, last in zip(one, other, strict=True):
        if last.is_floating_point() and last.numel():
            first, last = first.detach(), last.detach()
            tops = [tensor.abs().amax().nan_to_num(1.0, 1.0, 1.0) for tensor in (first, last)]
            top = torch.maximum(*tops).clamp(min=torch.finfo(last.dtype).tiny)
            # Far enough to be the largest, or smallest, after a few layers of a network, too.
            above.append(_FAR * (last + top))
            below.append(-_FAR * (last + top))
        else:
            above.append(last)
            below.append(last)
    return above, below


def met(points: Sequence[Point], values: Sequence[Value], size: int) -> tuple[Point, list[int]]:
    """Each sample of a batch of ``size`` as one of two or more ``points`` has it, and its row in a pass of them all.

    They are those of the last point, where its rows are farthest from those that a batch alone has; but the last sample
    of all has in a batch alone, too, no other behind it, so that it is that of an earlier point.
    """
    last, earlier = len(points) - 1, 1 if len(points) > 2 else 0
    rows = [*range(last * size, (last + 1) * size - 1), (earlier + 1) * size - 1]
    return ended(points[last], points[earlier], 1, values), rows


_SAMPLES = 2  # of a larger pass, how many are met in a frame


@dataclass(frozen=True)
class Trial:
    """A pass of some samples of a batch in a frame of others: the ``point``, and which samples are its ``rows``.

    ``window`` are the rows, by number, that make a batch of which the last ``count`` samples are those `met`.
    ``unmoved`` are those that make the batch itself; None where it is not among them.
    """

    point: Point
    rows: Rows
    window: list[int]
    count: int
    unmoved: list[int] | None


class Frames:
    """Passes that show what the samples of a batch get beside others.

    The batch itself in a frame must get what it gets alone: that shows that it matters neither what else is in a batch
    nor where. What depends on the samples before it need not depend on those behind, so its last samples follow it once
    more. Once that `works`, only samples that are met in larger passes are framed, unless that gives something else.
    """

    def __init__(self) -> None:
        self.works: bool | None = None
        """Whether the batch gets in a frame what it gets alone; None: not known."""
        # Whether a few samples get what they get among all, as far as is known; whether the last trial was of a few.
        self._brief, self._was_brief = True, False

    def trial(self, points: Sequence[Point], values: Sequence[Value], size: int) -> Trial | None:
        """The pass that tells what the samples must get that are met in one of ``points``; None where there is none."""
        self._was_brief = False
        before, behind = frame(size)
        count = min(_SAMPLES, len(points) * size - size - before - behind)
        if self.works is False or size == 1 or count < 1:
            return None  # a sample had better be alone, and a pass may not take so many rows
        clean: Point = [value.tensor for value in values]
        batch = ended(clean, met(points, values, size)[0], count, values)
        last, others = range(size - count, size), far(clean, points[-1])
        # Of as many rows as the batch has, which are which could not be told.
        self._was_brief = self._brief and self.works is True and before + count + behind != size
        if self._was_brief:
            # Scores are those of a whole batch: the others are samples that are met, over and over.
            window = [before + sample % count for sample in range(-size, 0)]
            return Trial(*framed([(batch, last)], others, values, size), window, count, None)
        window = [*range(before, before + size)]
        unmoved = [*window[: size - count], *range(before + size, before + size + count)]
        return Trial(*framed([(batch, range(size)), (clean, last)], others, values, size), window, count, unmoved)

    def otherwise(self) -> bool:
        """Whether another trial may tell something else, after what the last one told has not been met."""
        # A few samples may get something else than among all: sequences that are padded to the longest one, say.
        was_brief, self._was_brief = self._was_brief, False
        self._brief = self._brief and not was_brief
        return was_brief

    def forget(self) -> None:
        """Show the batch itself once more: its axes are other ones."""
        self.works = self.works and None


def frame(size: int) -> tuple[int, int]:
    """How many samples `framed` puts before and behind those of a batch of ``size``."""
    total = max(3, size // 4)
    return total // 2, total - total // 2


def framed(
    parts: Sequence[tuple[Point, range]], others: tuple[Point, Point], values: Sequence[Value], size: int
) -> tuple[Point, Rows]:
    """One pass of some samples of a batch of ``size`` in a `frame` of the ``others``, and which samples are its rows.

    ``parts`` are points, each with the samples of it that are taken, one after another.
    """
    before, behind = frame(size)
    front, back = [number % size for number in range(-before, 0)], [number % size for number in range(behind)]
    rows = Rows((*front, *(sample for _, samples in parts for sample in samples), *back), size)
    point = []
    for index, (above, below, value) in enumerate(zip(*others, values, strict=True)):
        axis, kinds = value.axis or 0, (above, below)
        taken = [of_part[index].narrow(axis, samples.start, len(samples)) for of_part, samples in parts]
        # Above at the front, and in turn behind, where the last of all is below.
        far_front = [above.narrow(axis, number, 1) for number in front]
        far_back = [kinds[(behind - place) % 2].narrow(axis, number, 1) for place, number in enumerate(back)]
        point.append(torch.cat([*far_front, *taken, *far_back], axis))
    return point, rows


def ended(rest: Point, end: Point, count: int, values: Sequence[Value]) -> Point:
    """The last ``count`` samples of ``end``, after the ``rest`` of another point."""
    found = []
    for one, other, value in zip(rest, end, values, strict=True):
        axis = value.axis or 0
        start = one.shape[axis] - count
        found.append(torch.cat([one.narrow(axis, 0, start), other.narrow(axis, start, count)], axis))
    return found


def alone(
    points: Sequence[Point], others: tuple[Point, Point] | None, values: Sequence[Value], size: int
) -> list[tuple[Point, Tensor, Tensor]]:
    """Passes of one batch of ``size`` in which its samples are those `met` in a pass of all ``points``.

    Every other sample is one of the ``others`` there. What is the largest or smallest of all, and matters to all, is in
    one of the passes at most. Of a batch of one sample, two points are met. With each pass comes which of its samples
    are met, a mask (batch,), and their rows in the pass of all.
    """
    if size == 1:
        whole, middle, last = torch.ones(1, dtype=torch.bool), 1 if len(points) > 2 else 0, len(points) - 1
        return [(points[row], whole, torch.tensor([row])) for row in (middle, last)]
    point, numbers = met(points, values, size)
    rows, first = torch.tensor(numbers), _every_other(size)
    if others is None:
        return [(point, torch.ones(size, dtype=torch.bool), rows)]
    above, below = others
    return [(_mixed(above, point, values), ~first, rows[~first]), (_mixed(point, below, values), first, rows[first])]


def _every_other(size: int) -> Tensor:
    """Of so many samples every other one, beginning with the first; never the last."""
    return (torch.arange(size) % 2 == 0) & (torch.arange(size) < size - 1)


def _mixed(one: Point, other: Point, values: Sequence[Value]) -> Point:
    """The samples of two points in turn: the first of all is that of ``one``, the last that of the ``other``."""
    return [
        torch.where(value.by_sample(_every_other(left.shape[value.axis or 0]).to(left.device)), left, right)
        for left, right, value in zip(one, other, values, strict=True)
    ]
