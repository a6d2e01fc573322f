"""One input as a model reads it, without padding: its token ids, and where they lie in its text."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from pnpx.extractors import LABELS
from pnpx.text.encoded import Encoded, decoded
from pnpx.text.replacement import special_ids

NOT_READ = LABELS | {"input_ids", "attention_mask", "special_tokens_mask", "offset_mapping", "length"}
"""Parts of what a tokenizer gives that go to the model otherwise than beside the ids, or not at all."""


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


def reading_of(tokenizer: Any, texts: tuple[Any, ...], batch: Mapping[str, Any], encoding: Any) -> Reading:
    """What a tokenizer made of a text or a pair, ``batch``; a slow one has no ``encoding`` to tell where they lie."""
    ids = torch.tensor(batch["input_ids"], dtype=torch.long)
    extras = {
        name: torch.tensor(values)
        for name, values in batch.items()
        if name not in NOT_READ and len(values) == len(ids)
    }
    encoded = from_pieces(tokenizer, ids.tolist()) if encoding is None else Encoded.of(encoding, texts)
    return Reading(ids, encoded, extras, texts)


def from_pieces(
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


def require_known(ids: Tensor, count: int | None, what: str) -> None:
    """Require that the model knows all of the token ids, of which it has so many, if it tells."""
    if int(ids.min()) < 0 or (count is not None and int(ids.max()) >= count):
        outside = ids[(ids < 0) | (ids >= (count if count is not None else int(ids.max()) + 1))]
        upto = "" if count is None else f" to {count - 1}"
        raise ValueError(f"{what} must be of token ids from 0{upto}, which the model knows, but has {int(outside[0])}")
