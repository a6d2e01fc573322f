"""Words and sentences of plain text, each expectation written by hand."""

# ruff: noqa: RUF001 - the stops and quotes of several scripts look like those of ours

import pytest

from pnpx.text.segment import sentences, words


def cut(split, text):
    return [text[start:end] for start, end in split(text)]


@pytest.mark.parametrize("text, expected", [
    ("", []), (" \n\t", []),
    ("A film, of rare beauty.", ["A", "film", ",", "of", "rare", "beauty", "."]),
    ("don't l’été 'tis rock'n'roll", ["don't", "l’été", "'", "tis", "rock'n'roll"]),
    ("3.14 1,000 a,b 5.", ["3.14", "1,000", "a", ",", "b", "5", "."]),
    ("wait... what?!", ["wait", "...", "what", "?", "!"]),
    ("well-made snake_case", ["well", "-", "made", "snake_case"]),
    ("cafe\u0301 is", ["cafe\u0301", "is"]),
    ("हिन्दी है", ["हिन्दी", "है"]),
    ("日本は", ["日", "本", "は"]), ("テスト", ["テスト"]), ("ไทย", ["ไ", "ท", "ย"]), ("ที่", ["ที่"]),
    ("🙂🙂 👩\u200d👧!", ["🙂", "🙂", "👩\u200d👧", "!"]),
    ("👍🏽👍 🇫🇷🇩🇪 ☀\ufe0f☀", ["👍🏽", "👍", "🇫🇷", "🇩🇪", "☀\ufe0f", "☀"]),
])
def test_words(text, expected):
    assert cut(words, text) == expected


@pytest.mark.parametrize("expected", [
    ["One.", "Two!", "Three?"],
    ["It cost 3.50 in 1999.", "Then 4."],
    ["Mr. Smith met Dr. J. R. Lee at 5 p.m. in the U.S. Army base.", "He left."],
    ["I like fruit, e.g. apples, etc. and so on.", "Fine."],
    ["It has apples, pears, etc.", "The rest is gone."],
    ["See Fig. 3 and No. 5.", "No.", "I will not."],
    ['"Really?" he asked.', '"Yes!"', "She said (quietly.)", "Done."],
    ["Wait... what?", "Well…", "Yes."],
    ["Visit example.com or node.js today.", "Ok."],
    ["Am 3. Mai kam z.B. Herr Dr. Müller.", "Er ging."],
    ["¿Qué?", "¡No!", "Bueno."],
    ["What?!", "No!!!", "Ok"],
], ids=lambda expected: expected[0])
def test_sentences_with_spaces(expected):
    assert cut(sentences, " ".join(expected)) == expected
    assert cut(sentences, f"  {'   '.join(expected)}\n") == expected


@pytest.mark.parametrize("text, expected", [
    ("", []), ("  \n ", []), ("...", ["..."]), ("no stop", ["no stop"]),
    ("すごい。本当！そう", ["すごい。", "本当！", "そう"]),
    ("「行く。」と言った。終わり。", ["「行く。」と言った。", "終わり。"]),
    ("「行く。」「はい。」", ["「行く。」", "「はい。」"]),
    ("यह है। वह है।", ["यह है।", "वह है।"]),
    ("هل هذا جيد؟ نعم.", ["هل هذا جيد؟", "نعم."]),
    ("it was bad. i left.", ["it was bad.", "i left."]),  # a text without capitals
    ("It was approx. twenty. I left", ["It was approx. twenty.", "I left"]),
    ("A title\n\nThe text goes\non here. End", ["A title", "The text goes\non here.", "End"]),
    ("- one\n- two\r\nThree", ["- one", "- two", "Three"]),
    ("1. First\n2. Second", ["1. First", "2. Second"]),
    ("Plan in 1995. 2. Second", ["Plan in 1995.", "2. Second"]),
    ("We saw the sun. Birds sang.", ["We saw the sun.", "Birds sang."]),
    ("So do I. The end.", ["So do I.", "The end."]),
])
def test_sentences(text, expected):
    assert cut(sentences, text) == expected


def test_every_character_but_white_space_is_in_exactly_one():
    text = 'Mr. X said: "Go!" (Now.) 3.5 km… ok?!\n\n「そう。」と。 U.S. e.g. a.b \u2028 end . . ! x'
    for split in (words, sentences):
        spans = split(text)
        covered = [index for start, end in spans for index in range(start, end)]
        assert covered == sorted(set(covered))
        assert {i for i, c in enumerate(text) if not c.isspace()} <= set(covered)
        assert all(text[start:end] == text[start:end].strip() != "" for start, end in spans)
    assert all(not text[i].isspace() for start, end in words(text) for i in range(start, end))
