"""Whether passes of a model agree: what it gives again, or for some samples, beside what it gave before."""

import logging
import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from pnpx.structure import Rows, is_packed, rebuild, tensors

_log = logging.getLogger(__name__)

_TOLERANCE = {torch.float64: 1e-7, torch.float32: 1e-3}  # of the largest output; for narrower types 0.05
_ROUNDING = 128  # how many units in the last place passes of other sizes may differ by


def rows_of_output(output: Any, total: int, other: Any, others: int, rows: Sequence[int]) -> Any:
    """Some ``rows``, by number, of the ``output`` for a ``total`` of samples, in its own structure.

    The axes of the samples are those along which it differs in size from an ``other`` output, for another number of
    them, as those numbers do.

    Raises:
        ValueError: there is no telling.
    """
    if isinstance(output, list) and isinstance(other, list) and (len(output), len(other)) == (total, others):
        return [output[row] for row in rows]
    leaves, its = tensors(output), tensors(other)
    if not leaves or any(is_packed(output)) or len(leaves) != len(its):
        raise ValueError("the rows of the output cannot be told apart")
    parts = []
    for leaf, twin in zip(leaves, its, strict=True):
        axes = [axis for axis in range(leaf.ndim) if leaf.shape[axis : axis + 1] != twin.shape[axis : axis + 1]]
        if axes:
            if leaf.shape[axes[0]] * others != twin.shape[axes[0]] * total:
                raise ValueError("the output does not have the axis of the samples")
            leaf = leaf.index_select(axes[0], Rows(tuple(rows), total).places(leaf.shape[axes[0]]).to(leaf.device))
        parts.append(leaf)
    return rebuild(output, parts)


def same(one: Any, other: Any) -> bool:
    """Whether two outputs hold the same floats, up to rounding."""
    return _all_close(_seen(one), _seen(other))


def _seen(output: Any) -> list[Tensor]:
    """The tensors in an output; those that a plain object has as attributes, too."""
    return tensors(output) or (tensors(vars(output)) if hasattr(output, "__dict__") else [])


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
