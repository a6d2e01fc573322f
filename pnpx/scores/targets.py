"""Targets as users give them: read into tensors and tuples of indices, or refused in words that say what is wanted; and
those of some samples alone."""

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from pnpx.masked import require_unmasked

Targets: TypeAlias = Any
"""None, an int, ints (batch,) or (batch, n_targets), a tuple of indices or a list of them, weights, or a callable."""

_WANTED = (
    "targets must be None, an int, ints (batch,) or (batch, n_targets), a tuple of indices where outputs have more "
    "axes, floats of the output's shape as weights, or a callable"
)


def read_targets(targets: Any) -> Any:
    """``targets`` as a tensor of ints, bools or floats; a tuple of indices as ints, and a list of them likewise.

    Raises:
        TypeError: they are none of this.
        ValueError: lists in them differ in length, floats in them are not finite, or ints are beyond an int64.
    """
    if targets is None:
        return None
    require_unmasked("the targets", targets)
    _require_int64(targets)
    if isinstance(targets, tuple):
        return _indices(targets)
    if isinstance(targets, list) and targets and any(isinstance(target, tuple) for target in targets):
        if not all(isinstance(target, tuple) for target in targets):
            raise TypeError(f"{_WANTED}; but some of the list are tuples, and some are not: {targets!r:.80}")
        found = [_indices(target) for target in targets]
        if len({len(target) for target in found}) > 1:
            raise ValueError(f"each sample's tuple must have an index for the same axes, but got {targets!r:.80}")
        return found
    tensor = targets.detach() if isinstance(targets, Tensor) else _tensor(targets)
    tensor = tensor if tensor.layout == torch.strided else tensor.to_dense()
    if tensor.is_floating_point() and not torch.isfinite(tensor).all():
        raise ValueError("targets that are floats are weights on the output, and must be finite, but some are not")
    return tensor


def _indices(target: tuple[Any, ...]) -> tuple[int, ...]:
    """A tuple of indices, one an axis of the output."""
    wrong = [index for index in target if not _is_int(index)]
    if wrong or not target:
        got = f"{type(wrong[0]).__name__} {wrong[0]!r:.40}" if wrong else "none"
        raise TypeError(f"a tuple as targets has an int for each axis of the output after the batch, but got {got}")
    return tuple(int(index) for index in target)


def _is_int(value: Any) -> bool:
    if isinstance(value, Tensor):
        return value.ndim == 0 and not (value.is_floating_point() or value.is_complex() or value.dtype == torch.bool)
    if isinstance(value, np.ndarray):
        return value.ndim == 0 and value.dtype.kind in "iu"
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def _tensor(targets: Any) -> Tensor:
    given = targets
    if isinstance(targets, Sequence) and not isinstance(targets, (str, bytes)):
        given = _plain(targets)
    elif not isinstance(targets, (bool, int, float, complex, np.ndarray, np.generic)):
        raise TypeError(f"{_WANTED}; but got a {type(targets).__name__}, {targets!r:.40}")
    try:
        array = np.asarray(given)
    except ValueError:
        raise ValueError(f"a list of targets must hold as many for each sample, but is {targets!r:.80}") from None
    if array.dtype.kind not in "biufc":
        hint = "; give the numbers of the classes for their names" if array.dtype.kind == "U" else ""
        what = f"{type(targets).__name__} of {array.dtype}" if array.ndim else type(targets).__name__
        raise TypeError(f"{_WANTED}; but got a {what}, {targets!r:.40}{hint}")
    native = np.float64 if array.dtype == np.longdouble else array.dtype.newbyteorder("=")
    tensor = torch.from_numpy(array.astype(native, order="C"))
    from_python = array.dtype.kind == "f" and not isinstance(targets, (np.ndarray, np.generic))
    return tensor.to(torch.get_default_dtype()) if from_python else tensor


def _require_int64(value: Any) -> None:
    """Require that the ints in ``value`` fit those of PyTorch: Python's know no bounds, and NumPy's uint64 holds more.

    Raises:
        ValueError: one does not.
    """
    if isinstance(value, (list, tuple)):
        for item in value:
            _require_int64(item)
    elif isinstance(value, np.ndarray) and value.dtype.kind in "uO":
        _require_int64(value.ravel().tolist())
    elif isinstance(value, (int, np.integer)) and not -(2**63) <= value < 2**63:
        raise ValueError(f"targets must be in the range -2**63 to 2**63 - 1, that of an int64, but got {value!s:.40}")


def _plain(value: Any) -> Any:
    """A sequence with the tensors in it as plain numbers."""
    if isinstance(value, Tensor):
        return value.tolist()
    if isinstance(value, Sequence) and not isinstance(value, (str, bytes)):
        return [_plain(item) for item in value]
    return value


def rows_of_targets(targets: Targets, rows: slice, batch_size: int, weights: bool = True) -> Targets:
    """The targets of some samples of a batch; what is one for all stays as it is.

    With ``weights`` floats and bools are weights on the output, which `Chosen` cuts; otherwise, as boxes, they are cut
    as all else.
    """
    listed = isinstance(targets, list) or (isinstance(targets, (Tensor, np.ndarray)) and targets.ndim)
    if not listed or len(targets) != batch_size or (weights and _weigh(targets)):
        return targets
    return targets[rows]


def _weigh(targets: "list[Any] | Tensor | np.ndarray[Any, Any]") -> bool:
    if isinstance(targets, list):
        return all(isinstance(target, float) for target in targets)
    if isinstance(targets, Tensor):
        return targets.is_floating_point() or targets.dtype == torch.bool
    return targets.dtype.kind in "fb"
