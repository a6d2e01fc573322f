"""From the encodings of real tokenizers to units, each expectation written by hand."""

import pytest
from tokenizers import decoders

from pnpx.text import Encoded, decoded, units

FAMILIES = ["wordpiece", "byte_level", "untrimmed", "metaspace"]


def encoded(tokenizer, *texts):
    return Encoded.of(tokenizer.encode(*texts, is_pretokenized=not isinstance(texts[0], str)), texts)


def texts_of(found):
    return [unit.text for unit in found]


def tokens_of(encoding, found):
    return [[encoding.tokens[position] for position in unit.tokens] for unit in found]


TEXT = "The films was Naïve Zürich, don't [MASK] cafe\u0301."


def test_tokens_of_wordpiece_show_what_the_user_wrote(wordpiece):
    encoding = encoded(wordpiece, TEXT)
    assert encoding.tokens == ["[CLS]", "the", "film", "##s", "was", "naive", "[UNK]", ",", "don", "'", "t", "[MASK]",
                               "cafe", ".", "[SEP]"]
    shown = ["The", "film", "s", "was", "Naïve", "Zürich", ",", "don", "'", "t", "[MASK]", "cafe\u0301", "."]
    found = units(encoding, "token")
    assert texts_of(found) == shown
    assert [unit.tokens for unit in found] == [(position,) for position in range(1, 14)]
    assert all(TEXT[slice(*unit.span)] == unit.text and unit.sequence == 0 for unit in found)
    everything = units(encoding, "all_tokens")
    assert texts_of(everything) == ["[CLS]", *shown, "[SEP]"]
    assert (everything[0].span, everything[0].sequence, everything[-1].tokens) == ((0, 0), None, (14,))


def test_words_of_wordpiece(wordpiece):
    encoding = encoded(wordpiece, TEXT)
    found = units(encoding, "word")
    assert texts_of(found) == ["The", "films", "was", "Naïve", "Zürich", ",", "don't", "[MASK]", "cafe\u0301", "."]
    assert tokens_of(encoding, found)[1] == ["film", "##s"] and tokens_of(encoding, found)[6] == ["don", "'", "t"]
    assert found[6].span == (28, 33)


WORDS = "the film 🙂 é  good\n\ndon't ."


@pytest.mark.parametrize("family", FAMILIES)
def test_words_are_the_same_for_all_tokenizers(family, request):
    encoding = encoded(request.getfixturevalue(family), WORDS)
    found = units(encoding, "word")
    assert texts_of(found) == ["the", "film", "🙂", "é", "good", "don't", "."]
    assert [unit.span for unit in found] == [(0, 3), (4, 8), (9, 10), (11, 12), (14, 18), (20, 25), (26, 27)]
    held = [position for unit in found for position in unit.tokens]
    assert held == [position for position, sequence in enumerate(encoding.sequence_ids) if sequence == 0]


@pytest.mark.parametrize("family", ["byte_level", "untrimmed"])
def test_bytes_of_a_character_and_white_space_are_with_their_word(family, request):
    encoding = encoded(request.getfixturevalue(family), WORDS)
    held = dict(zip(texts_of(units(encoding, "word")), tokens_of(encoding, units(encoding, "word")), strict=True))
    assert held["film"] == ["Ġfilm"]
    assert held["🙂"] == ["Ġ", "ð", "Ł", "Ļ", "Ĥ"]
    assert held["é"] == ["Ġ", "Ã", "©"]
    assert held["don't"][:2] == ["Ċ", "Ċ"]  # new lines are with the word after them


@pytest.mark.parametrize("family", ["byte_level", "untrimmed"])
def test_tokens_of_byte_level(family, request):
    found = units(encoded(request.getfixturevalue(family), "the film 🙂  x\n"), "token")
    assert [(unit.text, unit.span) for unit in found] == [
        ("the", (0, 3)), ("film", (4, 8)), (" ", (8, 9)), *[("🙂", (9, 10))] * 4, (" ", (10, 11)), (" ", (11, 12)),
        ("x", (12, 13)), ("\n", (13, 14))]


def test_metaspace_puts_a_space_before_the_text_that_is_not_in_it(metaspace):
    encoding = encoded(metaspace, "was it")
    assert encoding.tokens[:3] == ["<s>", "▁", "w"] and encoding.offsets[1:3] == [(0, 1), (0, 1)]
    assert set(encoding.word_ids) == {None, 0}  # one word for all of it
    found = units(encoding, "token")
    assert (found[0].text, found[0].span) == ("▁", (0, 0)) and (found[1].text, found[1].span) == ("w", (0, 1))
    assert [(unit.text, unit.tokens) for unit in units(encoding, "word")] == [("was", (1, 2, 3, 4)), ("it", (5, 6, 7))]


def test_words_that_share_a_token_are_one(unigram):
    encoding = encoded(unigram, "film, of the film… 日本.")
    found = units(encoding, "word")
    assert texts_of(found) == ["film", ",", "of the", "film", "…", "日本", "."]
    assert tokens_of(encoding, found) == [
        ["▁film"], [","], ["▁of▁the"], ["▁film"], [".", ".", "."], ["▁", "日本"], ["."]]


@pytest.mark.parametrize("granularity", ["token", "word", "sentence"])
@pytest.mark.parametrize("family", FAMILIES)
def test_pairs_never_mix(family, granularity, request):
    pair = ("the film. bad", "the film was good.")
    encoding = encoded(request.getfixturevalue(family), *pair)
    found = units(encoding, granularity)
    for unit in found:
        assert {encoding.sequence_ids[position] for position in unit.tokens} == {unit.sequence}
        assert unit.span[0] == unit.span[1] or pair[unit.sequence][slice(*unit.span)] == unit.text
    if granularity == "word":
        assert [(unit.sequence, unit.text) for unit in found] == [
            (0, "the"), (0, "film"), (0, "."), (0, "bad"),
            (1, "the"), (1, "film"), (1, "was"), (1, "good"), (1, ".")]
    if granularity == "sentence":
        assert [(unit.sequence, unit.text) for unit in found] == [
            (0, "the film."), (0, "bad"), (1, "the film was good.")]


@pytest.mark.parametrize("family", FAMILIES)
def test_every_token_is_in_one_sentence(family, request):
    text = "The film was good!\n\nDon't go. The film, the film\n"
    encoding = encoded(request.getfixturevalue(family), text)
    found = units(encoding, "sentence")
    assert texts_of(found) == ["The film was good!", "Don't go.", "The film, the film"]
    held = [position for unit in found for position in unit.tokens]
    assert held == [position for position, sequence in enumerate(encoding.sequence_ids) if sequence == 0]


def test_a_token_across_a_border_is_in_the_sentence_that_has_most_of_it():
    text = "Go! Bad."
    found = units(Encoded((text,), ["Go", "! Bad", "."], [(0, 2), (2, 7), (7, 8)]), "sentence")
    assert [(unit.text, unit.span, unit.tokens) for unit in found] == [("Go", (0, 2), (0,)), ("Bad.", (4, 8), (1, 2))]


def test_words_given_in_words(wordpiece, byte_level):
    given = (["The", "films,don't", "x y"], ["was"])
    encoding = encoded(wordpiece, *given)
    assert encoding.joined == ("The films,don't x y", "was")
    found = units(encoding, "word")
    assert [(unit.sequence, unit.text, unit.span) for unit in found] == [
        (0, "The", (0, 3)), (0, "films,don't", (4, 15)), (0, "x y", (16, 19)), (1, "was", (0, 3))]
    assert tokens_of(encoding, found)[1] == ["film", "##s", ",", "don", "'", "t"]
    assert texts_of(units(encoding, "token"))[:3] == ["The", "film", "s"]
    found = units(encoded(byte_level, ["the", "film", "🙂"]), "word")
    assert [(unit.text, unit.span) for unit in found] == [("the", (0, 3)), ("film", (4, 8)), ("🙂", (9, 10))]


def test_special_tokens_that_the_user_wrote_are_text(wordpiece):
    encoding = encoded(wordpiece, "the [SEP] [MASK]", "film")
    assert [(unit.text, unit.tokens) for unit in units(encoding, "token")] == [
        ("the", (1,)), ("[SEP]", (2,)), ("[MASK]", (3,)), ("film", (5,))]
    marked = Encoded(encoding.texts, encoding.tokens, encoding.offsets, None, encoding.sequence_ids,
                     [1, 0, 1, 1, 1, 0, 1])  # as get_special_tokens_mask has it, by ids alone
    assert units(marked, "token") == units(encoding, "token")


@pytest.mark.parametrize("direction", ["left", "right"])
def test_padding_has_no_units(wordpiece, direction):
    plain = wordpiece.encode("the film")
    padded = wordpiece.encode("the film")
    padded.pad(9, direction=direction, pad_id=0, pad_token="[PAD]")
    shift = 5 if direction == "left" else 0
    for granularity in ("all_tokens", "token", "word", "sentence"):
        expected = [(unit.text, unit.span, tuple(p + shift for p in unit.tokens))
                    for unit in units(Encoded.of(plain, ["the film"]), granularity)]
        found = units(Encoded.of(padded, ["the film"]), granularity)
        assert [(unit.text, unit.span, unit.tokens) for unit in found] == expected
    assert len(units(Encoded.of(padded, ["the film"]), "all_tokens")) == 4


@pytest.mark.parametrize("text", ["", " ", "\n\n"])
@pytest.mark.parametrize("family", FAMILIES)
def test_texts_of_white_space(text, family, request):
    encoding = encoded(request.getfixturevalue(family), text)
    n_tokens = sum(sequence == 0 for sequence in encoding.sequence_ids)
    for granularity in ("word", "sentence"):
        found = units(encoding, granularity)
        assert len(found) == min(n_tokens, 1) and sum(len(unit.tokens) for unit in found) == n_tokens


@pytest.mark.parametrize("side, word, sentence", [("right", ["the", "film"], ["the film"]),
                                                  ("left", ["good", "."], ["good."])])
def test_what_was_cut_off_is_in_no_unit(wordpiece, side, word, sentence):
    encoding = wordpiece.encode("the film was good.")
    encoding.truncate(3, direction=side)
    cut = Encoded.of(encoding, ["the film was good."])
    assert texts_of(units(cut, "word")) == word and texts_of(units(cut, "sentence")) == sentence


def test_own_spans(wordpiece):
    encoding = encoded(wordpiece, "The films was good.", "bad film")
    found = units(encoding, [[(4, 9), (0, 2)], [(0, 8)]])
    assert [(unit.text, unit.span, unit.sequence) for unit in found] == [
        ("films", (4, 9), 0), ("Th", (0, 2), 0), ("bad film", (0, 8), 1)]
    assert tokens_of(encoding, found) == [["film", "##s"], ["the"], ["bad", "film"]]
    single = encoded(wordpiece, "The films was good.")
    assert texts_of(units(single, [(0, 9)])) == texts_of(units(single, [[(0, 9)]])) == ["The films"]
    assert units(single, []) == []


@pytest.mark.parametrize("spans, message", [
    ([(0, 30)], "a span must be (first, last + 1) within the 9 characters of text 0, but got (0, 30)"),
    ([(3, 3)], "a span must be (first, last + 1) within the 9 characters of text 0, but got (3, 3)"),
    ([(4, 9), (0, 5)], "spans must not overlap, but in text 0 (4, 9) begins before (0, 5) ends"),
    ([(3, 4)], "a span must hold a token, but (3, 4) of text 0, ' ', has none: it is white space, a smaller part of a "
               "token than another span has, or beyond where the text was cut"),
    ([[(0, 3)], [(0, 3)]], "there must be a sequence of spans for each of the 1 texts, but got 2"),
    ([[(0, 3, 4)]], "a span must be two integers, (first, last + 1), but got (0, 3, 4)"),
])
def test_own_spans_that_cannot_be(wordpiece, spans, message):
    with pytest.raises(ValueError) as error:
        units(encoded(wordpiece, "the films"), spans)
    assert str(error.value) == message


def test_unknown_granularity(wordpiece):
    with pytest.raises(ValueError) as error:
        units(encoded(wordpiece, "the"), "words")
    assert str(error.value) == ("granularity must be one of all_tokens, token, word, sentence, or character spans, "
                                "but got 'words'; the nearest: 'word'")


@pytest.mark.parametrize("arguments, message", [
    ((("a",), ["a"], []), "offsets must hold one value for each of the 1 tokens, but holds 0"),
    (((["a"],), ["a"], [(0, 1)]),
     "a text given in words needs word_ids, but they are None; take them from a fast tokenizer"),
    ((("a",), ["a"], [(0, 1)], None, [1]), "there are tokens of 2 texts, but texts holds 1"),
])
def test_encodings_that_cannot_be(arguments, message):
    with pytest.raises(ValueError) as error:
        Encoded(*arguments)
    assert str(error.value) == message


def test_ids_alone_give_texts(byte_level, metaspace):
    for tokenizer, text in [(byte_level, "the film 🙂 was.\n"), (metaspace, "the film 🙂é was.")]:
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        decoder = decoders.ByteLevel()
        if tokenizer is metaspace:
            decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(),
                                         decoders.Strip(" ", 1, 0)])
        pieces = decoded(ids, lambda part, t=tokenizer, d=decoder: d.decode([t.id_to_token(i) for i in part]))
        assert len(pieces) == len(ids) and "".join(pieces) == text
        encoding = Encoded.of_pieces(pieces)
        found = {unit.text: unit.tokens for unit in units(encoding, "word")}
        assert list(found)[:3] == ["the", "film", "🙂"] and len(found["🙂"]) >= 4


def test_pieces_and_what_follows():
    prompt = Encoded.of_pieces(["<s>", "The", " film"], [1, 0, 0])
    whole = prompt.then(Encoded.of_pieces([" is", "", "🙂", "</s>"], [0, 0, 0, 1]))
    assert whole.joined == ("The film", " is🙂")
    assert [(unit.text, unit.sequence, unit.tokens) for unit in units(whole, "all_tokens")] == [
        ("<s>", None, (0,)), ("The", 0, (1,)), ("film", 0, (2,)), ("is", 1, (3,)), ("🙂", 1, (4,)), ("🙂", 1, (5,)),
        ("</s>", None, (6,))]
    assert [unit.tokens for unit in units(whole, "word")] == [(1,), (2,), (3,), (4, 5)]
