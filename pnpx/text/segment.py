"""The words and the sentences of a text, whatever tokenizer reads it: character spans, from the text alone."""

# ruff: noqa: RUF001 - the stops and quotes of several scripts look like those of ours

import re
import unicodedata

Span = tuple[int, int]

# Scripts written without spaces, where a word is found by a dictionary: Thai and Lao, Burmese, Khmer, Hiragana, Han.
_UNSPACED = ((0x0E00, 0x0EFF), (0x1000, 0x109F), (0x1780, 0x17FF), (0x3041, 0x3096), (0x3400, 0x4DBF), (0x4E00, 0x9FFF),
             (0xF900, 0xFAFF), (0x20000, 0x3FFFF))
_UNSPACED_FROM = "\u0e00"
_JOINER, _SKIN_TONES, _FLAGS = "\N{ZERO WIDTH JOINER}", ("\U0001f3fb", "\U0001f3ff"), ("\U0001f1e6", "\U0001f1ff")


def words(text: str) -> list[Span]:
    """The spans of the words: runs of letters, digits and underscores, with their accents.

    An apostrophe between letters and a point or comma between digits belong to the word ("don't", "3.14", "1,000");
    any other punctuation is a unit of its own, a run of the same sign together ("...", "!!"). A picture of several
    characters, such as a flag, is one unit. In scripts without spaces each character is one. White space is in none.

    >>> [text[start:end] for text in ["Don't go: it's 3.5 km..."] for start, end in words(text)]
    ["Don't", 'go', ':', "it's", '3.5', 'km', '...']
    """
    found: list[Span] = []
    before = "space"
    for index, letter in enumerate(text):
        kind = _kind(text, index)
        if before != "space" and kind != "space" and _goes_on(text, index, before, kind, found[-1]):
            found[-1] = (found[-1][0], index + 1)
            before = before if kind == "mark" else kind
        else:
            if not letter.isspace():
                found.append((index, index + 1))
            before = kind
    return found


def is_mark(letter: str) -> bool:
    """Whether it belongs to the character before it: accents, variation selectors, invisible formatting."""
    return unicodedata.category(letter) in ("Mn", "Mc", "Me", "Cf")


def _kind(text: str, index: int) -> str:
    letter = text[index]
    if letter.isspace():
        return "space"
    if letter.isalnum() or letter == "_":
        if letter < _UNSPACED_FROM:
            return "letter"
        return "lone" if any(low <= ord(letter) <= high for low, high in _UNSPACED) else "letter"
    if is_mark(letter):
        return "mark"
    around = text[index - 1 : index] + text[index + 1 : index + 2]
    if len(around) == 2:
        apostrophe = letter in "'\N{RIGHT SINGLE QUOTATION MARK}" and all(c.isalpha() or is_mark(c) for c in around)
        if apostrophe or (letter in ".," and around.isdigit()):
            return "letter"
    return "sign"


def _goes_on(text: str, index: int, before: str, kind: str, current: Span) -> bool:
    """Whether the character at ``index`` belongs to the ``current`` word, which ends right before it."""
    letter, last = text[index], text[index - 1]
    if kind == "mark" or kind == before == "letter":
        return True
    if kind != "sign" or before != "sign":
        return False
    if last == _JOINER or _SKIN_TONES[0] <= letter <= _SKIN_TONES[1]:
        return True
    if _FLAGS[0] <= letter <= _FLAGS[1]:
        return _FLAGS[0] <= last <= _FLAGS[1] and current == (index - 1, index)
    return letter == last and unicodedata.category(letter) != "So"


_CLOSERS = "\"'\N{RIGHT SINGLE QUOTATION MARK}\N{RIGHT DOUBLE QUOTATION MARK}»›)]}」』）】〉》*_"
# What ends a sentence wherever it is, and what does only before white space or the end of the text.
_FULL_STOPS, _STOPS = "。！？｡．؟۔।॥։።፧။។", ".!?…‽\N{GREEK QUESTION MARK}⁇⁈⁉‼"
_END = re.compile(
    rf"(?P<stops>[{re.escape(_FULL_STOPS)}]+[{re.escape(_FULL_STOPS + _STOPS)}]*|[{re.escape(_STOPS)}]+)"
    rf"(?P<closers>[{re.escape(_CLOSERS)}]*)|(?P<lines>[^\S\n]*(?:\r?\n\s*|[\x0b\x0c\x85\u2028\u2029]\s*))"
)
# A point after the first does not end a sentence; after the second, only a new beginning (the fourth) shows that it
# did; the third are abbreviations before a number alone. The last are for German dates.
_TITLES, _LATER, _NUMBERED, _STARTERS, _MONTHS = (frozenset(row.split()) for row in (
    "mr mrs ms dr prof gen sen rep gov col capt lt sgt rev hon mt vs cf viz approx e.g i.e eg ie eds mme mlle "
    "sra srta dra ud uds dott z.b d.h u.a bzw ca hr fr str",
    "etc al inc ltd co corp jr sr st ave blvd dept est u.s u.k a.m p.m usw ecc ph.d m.d b.c a.d "
    "jan feb apr jun jul aug sep sept oct nov dec tue thu fri",
    "no nos nr p pp fig figs eq eqs vol ch sec art n.º pág",
    "the a an he she it i we they you this that these those there his her its my our their your but and so in on "
    "at for if when while what who why how then now after before as no yes not",
    "januar februar märz april mai juni juli august september oktober november dezember",
))
_LAST_WORD, _NEXT_WORD = re.compile(r"[^\s(\[{\"“«]*\Z"), re.compile(r"[\W_]*(\w+)")


def sentences(text: str) -> list[Span]:
    """The spans of the sentences: every character that is not white space is in exactly one.

    A sentence ends with its stops and the quotes and brackets that close after them. A point does not end one within a
    number, after a title, an abbreviation or an initial, or before a small letter in a text that has capitals. A new
    line ends one unless the text goes on with a small letter. It is a set of rules, without a model: good for prose.

    >>> [text[start:end] for text in ["Dr. Lee paid 3.50. 'Why?' he asked."] for start, end in sentences(text)]
    ['Dr. Lee paid 3.50.', "'Why?' he asked."]
    """
    found: list[Span] = []
    start, cased = 0, text != text.lower()
    for match in _END.finditer(text):
        if match["lines"] is not None:
            ends = match["lines"].count("\n") > 1 or not text[match.end() : match.end() + 1].islower()
        else:
            ends = _ends(text, match, start, cased)
        if ends:
            _append(found, text, start, match.end())
            start = match.end()
    _append(found, text, start, len(text))
    return found


def _append(found: list[Span], text: str, start: int, end: int) -> None:
    inside = text[start:end]
    if inside.strip():
        found.append((start + len(inside) - len(inside.lstrip()), end - len(inside) + len(inside.rstrip())))


def _ends(text: str, match: "re.Match[str]", start: int, cased: bool) -> bool:
    """Whether the stops found end the sentence that began at ``start``."""
    stops, closers, after = match["stops"], match["closers"], text[match.end() : match.end() + 1]
    if stops[0] in _FULL_STOPS:
        return not (closers and after in ("と", "っ"))  # "…。」と" goes on: "..." he said
    if after and not after.isspace():
        return False
    following = _NEXT_WORD.match(text, match.end())
    word = following[1] if following else ""
    if word[:1].islower() and (closers or (cased and stops[-1] not in "!?")):
        return False
    return stops != "." or closers != "" or not _abbreviated(text[start : match.start()], word)


def _abbreviated(before: str, word: str) -> bool:
    """Whether the point between the text ``before`` it and the next ``word`` belongs to an abbreviation or a number."""
    found = _LAST_WORD.search(before)
    last = found[0] if found else ""
    lower, starts = last.lower(), word.lower() in _STARTERS and word[:1].isupper()
    if lower in _TITLES:
        return True
    if lower in _NUMBERED:
        return word[:1].isdigit()
    if lower in _LATER or re.fullmatch(r"(?:[^\W\d_]\.)*[^\W\d_]", last):  # an initial, or several: "J", "U.S"
        return bool(word) and not starts
    if last.isdigit():  # "1. First" at the beginning of a line, or a German date
        return not before[: -len(last)].strip() or (len(last) <= 2 and word.lower() in _MONTHS)
    return False
