"""Batches of inputs and labels, as data loaders give them: what is explained, and what is the label."""

from typing import Any

import numpy as np
from torch import Tensor, nn

from pnpx.extractors.extraction import extract
from pnpx.extractors.signature import Signature


def without_labels(model: nn.Module, batch: Any) -> "int | tuple[int, ...] | None":
    """The positions of what is explained in a tuple with one part more than the model requires: the labels, its last.

    None where the whole batch can be explained as it is, or where it is not such a tuple; also where the model could
    take the last part as well, and it has more than one number a sample, as a mask has.

    >>> import torch
    >>> model = nn.Linear(3, 2)
    >>> without_labels(model, (torch.zeros(4, 3), torch.zeros(4))), without_labels(model, torch.zeros(4, 3))
    (0, None)

    Raises:
        TypeError: the last part is no label of each sample, but like an input: the batch may be a list of batches.
    """
    if not isinstance(batch, (tuple, list)) or len(batch) < 2:
        return None
    count, signature = len(batch) - 1, Signature(model)
    if count != len(signature.required):
        return None
    try:
        extract(model, batch)
    except TypeError:  # it has too many parts, which may be labels
        first, last = batch[0], batch[-1]
        if signature.positional[count:] and getattr(last, "ndim", 1) > 1 and last.shape[1:] != (1,):
            return None
        if _is_input(last, first):
            raise TypeError(
                f"a {type(batch).__name__} of {len(batch)} parts is taken for one batch of inputs and labels, but its "
                "last part is like the first; give batches by a DataLoader or an iterator, as iter(batches), or say "
                "which part is explained: forward_arg_extractor=0"
            ) from None
        return 0 if count == 1 else tuple(range(count))
    return None


def _is_input(last: Any, first: Any) -> bool:
    """Whether what may be labels is as the first input is: the next batch of a list of them, say."""
    if isinstance(last, (tuple, list)):
        return any(isinstance(one, (Tensor, np.ndarray)) for one in last)
    shapes = [tuple(one.shape[1:]) for one in (last, first) if isinstance(one, (Tensor, np.ndarray)) and one.ndim > 1]
    floats = isinstance(last, Tensor) and last.is_floating_point()
    floats = floats or (isinstance(last, np.ndarray) and last.dtype.kind == "f")
    return len(shapes) == 2 and shapes[0] == shapes[1] and floats and shapes[0] != (1,)

