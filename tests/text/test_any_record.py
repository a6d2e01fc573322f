"""Whatever is in a record: it is saved without loss, and neither its page nor its print is steered by it."""

import io
import math
import random
import re
from dataclasses import fields
from html.parser import HTMLParser

import pytest
import torch

from pnpx.text import TextExplanation, Unit
from pnpx.text.terminal import render

LETTERS = [
    "a", "é", "e\u0301", "👩‍👩‍👧", "🙂", "\u202e", "שלום", "مرحبا", "日本", "\U0001d518", "w" * 200,
    "$x^2$", "\\frac", "%s", "$", "`", "\x00", "\x1b[31m", "\x9b31m", "\x7f", "\x85", "\r", "\n", "\t", " ",
    "\u200b", "\u2028", "\ufeff", "\uffff", "\ud800", "\udfff", "<b>", "</style>", "</script><script>x",
    "&amp;", '"', "'", "{{ 7*7 }}", "{% y %}", "]]>", "<!--",
]
STEERING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")


class Strange:
    """Records drawn at random, of the strangest parts."""

    def __init__(self, seed):
        self.random = random.Random(seed)

    def text(self, most=8):
        return "".join(self.random.choice(LETTERS) for _ in range(self.random.randint(0, most)))

    def number(self):
        return self.random.choice([0.0, -0.0, 1.0, -1.0, math.nan, math.inf, -math.inf, 1e-320, 1e308, -1e308,
                                   self.random.gauss(0, 1)])

    def units(self, texts):
        found = []
        for sequence, text in enumerate(texts):
            place = 0
            while place < len(text) and self.random.random() < 0.9:
                start = min(len(text), place + self.random.randint(0, 2))
                end = min(len(text), start + self.random.randint(0, 4))
                found.append(Unit(text[start:end], (start, end), (len(found),), sequence))
                place = max(end, place + 1)
        for _ in range(self.random.randint(0, 2)):
            found.insert(self.random.randint(0, len(found)), Unit(self.text(2), (0, 0), (0,), None))
        return tuple(found)

    def record(self):
        chance = self.random.random
        texts = tuple(self.text() for _ in range(self.random.choice([1, 1, 2])))
        units = self.units(texts)
        n_rows = self.random.choice([None, 0, 1, 2, 14])
        rows = 1 if n_rows is None else n_rows
        dtype = self.random.choice([torch.float64, torch.float32, torch.float16, torch.bfloat16])
        shape = (len(units),) if n_rows is None else (n_rows, len(units))
        described = {"name": self.text(2), "layer": self.text(2), self.text(2): self.number()}
        numbers = torch.tensor([self.number() for _ in range(rows * len(units))], dtype=dtype)
        return TextExplanation(
            texts=texts, units=units, scores=numbers.reshape(shape),
            targets=tuple(self.random.choice([0, "x", (1, 2)]) for _ in range(rows)) if chance() < 0.5 else (),
            target_names=tuple(self.text(3) for _ in range(rows)) if chance() < 0.7 else (),
            probabilities=tuple(self.number() for _ in range(rows)) if chance() < 0.5 else None,
            prediction=self.random.choice([None, self.text(3)]), probability=self.random.choice([None, self.number()]),
            generation=chance() < 0.4, granularity=self.text(2), aggregation=self.random.choice([None, self.text(2)]),
            explainer=described if chance() < 0.6 else {}, seconds=self.number(),
            diagnostics={self.text(2): torch.tensor([self.number()]), self.text(3): self.text(2)})


def same(one, other):
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and one.shape == other.shape and same(one.tolist(), other.tolist())
    if isinstance(one, float):
        return type(other) is float and (one == other or (math.isnan(one) and math.isnan(other)))
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return type(one) is type(other) and len(one) == len(other) and all(map(same, one, other))
    return type(one) is type(other) and one == other


class Tags(HTMLParser):
    """The elements of a page."""

    def __init__(self, source):
        super().__init__()
        self.found = []
        self.feed(source)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, [name for name, _ in attrs]))


@pytest.mark.parametrize("seed", range(60))
def test_whatever_is_in_it(seed, tmp_path):
    record = Strange(seed).record()
    record.save(tmp_path / "a.json")
    after = TextExplanation.load(tmp_path / "a.json")
    names = [item.name for item in fields(record) if item.name != "units"]
    assert all(same(getattr(record, name), getattr(after, name)) for name in names)
    assert after.units == record.units
    for source in (record.to_html(), record._repr_html_()):
        assert STEERING.search(source) is None
        tags = Tags(source).found
        assert not {tag for tag, _ in tags} & {"script", "img", "b onload", "iframe", "object", "link", "base"}
        assert not [name for _, names in tags for name in names if name.startswith("on")]
        source.encode("utf-8")
    assert STEERING.search(str(record)) is None
    for colours in ("truecolor", "256"):
        assert STEERING.search(re.sub("\x1b\\[(0|48;[0-9;]+)m", "", render(record, colours=colours))) is None
    record.show(file=io.TextIOWrapper(io.BytesIO(), encoding="ascii"))


@pytest.mark.filterwarnings("ignore:Glyph", "ignore:overflow")
@pytest.mark.parametrize("seed", range(0, 60, 10))
def test_whatever_is_in_it_is_drawn(seed):
    content = io.BytesIO()
    Strange(seed).record().plot().savefig(content, format="png")
    assert content.getvalue().startswith(b"\x89PNG")


def test_two_halves_of_a_character_are_not_made_one(tmp_path):
    """JSON writes them as it writes the character, which is another text."""
    halves, text = "\ud83d" + "\ude42", "🙂"
    assert halves != text
    for given in (halves, text, "\ude42\ud83d"):
        record = TextExplanation((given,), (), torch.zeros(0), diagnostics={given: given, "$utf8": given})
        record.save(tmp_path / "a.json")
        after = TextExplanation.load(tmp_path / "a.json")
        assert after.texts == (given,) and after.diagnostics == {given: given, "$utf8": given}


def test_special_tokens_do_not_decide_in_which_direction_a_text_is_read():
    text = "שלום"
    record = TextExplanation((text,), (Unit("[CLS]", (0, 0), (0,), None), Unit(text, (0, 4), (1,))), torch.ones(2))
    assert re.search(r'class="unit q12 mark" dir="ltr"[^>]*>\[CLS\]', record.to_html())
