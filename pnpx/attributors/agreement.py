"""Whether passes of a model agree: what it gives again, or for several copies of a batch, beside what one gives."""

import logging
import warnings
from typing import Any

import torch
from torch import Tensor

from pnpx.structure import tensors

_log = logging.getLogger(__name__)

_TOLERANCE = {torch.float64: 1e-7, torch.float32: 1e-3}  # of the largest output; for narrower types 0.05
_ROUNDING = 128  # how many units in the last place passes of other sizes may differ by


def holds(several: Any, one: Any, copies: int, at: int) -> bool:
    """Whether ``several``, the output for so many copies of a batch, holds ``one``, that of the copy ``at``.

    What has no axis of the copies must be the same for all. Up to rounding.
    """
    if isinstance(one, list) and isinstance(several, list) and len(several) == copies * len(one) != len(one):
        # An entry a sample, of any number of boxes.
        size = len(one)
        return same(several[at * size : (at + 1) * size], one)
    left, right = _seen(several), _seen(one)
    if len(left) != len(right):
        return False
    return _all_close([_copy(leaf, alone, copies, at) for leaf, alone in zip(left, right, strict=True)], right)


def turns(several: Any, one: Any, size: int) -> bool:
    """Whether ``several``, the output for two copies of a batch, holds ``one``, that of one, sample by sample in turn.

    Which sample is that of the second copy, and which of the first, `in_turn` says.
    """
    if isinstance(one, list) and isinstance(several, list) and len(several) == 2 * len(one) == 2 * size:
        first, second = several[:size], several[size:]
        return same([(second if turn else first)[row] for row, turn in enumerate(every_other(size).tolist())], one)
    left, right = _seen(several), _seen(one)
    if len(left) != len(right):
        return False
    taken = []
    for leaf, alone in zip(left, right, strict=True):
        copies = [_copy(leaf, alone, 2, at) for at in range(2)]
        axes = [axis for axis in range(alone.ndim) if leaf.shape[axis : axis + 1] != alone.shape[axis : axis + 1]]
        # Several rows a sample, such as windows of it, are those of one sample after those of another.
        rows = alone.shape[axes[0]] // size if axes else 1
        taken.append(in_turn(copies[1], copies[0], axes[0], rows) if axes and leaf is not copies[0] else leaf)
    return _all_close(taken, right)


def in_turn(one: Tensor, other: Tensor, axis: int, rows: int = 1) -> Tensor:
    """The samples along ``axis``, so many rows each, of ``one`` and the ``other`` in turn.

    The first is of ``one``, the last of the ``other``: of two copies mixed so, and so the other way round, the first
    sample of all and the last of all are of one kind.
    """
    first = every_other(one.shape[axis] // max(rows, 1)).repeat_interleave(max(rows, 1)).to(one.device)
    return torch.where(first.reshape([-1 if index == axis else 1 for index in range(one.ndim)]), one, other)


def every_other(size: int) -> Tensor:
    """Of so many samples every other one, beginning with the first; never the last."""
    return (torch.arange(size) % 2 == 0) & (torch.arange(size) < size - 1)


def same(one: Any, other: Any) -> bool:
    """Whether two outputs hold the same floats, up to rounding."""
    return _all_close(_seen(one), _seen(other))


def _seen(output: Any) -> list[Tensor]:
    """The tensors in an output; those that a plain object has as attributes, too."""
    return tensors(output) or (tensors(vars(output)) if hasattr(output, "__dict__") else [])


def _copy(leaf: Tensor, alone: Tensor, copies: int, at: int) -> Tensor:
    for axis, size in enumerate(alone.shape):
        if leaf.shape == (*alone.shape[:axis], copies * size, *alone.shape[axis + 1 :]):
            return leaf.narrow(axis, at * size, size)
    return leaf


def _all_close(left: list[Tensor], right: list[Tensor]) -> bool:
    # Where nothing is seen, nothing is shown.
    return len(left) == len(right) > 0 and all(
        a.shape == b.shape and (not b.is_floating_point() or close(a, b)) for a, b in zip(left, right, strict=True)
    )


def close(one: Tensor, other: Tensor, among: Tensor | None = None) -> bool:
    """Whether two tensors of floats are the same, but for what rounding does to numbers of that size.

    How much they may differ goes by how far the numbers in ``among`` are apart, or else those in ``other``: what all
    have in common, as a large constant, must not hide what they have not.
    """
    if not one.numel():
        return True
    dtype, tolerance = one.dtype, _TOLERANCE.get(one.dtype, 0.05)
    wide = torch.promote_types(one.dtype, torch.float32)
    one, other = one.to(wide), other.to(wide)
    finite = torch.isfinite(other)
    if not torch.equal(finite, torch.isfinite(one)):
        return False
    one, other = one[finite], other[finite]
    if not other.numel():
        return True
    among = other if among is None else among.to(wide)[torch.isfinite(among)]
    scale, spread = among.abs().amax(), among.amax() - among.amin()
    allowed = torch.minimum(tolerance * scale, tolerance * spread + _ROUNDING * torch.finfo(dtype).eps * scale)
    return bool(((one - other).abs() <= allowed + 1e-12).all())


def note(what: str, place: str, error: Exception) -> None:
    """Log that ``what`` did not work at a place, so that a slower way is taken: ``logging`` shows it at level DEBUG."""
    _log.debug(f"{what} did not work, so a slower way is taken", place, exc_info=error)


def warn_unsteady() -> None:
    """Say that the model does not repeat itself."""
    warnings.warn(
        "the model gives different outputs for the same input, although it is in eval mode; its explanation is that of "
        "its random outputs, and not repeatable",
        RuntimeWarning,
        stacklevel=2,
    )
