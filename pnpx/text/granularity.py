"""What a score is given to: tokens, words, sentences or the user's own spans, each as the user wrote it."""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

from pnpx.suggest import nearest
from pnpx.text.encoded import Encoded, Piece
from pnpx.text.segment import Span, sentences, words

GRANULARITIES = ("all_tokens", "token", "word", "sentence")

Granularity = str | Sequence[Span] | Sequence[Sequence[Span]]
"""One of `GRANULARITIES`, or character spans: of the text, or for a pair one sequence of them for each text."""


@dataclass(frozen=True, slots=True)
class Unit:
    """A part of the text that gets one score."""

    text: str
    """As the user wrote it; the token itself where it stands for nothing in the text, such as "[CLS]"."""
    span: Span
    """Its first character in the text, and the one after its last; both the same where it stands for nothing."""
    tokens: tuple[int, ...]
    """The positions of its tokens."""
    sequence: int | None = 0
    """Which of the texts it is in; None for special tokens, which are in none."""


def units(encoded: Encoded, granularity: Granularity = "word") -> list[Unit]:
    """The units of an encoded text or pair, in the order of the texts; no unit has tokens of both texts of a pair.

    * "all_tokens": one for each token, special ones included; padding has none.
    * "token": one for each token that stands for a part of the text, so that [UNK] and a [MASK] that the user wrote
      are there, and [CLS] and [SEP] are not.
    * "word": words by `pnpx.text.segment.words`, the same for all tokenizers: punctuation is a unit of its own,
      "don't" is one. Words that share a token are one unit. Of a text given in words, those words.
    * "sentence": by `pnpx.text.segment.sentences`; a token across a border is in the sentence that has most of it.
    * spans: a unit for each, in the order given; tokens outside of all of them are in no unit.

    Tokens of white space, such as a new line, belong to the word or sentence after them, the last ones to that before.

    Raises:
        ValueError: there is no such granularity; or a span is outside its text, overlaps another or has no token.
    """
    if not isinstance(granularity, str):
        return _own(encoded, granularity)
    if granularity not in GRANULARITIES:
        raise ValueError(f"granularity must be one of {', '.join(GRANULARITIES)}, or character spans, "
                         f"but got {granularity!r}; {nearest(granularity, GRANULARITIES)}")
    pieces = encoded.pieces()
    if granularity in ("all_tokens", "token"):
        return [_token(encoded, piece) for piece in pieces if piece.sequence is not None or granularity == "all_tokens"]
    found = []
    for sequence, text in enumerate(encoded.joined):
        own = encoded.word_spans(sequence)
        within = [piece for piece in pieces if piece.sequence == sequence]
        if granularity == "sentence":
            found += _grouped(text, sequence, within, sentences(text), merging=False)
        else:
            found += _grouped(text, sequence, within, words(text) if own is None else own, merging=own is None)
    return found


def _token(encoded: Encoded, piece: Piece) -> Unit:
    text = "" if piece.sequence is None else encoded.joined[piece.sequence][piece.start : piece.end]
    return Unit(text or encoded.tokens[piece.position], (piece.start, piece.end), (piece.position,), piece.sequence)


def _grouped(text: str, sequence: int, pieces: Sequence[Piece], segments: Sequence[Span], merging: bool) -> list[Unit]:
    """A unit for each segment that has tokens; if ``merging``, segments that share a token become one."""
    solid = [piece for piece in pieces if not piece.blank]
    if not solid:  # nothing but white space
        return [_unit(text, sequence, pieces, (0, len(text)))] if pieces else []
    if merging:
        segments = _merged(segments, solid)
    members: dict[int, list[Piece]] = {}
    waiting: list[Piece] = []
    chosen = 0
    for piece in pieces:
        waiting.append(piece)
        if not piece.blank:
            chosen = _home(piece, segments)
            members.setdefault(chosen, []).extend(waiting)
            waiting = []
    members[chosen].extend(waiting)
    return [_unit(text, sequence, members[index], segments[index]) for index in sorted(members)]


def _merged(segments: Sequence[Span], pieces: Sequence[Piece]) -> list[Span]:
    starts = [start for start, _ in segments]
    together: set[int] = set()  # segments that are one with the segment before them
    for piece in pieces:
        together.update(range(bisect_right(starts, piece.start), bisect_right(starts, piece.end - 1)))
    result: list[Span] = []
    for index, (start, end) in enumerate(segments):
        if index in together and result:
            result[-1] = (result[-1][0], end)
        else:
            result.append((start, end))
    return result


def _home(piece: Piece, segments: Sequence[Span]) -> int:
    """The segment that has most of the token's characters, the first of them where several have as many."""
    first = max(bisect_right(segments, piece.start, key=lambda segment: segment[0]) - 1, 0)
    last = max(bisect_right(segments, piece.end - 1, key=lambda segment: segment[0]), first + 1)
    return max(range(first, last), key=lambda index: _shared(piece, segments[index]))


def _shared(piece: Piece, segment: Span) -> int:
    return min(piece.end, segment[1]) - max(piece.start, segment[0])


def _unit(text: str, sequence: int, pieces: Sequence[Piece], segment: Span) -> Unit:
    """A unit of the tokens; what of its segment was cut off, as the text was too long, is not in its span."""
    solid = [piece for piece in pieces if not piece.blank] or pieces
    start = max(min(piece.start for piece in solid), segment[0])
    end = min(max(piece.end for piece in solid), segment[1])
    return Unit(text[start:end], (start, end), tuple(piece.position for piece in pieces), sequence)


def _own(encoded: Encoded, granularity: Sequence[Span] | Sequence[Sequence[Span]]) -> list[Unit]:
    found = []
    for sequence, (text, spans) in enumerate(zip(encoded.joined, _by_text(encoded, granularity), strict=True)):
        pieces = [piece for piece in encoded.pieces() if piece.sequence == sequence]
        ordered = sorted(spans)
        for index, (start, end) in enumerate(ordered):
            if not 0 <= start < end <= len(text):
                raise ValueError(f"a span must be (first, last + 1) within the {len(text)} characters of text "
                                 f"{sequence}, but got {(start, end)}")
            if index and start < ordered[index - 1][1]:
                raise ValueError(f"spans must not overlap, but in text {sequence} {(start, end)} begins before "
                                 f"{ordered[index - 1]} ends")
        members: dict[Span, list[int]] = {span: [] for span in ordered}
        for piece in pieces:
            span = max(ordered, key=lambda one, piece=piece: _shared(piece, one), default=None)  # type: ignore[misc]
            if span is not None and _shared(piece, span) > 0:
                members[span].append(piece.position)
        for span in spans:
            if not members[span]:
                raise ValueError(f"a span must hold a token, but {span} of text {sequence}, {text[slice(*span)]!r}, "
                                 "has none: it is white space, a smaller part of a token than another span has, or "
                                 "beyond where the text was cut")
            found.append(Unit(text[slice(*span)], span, tuple(members[span]), sequence))
    return found


def _by_text(encoded: Encoded, granularity: Sequence[Span] | Sequence[Sequence[Span]]) -> list[list[Span]]:
    given = [list(item) for item in granularity]
    n_texts = len(encoded.joined)
    if n_texts == 1 and all(isinstance(part, int) for item in given for part in item):
        given = [given]  # type: ignore[list-item]
    if len(given) != n_texts:
        raise ValueError(f"there must be a sequence of spans for each of the {n_texts} texts, but got {len(given)}")
    result = []
    for spans in given:
        for span in spans:
            if not (isinstance(span, Sequence) and len(span) == 2 and all(isinstance(part, int) for part in span)):
                raise ValueError(f"a span must be two integers, (first, last + 1), but got {span!r}")
        result.append([(span[0], span[1]) for span in spans])  # type: ignore[index]
    return result
