"""Texts of more tokens than a model reads: as much of them as it does read."""

import warnings
from typing import Any

from pnpx.text.tokenizing import tokens_of
from pnpx.text.unpadded import Reading, reading_of


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
    return reading_of(tokenizer, reading.source, batch, encoding)


def _added(tokenizer: Any, reading: Reading) -> int:
    """How many tokens the tokenizer puts around what was given."""
    return int(tokenizer.num_special_tokens_to_add(pair=len(reading.source) == 2))
