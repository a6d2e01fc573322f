"""Explanations of texts in a report: as text, each with its own buttons, with nothing of it read as markup."""

from collections import Counter
from html.parser import HTMLParser

import pytest
import torch

from pnpx.report import Panel, Report, Sample, Section, render
from pnpx.text import TextExplanation, Unit

HOSTILE = "</style></title><script>alert(1)</script><img src=x onerror=alert(1)>\"' onload='x {{ 7*7 }} \x1b[31m"


class Page(HTMLParser):
    def __init__(self, source):
        super().__init__()
        self.elements, self.words = [], []
        self.feed(source)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.words.append(data)

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture
def page(tmp_path):
    def page(text, rows=2, n_samples=2, layer=None, probability=0.5):
        record = TextExplanation((text,), (Unit(text, (0, len(text)), (0,)),), torch.ones(rows, 1),
                                 target_names=(text,) * rows, prediction=text,
                                 explainer={"name": "SquareGrad", "layer": text})
        panel = Panel("SquareGrad", layer, {text: text}, tmp_path / "none.png", text, 1.0, {}, record)
        sample = Sample(3, None, text, text, probability, [panel, panel], texts=(text, text))
        section = Section(text, text, 7, text, None, [sample] * n_samples)
        render(Report(text, "now", text, [section], [], {}), tmp_path / "report.html")
        return Page((tmp_path / "report.html").read_text())

    return page


def test_each_explanation_has_its_own_buttons(page):
    found = page("A film.")
    radios = found.all("input")
    assert Counter(radio["name"] for radio in radios) == {
        f"model-1-sample-{sample}-panel-{panel}": 2 for sample in (1, 2) for panel in (1, 2)}
    ids = [attributes["id"] for _, attributes in found.elements if "id" in attributes]
    assert len(ids) == len(set(ids)) and {label["for"] for label in found.all("label")} <= set(ids)
    assert [attributes["dir"] for attributes in found.all("blockquote")] == ["auto"] * 4
    assert found.all("img") == [] and any("choose one with the mouse" in words for words in found.words)


def test_one_target_needs_no_buttons_and_no_hint(page):
    found = page("A film.", rows=1)
    assert found.all("input") == [] and not any("choose one" in words for words in found.words)


def test_nothing_of_a_text_is_markup(page):
    plain, hostile = page("plain"), page(HOSTILE)
    assert [name for name, _ in hostile.elements] == [name for name, _ in plain.elements]
    assert [sorted(attributes) for _, attributes in hostile.elements] == [sorted(a) for _, a in plain.elements]
    visible = HOSTILE.replace("\x1b", "␛")
    assert visible in hostile.words and "49" not in "".join(hostile.words)


def test_only_a_place_that_was_chosen_is_in_the_heading(page):
    """The record itself tells the default one too."""
    assert "SquareGrad at words" in page("words", layer="words").words
    default = page("words")
    assert "SquareGrad" in default.words and "SquareGrad at words" not in default.words and "layer" in default.words


def test_small_probabilities_are_not_zero(page):
    assert "0.031%" in page("A film.", probability=0.00031).words


def test_no_name_turns_around_what_stands_after_it(page):
    found = page("GOOD\N{RIGHT-TO-LEFT OVERRIDE}")
    shown = "".join(found.words) + "".join(str(attributes) for _, attributes in found.elements)
    assert "\N{RIGHT-TO-LEFT OVERRIDE}" not in shown and "GOOD\N{REPLACEMENT CHARACTER}" in found.words
    assert len(found.all("bdi")) > 6


def test_the_style_of_texts_is_there_only_for_texts(page):
    assert ".pnpx-text" in "".join(page("A film.").words)
    empty = page("A film.", n_samples=0)
    assert "--paper" in "".join(empty.words) and ".unit" not in "".join(empty.words)
