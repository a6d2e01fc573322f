"""Token ids that users give, exactly as they are: the rows of a batch, without its padding."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pnpx.text.unpadded import NOT_READ, Reading, from_pieces, require_known


def read_ids(tokenizer: Any, inputs: Mapping[str, Any], known: int | None) -> list[Reading]:
    """The rows of a mapping with "input_ids", each without what its "attention_mask" leaves out.

    Raises:
        ValueError: there are no ids in it, or none in a row, or one that is none of the ``known`` first, or parts of it
            differ in shape.
    """
    if "input_ids" not in inputs:
        raise ValueError(f"a mapping as input must have 'input_ids', but has {', '.join(map(repr, inputs))}")
    rows = _rows(inputs["input_ids"], "input_ids")
    masks = _rows(inputs["attention_mask"], "attention_mask") if "attention_mask" in inputs else None
    if masks is not None and [mask.shape for mask in masks] != [ids.shape for ids in rows]:
        raise ValueError("the attention_mask must have the shape of input_ids, but it has not")
    extras = {}
    for name, value in inputs.items():
        if name not in NOT_READ and isinstance(value, (Tensor, np.ndarray, list)):
            of_rows = _rows(value, name, integers=False)
            if [one.shape for one in of_rows] == [ids.shape for ids in rows]:
                extras[name] = of_rows
    flags = _rows(inputs["special_tokens_mask"], "special_tokens_mask") if "special_tokens_mask" in inputs else None
    encodings = getattr(inputs, "encodings", None)
    readings = []
    for row, ids in enumerate(rows):
        keep = torch.ones_like(ids, dtype=torch.bool) if masks is None else masks[row] > 0
        if not keep.any():
            raise ValueError(f"row {row} of the batch is empty, or all padding: its attention_mask is 0 everywhere")
        mask, sequences = None if flags is None else flags[row][keep].tolist(), None
        if encodings is not None and len(encodings) == len(rows) and len(encodings[row].ids) == len(ids):
            places = keep.nonzero()[:, 0].tolist()
            mask = mask or [encodings[row].special_tokens_mask[place] for place in places]
            sequences = [encodings[row].sequence_ids[place] for place in places]
        own = ids[keep]
        require_known(own, known, f"row {row} of the batch")
        encoded = from_pieces(tokenizer, own.tolist(), mask, sequences)
        readings.append(Reading(own, encoded, {name: of_rows[row][keep] for name, of_rows in extras.items()}))
    return readings


def ids_of(value: Any, must: str) -> Tensor:
    """The ids in a tensor, an array or a list, as integers of its shape; ``must`` says what is wanted, for errors.

    Raises:
        TypeError: there are none.
    """
    try:
        ids = value.detach().cpu() if isinstance(value, Tensor) else torch.as_tensor(np.asarray(value))
    except (TypeError, ValueError):
        raise TypeError(f"{must}, but got {value!r:.60}") from None
    if ids.is_floating_point() or ids.is_complex() or ids.dtype == torch.bool:
        raise TypeError(f"{must}, but got {ids.dtype}")
    return ids.long()


def _rows(value: Any, name: str, integers: bool = True) -> list[Tensor]:
    """The rows of a batch, (length,) each, from a tensor, an array, or a list of rows that may differ in length."""
    if isinstance(value, (list, tuple)) and any(np.ndim(row) for row in value):
        found = [torch.as_tensor(np.asarray(row)) for row in value]
    else:
        tensor = torch.as_tensor(np.asarray(value)) if isinstance(value, (list, tuple)) else torch.as_tensor(value)
        if not tensor.numel() and tensor.ndim < 2:
            return []
        found = list(tensor.cpu() if tensor.ndim > 1 else tensor.cpu()[None] if tensor.ndim else tensor.reshape(1, 1))
    if integers:
        for row in found:
            if row.is_floating_point() or row.ndim != 1:
                raise ValueError(
                    f"{name} must be integers (batch, length), but a row is {row.dtype} of shape {tuple(row.shape)}"
                )
        found = [row.long() for row in found]
    return found
