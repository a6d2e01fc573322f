"""NumPy's masked arrays, which a tensor cannot stand for."""

from typing import Any

import numpy as np

from pnpx.structure import is_container, items


def require_unmasked(what: str, value: Any) -> None:
    """Require that ``value``, and what it holds, is no masked array: as a tensor it would be what its mask hides.

    >>> require_unmasked("the targets", [np.ma.masked_array([1, 2], mask=[False, True])])
    Traceback (most recent call last):
    TypeError: a masked array is among the targets, but tensors have no masks; fill it first, by array.filled(value)
    """
    if isinstance(value, np.ma.MaskedArray):
        raise TypeError(
            f"a masked array is among {what}, but tensors have no masks; fill it first, by array.filled(value)"
        )
    if is_container(value):
        for _, item in items(value):
            require_unmasked(what, item)
