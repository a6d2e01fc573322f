"""What users give as text, as the tokens that a model reads: ids exactly as they are, and where they lie in it."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from pnpx.text.encoded import Encoded, decoded

Texts: TypeAlias = Any
"""A text, a pair (a tuple of two), a list of words in a list, a list of these, or token ids in a mapping."""


@dataclass(frozen=True)
class Reading:
    """One input without padding: its token ids, (length,), and what else the model is given for each token."""

    ids: Tensor
    encoded: Encoded
    extras: dict[str, Tensor] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.ids)


def is_single(inputs: Texts) -> bool:
    """Whether ``inputs`` is one text, pair or row of ids, rather than several."""
    if isinstance(inputs, Mapping):
        return _rows(inputs)["input_ids"].shape[0] == 1 and torch.as_tensor(inputs["input_ids"]).ndim == 1
    return isinstance(inputs, (str, tuple))


def read(tokenizer: Any, inputs: Texts, limit: int | None = None) -> list[Reading]:
    """The inputs as tokens, one entry each.

    Args:
        tokenizer: of transformers.
        inputs: see `Texts`. Ids in a mapping, such as a ``BatchEncoding``, are taken as they are, chat templates and
            special tokens included; padding on either side is left out.
        limit: the most tokens that the model reads. Longer texts are truncated with a warning.

    Raises:
        TypeError: an input is none of what is understood.
        ValueError: an input is empty, or ids are more than the model reads.
    """
    if isinstance(inputs, Mapping):
        return _read_ids(tokenizer, inputs, limit)
    if not isinstance(inputs, (str, Sequence)):
        raise TypeError(
            "texts are a str, a pair (str, str), a list of them, a list of lists of words, or a mapping of ids, "
            f"but got a {type(inputs).__name__}"
        )
    several = [inputs] if is_single(inputs) else inputs
    return [_read_text(tokenizer, one, number, limit) for number, one in enumerate(several)]


def read_target(tokenizer: Any, target: Any) -> Reading:
    """What is to be generated, as tokens: ids exactly as given, a text without any token added to it."""
    if isinstance(target, str):
        ids = torch.tensor(tokenizer(target, add_special_tokens=False)["input_ids"], dtype=torch.long)
    else:
        ids = torch.as_tensor(target)
        if ids.ndim == 2 and len(ids) == 1:
            ids = ids[0]
    if ids.ndim != 1 or not ids.numel() or ids.is_floating_point():
        raise ValueError(
            "a target of generation is a text or token ids of shape (length,) with at least one token, but got "
            f"{target if isinstance(target, str) else tuple(ids.shape)!r}"
        )
    return Reading(ids.long(), _from_pieces(tokenizer, ids.tolist(), None))


def _read_text(tokenizer: Any, one: Any, number: int, limit: int | None) -> Reading:
    if isinstance(one, str):
        texts: tuple[Any, ...] = (one,)
    elif isinstance(one, tuple) and len(one) == 2 and all(isinstance(part, str) for part in one):
        texts = one
    elif isinstance(one, list) and all(isinstance(part, str) for part in one):
        texts = (one,)
    else:
        raise TypeError(
            f"input {number} must be a str, a pair of them (a tuple), or a list of words, but is {one!r:.60}"
        )
    if not any("".join(text).strip() for text in texts):
        raise ValueError(f"input {number} is empty, so there is nothing to explain; leave it out")
    in_words = isinstance(one, list)
    batch = tokenizer(*texts, is_split_into_words=in_words, verbose=False)
    length = len(batch["input_ids"])
    if limit is not None and length > limit:
        batch = tokenizer(*texts, is_split_into_words=in_words, truncation=True, max_length=limit)
        kept = len(batch["input_ids"])
        warnings.warn(
            f"input {number} has {length} tokens, but the model reads {limit}: {length - kept} of them are left out",
            UserWarning,
            stacklevel=4,
        )
    ids = torch.tensor(batch["input_ids"], dtype=torch.long)
    extras = {
        name: torch.tensor(values)
        for name, values in batch.items()
        if name not in ("input_ids", "attention_mask") and len(values) == len(ids)
    }
    encodings = getattr(batch, "encodings", None)
    if encodings:
        return Reading(ids, Encoded.of(encodings[0], texts), extras)
    return Reading(ids, _from_pieces(tokenizer, ids.tolist(), None), extras)


def _rows(inputs: Mapping[str, Any]) -> dict[str, Tensor]:
    if "input_ids" not in inputs:
        raise ValueError(f"a mapping as input must have 'input_ids', but has {', '.join(map(repr, inputs))}")
    rows = {}
    for name, value in inputs.items():
        if name != "labels" and isinstance(value, (Tensor, np.ndarray, list)):
            tensor = torch.as_tensor(np.asarray(value) if isinstance(value, list) else value)
            rows[name] = tensor[None] if tensor.ndim == 1 else tensor
    if rows["input_ids"].is_floating_point() or rows["input_ids"].ndim != 2:
        ids = rows["input_ids"]
        raise ValueError(f"input_ids must be integers (batch, length), but are {ids.dtype} of shape {tuple(ids.shape)}")
    return rows


def _read_ids(tokenizer: Any, inputs: Mapping[str, Any], limit: int | None) -> list[Reading]:
    rows = _rows(inputs)
    ids = rows["input_ids"]
    real = rows.get("attention_mask", torch.ones_like(ids)) > 0
    encodings = getattr(inputs, "encodings", None) or [None] * len(ids)
    readings = []
    for row in range(len(ids)):
        keep = real[row]
        if not keep.any():
            raise ValueError(f"row {row} of the batch is all padding: its attention_mask is 0 everywhere")
        if limit is not None and int(keep.sum()) > limit:
            raise ValueError(f"row {row} of the batch has {int(keep.sum())} tokens, but the model reads {limit}")
        extras = {
            name: value[row][keep]
            for name, value in rows.items()
            if value.shape == ids.shape and name not in ("input_ids", "attention_mask")
        }
        mask = None
        if encodings[row] is not None:
            flags = encodings[row].special_tokens_mask
            mask = [int(flags[index]) for index in keep.nonzero()[:, 0].tolist()]
        own = ids[row][keep].long()
        readings.append(Reading(own, _from_pieces(tokenizer, own.tolist(), mask), extras))
    return readings


def _from_pieces(tokenizer: Any, ids: list[int], special: Sequence[int] | None) -> Encoded:
    """Tokens of which only the ids are known: their text is what they decode to."""
    if special is None:
        known = set(tokenizer.all_special_ids)
        special = [int(token in known) for token in ids]

    def decode(some: list[int]) -> str:
        return str(tokenizer.decode(some, skip_special_tokens=False, clean_up_tokenization_spaces=False))

    return Encoded.of_pieces(decoded(ids, decode), special)
