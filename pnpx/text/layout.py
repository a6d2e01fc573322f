"""How an explained text is laid out, on a page, in a terminal or in a figure: fragments, some of them of a unit."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pnpx.text.granularity import Unit

_PICTURES = {code: chr(0x2400 + code) for code in range(32) if chr(code) not in "\n\t"} | {0x7F: "␡"}
_PICTURES |= {code: "\N{REPLACEMENT CHARACTER}" for code in [*range(0x80, 0xA0), *range(0xD800, 0xE000)]}
# Overrides and isolates of the direction of writing would go on in what stands after the text (UAX 9, section 2).
_PICTURES |= {code: "\N{REPLACEMENT CHARACTER}" for code in [*range(0x202A, 0x202F), *range(0x2066, 0x206A)]}
_BLANKS = {"\n": "⏎", "\t": "→", " ": "␣"}


@dataclass(frozen=True)
class Fragment:
    """Some characters to show."""

    text: str
    unit: int | None
    """The unit that they are of; None for what is in none, such as the space between words."""
    kind: str = "text"
    """"text" as the user wrote it; "mark" for what stands for a token without characters of its own: a special token,
    white space, a further part of a character that several tokens share."""


def layout(texts: Sequence[str], units: Sequence[Unit]) -> list[list[Fragment]]:
    """For each text its fragments: together all of its characters, each unit at its place.

    Special tokens stand where they are among the tokens; those between two texts are at the end of the first.
    """
    inside = sorted((index for index, unit in enumerate(units) if unit.sequence is not None),
                    key=lambda index: (units[index].sequence, units[index].span, units[index].tokens))
    outside = sorted((index for index, unit in enumerate(units) if unit.sequence is None),
                     key=lambda index: units[index].tokens)
    blocks: list[list[Fragment]] = [[] for _ in texts]
    cursors = [0] * len(texts)
    before = 0  # the text of the unit before
    for index in inside:
        unit = units[index]
        sequence = unit.sequence or 0
        while outside and units[outside[0]].tokens < unit.tokens:
            apart = outside.pop(0)
            blocks[before if cursors[before] else sequence].append(Fragment(visible(units[apart].text), apart, "mark"))
        blocks[sequence] += _placed(texts[sequence], cursors[sequence], unit, index)
        cursors[sequence] = max(cursors[sequence], unit.span[1])
        before = sequence
    for sequence, (text, cursor) in enumerate(zip(texts, cursors, strict=True)):
        if text[cursor:]:
            blocks[sequence].append(Fragment(visible(text[cursor:]), None))
    if blocks:
        blocks[before] += [Fragment(visible(units[index].text), index, "mark") for index in outside]
    return blocks


def visible(text: str) -> str:
    """The text with a picture for each control character, which would steer the terminal or turn around what stands
    after it, and none that is no text."""
    return text.translate(_PICTURES)


def blank(text: str) -> str:
    """White space that can be seen: "⏎", "→", "␣"; new lines break the line as well."""
    return "".join(_BLANKS.get(letter, "␣") + ("\n" if letter == "\n" else "") for letter in text)


def _placed(text: str, cursor: int, unit: Unit, index: int) -> Iterator[Fragment]:
    """What stands before the unit, and the unit."""
    start, end = unit.span
    if start > cursor:
        yield Fragment(visible(text[cursor:start]), None)
    fresh = text[max(start, cursor) : end]
    if start == end:
        yield Fragment(visible(unit.text), index, "mark")
    elif not fresh:  # a character that several tokens share is shown once
        yield Fragment("·", index, "mark")
    elif fresh.isspace():
        yield Fragment(blank(fresh), index, "mark")
    else:
        yield Fragment(visible(fresh), index)
