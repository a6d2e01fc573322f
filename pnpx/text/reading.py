"""What users give as text, as the tokens that a model reads: ids exactly as they are, and where they lie in it."""

import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from pnpx.extractors import LABELS
from pnpx.text.encoded import Encoded, decoded
from pnpx.text.granularity import units
from pnpx.text.replacement import special_ids
from pnpx.text.tokenizing import Tokens, bare_ids, tokens_of, tokens_of_all

Texts: TypeAlias = Any
"""A text, a pair (a tuple of two), a list of words in a list, a list of these, token ids in a mapping, or a list of
such mappings of one text each."""

_FORMS = (
    "texts are a str, a pair (str, str), a list of them, a list of lists of words, or a mapping with 'input_ids', such "
    "as the tokenizer returns"
)
_NOT_READ = LABELS | {"input_ids", "attention_mask", "special_tokens_mask", "offset_mapping", "length"}


@dataclass(frozen=True)
class Reading:
    """One input without padding: its token ids, (length,), and what else the model is given for each token."""

    ids: Tensor
    encoded: Encoded
    extras: dict[str, Tensor] = field(default_factory=dict)
    source: tuple[Any, ...] = ()
    """The text or the pair that it was made of; empty where token ids were given."""

    def __len__(self) -> int:
        return len(self.ids)


def is_single(inputs: Texts) -> bool:
    """Whether ``inputs`` is one text, pair or row of ids, rather than several."""
    if isinstance(inputs, Mapping):
        ids = inputs.get("input_ids")
        return ids is not None and not (len(ids) and np.ndim(ids[0]))
    return isinstance(inputs, (str, tuple))


def read(tokenizer: Any, inputs: Texts, limit: int | None = None, known: int | None = None) -> list[Reading]:
    """The inputs as tokens, one entry each.

    Args:
        tokenizer: of transformers.
        inputs: see `Texts`. Ids in a mapping, such as a ``BatchEncoding``, are taken as they are, chat templates and
            special tokens included; padding on either side is left out.
        limit: the most tokens that the model reads. Longer texts are truncated with a warning.
        known: how many tokens the model knows.

    Raises:
        TypeError: an input is none of what is understood.
        ValueError: an input is empty, or ids are more than the model reads, or none that it knows.
    """
    if isinstance(inputs, Mapping):
        return [
            fitted(tokenizer, one, row, limit) for row, one in enumerate(_read_ids(tokenizer, inputs, known))
        ]
    if not isinstance(inputs, (str, list, tuple)):
        raise TypeError(f"{_FORMS}, but got a {type(inputs).__name__}")
    several = [inputs] if is_single(inputs) else inputs
    found = []
    for number, one in enumerate(several):
        _require_characters(one, f"input {number}")
    tokens = tokens_of_all(tokenizer, several)
    for number, one in enumerate(several):
        if isinstance(one, Mapping):
            rows = _read_ids(tokenizer, one, known)
            if len(rows) != 1:
                raise ValueError(
                    f"in a list each mapping must hold one text, but that of input {number} holds "
                    f"{len(rows)}; give it by itself"
                )
            found += rows
        else:
            found.append(_read_text(tokenizer, one, number, known, tokens[number]))
    return [fitted(tokenizer, one, number, limit) for number, one in enumerate(found)]


def fitted(
    tokenizer: Any,
    reading: Reading,
    number: int,
    limit: int | None,
    following: int | None = None,
    stacklevel: int = 3,
) -> Reading:
    """The reading, or, where it is too long for the model, the tokens of as much of its text as the model reads.

    Which end is cut is what the tokenizer's ``truncation_side`` says.

    Args:
        tokenizer: of transformers.
        reading: what is read.
        number: which of the inputs it is.
        limit: the most tokens that the model reads.
        following: how many tokens the model reads behind these, of a continuation; None: there is none.
        stacklevel: of the warning.

    Raises:
        ValueError: token ids are more than the model reads: these are taken as they are. What follows leaves no room.
    """
    length = len(reading)
    if limit is None or length + (following or 0) <= limit:
        return reading
    room = limit - (following or 0)
    if following is not None and (not reading.source or room <= _added(tokenizer, reading)):
        raise ValueError(
            f"the prompt has {length} tokens and what follows {following}, but the model reads {limit} together; "
            "shorten one of them"
        )
    cut = shortened(tokenizer, reading, number, room)
    more = "" if following is None else f" with the {following} that follow"
    warnings.warn(
        f"input {number} has {length} tokens, but the model reads {limit}{more}: {length - len(cut)} of them are left "
        "out",
        UserWarning,
        stacklevel=stacklevel,
    )
    return cut


def shortened(tokenizer: Any, reading: Reading, number: int, room: int | None) -> Reading:
    """The reading, or, where it has more tokens than there is ``room`` for, those of as much of its text as fits.

    Raises:
        ValueError: token ids are more, which are taken as they are.
    """
    if room is None or len(reading) <= room:
        return reading
    if not reading.source:
        raise ValueError(f"row {number} of the batch has {len(reading)} tokens, but the model reads {room}")
    batch, encoding = tokens_of(tokenizer, reading.source, truncation=True, max_length=room)
    return _reading(tokenizer, reading.source, batch, encoding)


def _added(tokenizer: Any, reading: Reading) -> int:
    """How many tokens the tokenizer puts around what was given."""
    return int(tokenizer.num_special_tokens_to_add(pair=len(reading.source) == 2))


def read_target(tokenizer: Any, target: Any, known: int | None = None) -> Reading:
    """What is to be generated, as tokens: ids exactly as given, a text without any token added to it.

    Raises:
        TypeError: it is neither a text nor token ids.
        ValueError: there is no token in it, or one that is none of the ``known`` first, those of the model.
    """
    if isinstance(target, Mapping):
        readings = _read_ids(tokenizer, target, known)
        if len(readings) != 1:
            raise ValueError(f"a target of generation is one text, but the mapping holds {len(readings)}")
        return readings[0]
    if isinstance(target, str):
        ids = torch.tensor(bare_ids(tokenizer, target), dtype=torch.long)
        if not ids.numel():
            raise ValueError(f"a target of generation must have at least one token, but {target!r} has none")
    else:
        ids = _ids(target, "a target of generation is a text or token ids (length,)")
        if ids.ndim == 2 and len(ids) == 1:
            ids = ids[0]
        if ids.ndim != 1 or not ids.numel():
            raise ValueError(
                "a target of generation is a text or token ids of shape (length,) with at least one "
                f"token, but got ids of shape {tuple(ids.shape)}"
            )
    _require_known(ids, known, "a target")
    return Reading(ids, _from_pieces(tokenizer, ids.tolist()))


def _require_characters(given: Any, what: str) -> None:
    """Require that the texts in ``given`` can be written as bytes: half a character is read by no tokenizer."""
    if isinstance(given, (list, tuple)):
        for part in given:
            _require_characters(part, what)
    elif isinstance(given, str) and (half := re.search("[\ud800-\udfff]", given)):
        raise ValueError(
            f"{what} must be of whole characters, but has {half[0]!r}, a lone surrogate, at {half.start()}; decode the "
            "text with errors='replace', or leave it out"
        )


def _read_text(
    tokenizer: Any, one: Any, number: int, known: int | None, tokens: Tokens | None
) -> Reading:
    texts: tuple[Any, ...] = one if isinstance(one, tuple) and len(one) == 2 else (one,)
    in_words = isinstance(texts[0], list)
    if not (in_words or isinstance(texts[0], str)) or not all(_is_text(part, in_words) for part in texts):
        raise TypeError(
            f"input {number} must be a str, a pair of them (a tuple), or a list of words, but is {one!r:.60}"
        )
    if not any("".join(text).strip() for text in texts):
        raise ValueError(f"input {number} is empty, so there is nothing to explain; leave it out")
    batch, encoding = tokens or tokens_of(tokenizer, texts, verbose=False)
    if not len(batch["input_ids"]):
        raise ValueError(f"the tokenizer finds no token in input {number}, {one!r:.60}; leave it out")
    reading = _reading(tokenizer, texts, batch, encoding)
    if not units(reading.encoded, "token"):
        raise ValueError(f"the tokenizer finds no token in input {number}, {one!r:.60}; leave it out")
    _require_known(reading.ids, known, f"input {number}")
    return reading


def _reading(tokenizer: Any, texts: tuple[Any, ...], batch: Mapping[str, Any], encoding: Any) -> Reading:
    ids = torch.tensor(batch["input_ids"], dtype=torch.long)
    extras = {
        name: torch.tensor(values)
        for name, values in batch.items()
        if name not in _NOT_READ and len(values) == len(ids)
    }
    encoded = _from_pieces(tokenizer, ids.tolist()) if encoding is None else Encoded.of(encoding, texts)
    return Reading(ids, encoded, extras, texts)


def _require_known(ids: Tensor, count: int | None, what: str) -> None:
    """Require that the model knows all of the token ids, of which it has so many, if it tells."""
    if int(ids.min()) < 0 or (count is not None and int(ids.max()) >= count):
        outside = ids[(ids < 0) | (ids >= (count if count is not None else int(ids.max()) + 1))]
        upto = "" if count is None else f" to {count - 1}"
        raise ValueError(f"{what} must be of token ids from 0{upto}, which the model knows, but has {int(outside[0])}")


def _is_text(part: Any, in_words: bool) -> bool:
    if in_words:
        return isinstance(part, list) and all(isinstance(word, str) for word in part)
    return isinstance(part, str)


def _read_ids(tokenizer: Any, inputs: Mapping[str, Any], known: int | None) -> list[Reading]:
    if "input_ids" not in inputs:
        raise ValueError(f"a mapping as input must have 'input_ids', but has {', '.join(map(repr, inputs))}")
    rows = _rows(inputs["input_ids"], "input_ids")
    masks = _rows(inputs["attention_mask"], "attention_mask") if "attention_mask" in inputs else None
    if masks is not None and [mask.shape for mask in masks] != [ids.shape for ids in rows]:
        raise ValueError("the attention_mask must have the shape of input_ids, but it has not")
    extras = {}
    for name, value in inputs.items():
        if name not in _NOT_READ and isinstance(value, (Tensor, np.ndarray, list)):
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
        _require_known(own, known, f"row {row} of the batch")
        encoded = _from_pieces(tokenizer, own.tolist(), mask, sequences)
        readings.append(Reading(own, encoded, {name: of_rows[row][keep] for name, of_rows in extras.items()}))
    return readings


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


def _ids(value: Any, must: str) -> Tensor:
    try:
        ids = value.detach().cpu() if isinstance(value, Tensor) else torch.as_tensor(np.asarray(value))
    except (TypeError, ValueError):
        raise TypeError(f"{must}, but got {value!r:.60}") from None
    if ids.is_floating_point() or ids.is_complex() or ids.dtype == torch.bool:
        raise TypeError(f"{must}, but got {ids.dtype}")
    return ids.long()


def _from_pieces(
    tokenizer: Any,
    ids: list[int],
    special: Sequence[int] | None = None,
    sequences: Sequence[int | None] | None = None,
) -> Encoded:
    """Tokens of which only the ids are known: their text is what they decode to.

    Special are those that the tokenizer says it added, ``special``, and those that are special wherever they stand, as
    the marks of a chat template are, which are written into the text.
    """
    apart = special_ids(tokenizer)
    flags = [int(token in apart) for token in ids]
    if special is not None:
        flags = [int(own or other) for own, other in zip(special, flags, strict=True)]

    def decode(some: list[int]) -> str:
        return str(tokenizer.decode(some, skip_special_tokens=False, clean_up_tokenization_spaces=False))

    return Encoded.of_pieces(decoded(ids, decode), flags, sequences)
