"""Passes in which samples stand beside others than their own batch: what they give there shows whether that matters."""

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from pnpx.attributors.agreement import every_other, in_turn
from pnpx.attributors.value import Value

Point = Sequence[Tensor]
"""A tensor for each explained tensor of a place, of its shape: where to take the gradient."""

Met = list[tuple[Tensor, slice]]
"""Which samples of a pass are met in another one: a mask (batch,), and where the copy of the batch is that has them."""


def far(point: Point, near: Point) -> tuple[Point, Point]:
    """Two points far from ``point``, above and below it: beside them shows what depends on other samples.

    So does what depends on the largest or smallest of all. What is no float is that of ``near``, another point.
    """
    above, below = [], []
    for tensor, other in zip(point, near, strict=True):
        if tensor.is_floating_point() and tensor.numel():
            top = tensor.detach().abs().amax().nan_to_num(1.0, 1.0, 1.0).clamp(min=torch.finfo(tensor.dtype).tiny)
            above.append(2 * tensor.detach() + top)
            below.append(-tensor.detach() - top)
        else:
            above.append(other)
            below.append(other)
    return above, below


def among(
    point: Point, others: tuple[Point, Point], values: Sequence[Value], size: int, most: int
) -> Iterator[tuple[Sequence[Point], int | None]]:
    """Passes of several copies in which each sample of ``point`` stands among samples of the ``others``.

    What depends on the samples before it need not depend on those behind: the first of all and the last of all are of
    the ``others``. Each pass is so many points, at ``most`` three, and which of them is ``point``; None: of two, in the
    way of `agreement.turns`. ``size`` is that of the batch.
    """
    above, below = others
    if size > 1:
        yield [_mixed(above, point, values), _mixed(point, below, values)], None
    elif most >= 3:
        yield [above, point, below], 1
    else:
        yield [above, point], 1
        yield [point, below], 0


def alone(
    copies: Mapping[int, Point], others: tuple[Point, Point] | None, values: Sequence[Value], size: int
) -> list[tuple[Point, Met]]:
    """Passes of one copy that meet each sample of a batch of ``size`` in one of two ``copies``, given by number.

    Every other sample is of the ``others`` there; without them, of the other copy. What is the largest or smallest of
    all, and matters to all, is in one of the passes at most.
    """
    rows = every_other(size)
    (first, last), (of_first, of_last) = copies.values(), (slice(at * size, (at + 1) * size) for at in copies)
    if size == 1:
        everything = torch.ones(1, dtype=torch.bool)
        return [(last, [(everything, of_last)]), (first, [(everything, of_first)])]
    if others is None:
        return [(_mixed(first, last, values), [(rows, of_first), (~rows, of_last)])]
    above, below = others
    return [
        (_mixed(above, last, values), [(~rows, of_last)]),
        (_mixed(first, below, values), [(rows, of_first)]),
    ]


def _mixed(one: Point, other: Point, values: Sequence[Value]) -> Point:
    """The samples of two points in turn."""
    return [in_turn(left, right, value.axis or 0) for left, right, value in zip(one, other, values, strict=True)]
