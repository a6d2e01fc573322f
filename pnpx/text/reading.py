"""What users give as text, as the tokens that a model reads: ids exactly as they are, and where they lie in it."""

import re
from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np
import torch

from pnpx.text.fitting import fitted
from pnpx.text.given_ids import ids_of, read_ids
from pnpx.text.granularity import units
from pnpx.text.tokenizing import Tokens, bare_ids, tokens_of, tokens_of_all
from pnpx.text.unpadded import Reading, from_pieces, reading_of, require_known

Texts: TypeAlias = Any
"""A text, a pair (a tuple of two), a list of words in a list, a list of these, token ids in a mapping, or a list of
such mappings of one text each."""

_FORMS = (
    "texts are a str, a pair (str, str), a list of them, a list of lists of words, or a mapping with 'input_ids', such "
    "as the tokenizer returns"
)


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
            fitted(tokenizer, one, row, limit) for row, one in enumerate(read_ids(tokenizer, inputs, known))
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
            rows = read_ids(tokenizer, one, known)
            if len(rows) != 1:
                raise ValueError(
                    f"in a list each mapping must hold one text, but that of input {number} holds "
                    f"{len(rows)}; give it by itself"
                )
            found += rows
        else:
            found.append(_read_text(tokenizer, one, number, known, tokens[number]))
    return [fitted(tokenizer, one, number, limit) for number, one in enumerate(found)]


def read_target(tokenizer: Any, target: Any, known: int | None = None) -> Reading:
    """What is to be generated, as tokens: ids exactly as given, a text without any token added to it.

    Raises:
        TypeError: it is neither a text nor token ids.
        ValueError: there is no token in it, or one that is none of the ``known`` first, those of the model.
    """
    if isinstance(target, Mapping):
        readings = read_ids(tokenizer, target, known)
        if len(readings) != 1:
            raise ValueError(f"a target of generation is one text, but the mapping holds {len(readings)}")
        return readings[0]
    if isinstance(target, str):
        ids = torch.tensor(bare_ids(tokenizer, target), dtype=torch.long)
        if not ids.numel():
            raise ValueError(f"a target of generation must have at least one token, but {target!r} has none")
    else:
        ids = ids_of(target, "a target of generation is a text or token ids (length,)")
        if ids.ndim == 2 and len(ids) == 1:
            ids = ids[0]
        if ids.ndim != 1 or not ids.numel():
            raise ValueError(
                "a target of generation is a text or token ids of shape (length,) with at least one "
                f"token, but got ids of shape {tuple(ids.shape)}"
            )
    require_known(ids, known, "a target")
    return Reading(ids, from_pieces(tokenizer, ids.tolist()))


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
    reading = reading_of(tokenizer, texts, batch, encoding)
    if not units(reading.encoded, "token"):
        raise ValueError(f"the tokenizer finds no token in input {number}, {one!r:.60}; leave it out")
    require_known(reading.ids, known, f"input {number}")
    return reading


def _is_text(part: Any, in_words: bool) -> bool:
    if in_words:
        return isinstance(part, list) and all(isinstance(word, str) for word in part)
    return isinstance(part, str)
