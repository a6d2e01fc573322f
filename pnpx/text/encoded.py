"""What a tokenizer made of a text or a pair: its tokens, and the characters that each stands for."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

from pnpx.text.segment import Span, is_mark

_BLANKS = "▁Ġ"  # how tokenizers write the space before a word, also one that they put before the text themselves


class Piece(NamedTuple):
    """A token, and the characters that it stands for, without white space around them."""

    position: int
    sequence: int | None
    """Which of the texts; None if it stands for nothing in any, as [CLS] does."""
    start: int
    end: int
    blank: bool
    """Whether it stands for white space alone, or for nothing."""


@dataclass(frozen=True)
class Encoded:
    """The encoding of a text or a pair by a fast tokenizer, in plain sequences of one value a token.

    Attributes:
        texts: the text, or both texts of a pair; a text that was given in words is the sequence of its words.
        tokens: the tokens, as the vocabulary writes them.
        offsets: of each token, its first character in its text, or in its word, and the one after its last.
        word_ids: which word each token is of, None for special tokens; needed only if a text was given in words.
        sequence_ids: which of the texts each token is of, None for special tokens; by default all are of the first.
        special_tokens_mask: whether the tokenizer put the token there, as it does [CLS]; by default none.
        attention_mask: whether each token is no padding; by default none is.
    """

    texts: tuple[str | Sequence[str], ...]
    tokens: Sequence[str]
    offsets: Sequence[Span]
    word_ids: Sequence[int | None] | None = None
    sequence_ids: Sequence[int | None] | None = None
    special_tokens_mask: Sequence[int] | None = None
    attention_mask: Sequence[int] | None = None

    def __post_init__(self) -> None:
        for name in ("offsets", "word_ids", "sequence_ids", "special_tokens_mask", "attention_mask"):
            values = getattr(self, name)
            if values is not None and len(values) != len(self.tokens):
                raise ValueError(f"{name} must hold one value for each of the {len(self.tokens)} tokens, "
                                 f"but holds {len(values)}")
        if self.word_ids is None and not all(isinstance(text, str) for text in self.texts):
            raise ValueError("a text given in words needs word_ids, but they are None; take them from a fast tokenizer")
        last = max((sequence or 0 for sequence in self.sequence_ids or ()), default=0)
        if last >= len(self.texts):
            raise ValueError(f"there are tokens of {last + 1} texts, but texts holds {len(self.texts)}")

    @classmethod
    def of(cls, encoding: Any, texts: Sequence[str | Sequence[str]]) -> "Encoded":
        """From what a fast tokenizer gives, such as ``tokenizer(...).encodings[0]``, and the texts it was given."""
        return cls(tuple(texts), encoding.tokens, encoding.offsets, encoding.word_ids, encoding.sequence_ids,
                   encoding.special_tokens_mask, encoding.attention_mask)

    @classmethod
    def of_pieces(
        cls,
        pieces: Sequence[str],
        special_tokens_mask: Sequence[int] | None = None,
        sequence_ids: Sequence[int | None] | None = None,
    ) -> "Encoded":
        """From the text of each token, where there are ids only (see `decoded`); the text is all of them, joined.

        A token with the text "" is a part of the character that the next one completes. What stands on both sides of a
        special token is kept apart by a space. With ``sequence_ids`` there is a text for each of the sequences.
        """
        special = [bool(flag) for flag in special_tokens_mask or [0] * len(pieces)]
        sequences = list(sequence_ids) if sequence_ids is not None else [0] * len(pieces)
        sequences = [None if apart else own or 0 for own, apart in zip(sequences, special, strict=True)]
        texts = [""] * (1 + max((own or 0 for own in sequences), default=0))
        offsets: list[Span] = []
        open_from, fresh = 0, False  # where a character began that is not complete; whether a special token came last
        for index, (piece, own) in enumerate(zip(pieces, sequences, strict=True)):
            if own is None or not piece:
                end = len(texts[own or 0])
                offsets.append((end, end))
                open_from, fresh = (index + 1, True) if own is None else (open_from, fresh)
                continue
            text = texts[own]
            if fresh and text and not (text[-1].isspace() or piece[0].isspace()):
                text += " "
            end = len(text)
            for earlier in range(open_from, index):
                offsets[earlier] = (end, end + 1)
            offsets.append((end, end + len(piece)))
            texts[own], open_from, fresh = text + piece, index + 1, False
        return cls(tuple(texts), list(pieces), offsets, None, sequences, special)

    def then(self, other: "Encoded") -> "Encoded":
        """This, and after it the tokens of ``other``, whose texts come after these: a prompt and its continuation."""
        shift = len(self.texts)
        return Encoded(
            (*self.texts, *other.texts), [*self.tokens, *other.tokens], [*self.offsets, *other.offsets],
            [*self._all("word_ids", None), *other._all("word_ids", None)],
            [*self._sequences(), *(None if one is None else one + shift for one in other._sequences())],
            [*self._all("special_tokens_mask", 0), *other._all("special_tokens_mask", 0)],
            [*self._all("attention_mask", 1), *other._all("attention_mask", 1)],
        )

    @cached_property
    def joined(self) -> tuple[str, ...]:
        """The texts; the words of one given in words with a space between them."""
        return tuple(text if isinstance(text, str) else " ".join(text) for text in self.texts)

    def word_spans(self, sequence: int) -> list[Span] | None:
        """Of a text given in words, their spans in the joined text; None for another."""
        text = self.texts[sequence]
        if isinstance(text, str):
            return None
        spans, start = [], 0
        for word in text:
            spans.append((start, start + len(word)))
            start += len(word) + 1
        return spans

    def pieces(self) -> list[Piece]:
        """The tokens that are no padding, with what they stand for in the joined texts."""
        sequences, special = self._sequences(), self._all("special_tokens_mask", 0)
        own = [self.word_spans(sequence) for sequence in range(len(self.texts))]
        ends = [0] * len(self.texts)
        found: list[Piece] = []
        for position, (sequence, attended) in enumerate(zip(sequences, self._all("attention_mask", 1), strict=True)):
            start, end = self.offsets[position]
            if not attended:
                continue
            if sequence is None or (special[position] and start == end):
                found.append(Piece(position, None, 0, 0, True))
                continue
            spans = own[sequence]
            if spans is not None:
                base, limit = spans[_word(self.word_ids, position)]
                start, end = min(base + start, limit), min(base + end, limit)
            piece = Piece(position, sequence, start, end, False)
            found.append(_core(self.joined[sequence], self.tokens[position], piece, ends[sequence]))
            ends[sequence] = max(ends[sequence], found[-1].end)
        return self._with_marks(found)

    def _with_marks(self, pieces: list[Piece]) -> list[Piece]:
        """The pieces, with accents that the tokenizer dropped: no token stands for them, but they were written."""
        following = [len(text) for text in self.joined]  # where the next token of each text begins
        for index in range(len(pieces) - 1, -1, -1):
            piece = pieces[index]
            if piece.sequence is None:
                continue
            text, end, limit = self.joined[piece.sequence], piece.end, following[piece.sequence]
            while not piece.blank and end < limit and is_mark(text[end]):
                end += 1
            if end > piece.end:
                pieces[index] = piece._replace(end=end)
            following[piece.sequence] = piece.start
        return pieces

    def _sequences(self) -> list[int | None]:
        return list(self.sequence_ids) if self.sequence_ids is not None else [0] * len(self.tokens)

    def _all(self, name: str, default: int | None) -> list[Any]:
        values = getattr(self, name)
        return list(values) if values is not None else [default] * len(self.tokens)


def _word(word_ids: Sequence[int | None] | None, position: int) -> int:
    word = None if word_ids is None else word_ids[position]
    if word is None:
        raise ValueError(f"token {position} must be of a word, as the text was given in words, but its word id is None")
    return word


def _core(text: str, token: str, piece: Piece, end_before: int) -> Piece:
    """The piece without white space around it. Some tokenizers give a token of spaces an empty span after them."""
    position, sequence, start, end = piece.position, piece.sequence, piece.start, piece.end
    inside = text[start:end]
    if token and not token.strip(_BLANKS) and inside.strip() and inside != token:  # a space that is not in the text
        return Piece(position, sequence, start, start, True)
    if inside.strip():
        start, end = start + len(inside) - len(inside.lstrip()), end - len(inside) + len(inside.rstrip())
        return Piece(position, sequence, start, end, False)
    if not inside and text[end_before:start].isspace():
        start = end_before
    return Piece(position, sequence, start, end, True)


def decoded(ids: Sequence[int], decode: Callable[[list[int]], str]) -> list[str]:
    """The text that each id adds: joined they are what all decode to. An id that only begins a character adds "".

    Args:
        ids: of tokens, in their order.
        decode: from ids to a text, such as ``tokenizer.decode``.
    """
    # Decoders strip the space before the first token, and write a character that is not complete as U+FFFD: an id is
    # therefore decoded with those before it, from the last place where the text was complete.
    pieces, context, done = [], 0, 0
    for index in range(len(ids)):
        known = decode(list(ids[context:done]))
        text = decode(list(ids[context : index + 1]))
        if text.endswith("\N{REPLACEMENT CHARACTER}") and index + 1 < len(ids):
            pieces.append("")
            continue
        pieces.append(text[len(known) :])
        context, done = done, index + 1
    return pieces
