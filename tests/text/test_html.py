"""The page: all of the text is on it, every target can be chosen, no string becomes markup, and nothing is fetched."""

# ruff: noqa: RUF001 - numbers are shown with minus signs

import base64
import hashlib
import re
import unicodedata
from dataclasses import replace
from html.parser import HTMLParser

import pytest
import torch
from matplotlib.text import Text

from pnpx.text import Encoded, TextExplanation, Unit, units

HOSTILE = "</script></style></title><img src=x onerror=alert(1)>\"' onload='x {{ 7*7 }} &amp;"
VOID = {"meta", "img", "br", "link", "input", "hr"}


class Page(HTMLParser):
    """The elements of a page with their text, and whether they are well nested."""

    def __init__(self, source):
        super().__init__()
        self.elements, self.open, self.contents = [], [], []
        self.feed(source)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self.contents.append("")
        if tag not in VOID:
            self.open.append((tag, len(self.elements) - 1))

    def handle_endtag(self, tag):
        assert self.open.pop()[0] == tag

    def handle_data(self, data):
        for _, index in self.open:
            self.contents[index] += data

    def all(self, tag, class_=None):
        """(attributes, text) of the elements with this tag, and this among their classes."""
        return [(attributes, text) for (name, attributes), text in zip(self.elements, self.contents, strict=True)
                if name == tag and (class_ is None or class_ in attributes.get("class", "").split())]


def explained(text="A rare\n\nfilm.", n=2, **changes):
    offsets = [found.span() for found in re.finditer(r"\w+|[^\w\s]", text)]
    found = tuple(units(Encoded((text,), [text[slice(*span)] for span in offsets], offsets), "token"))
    scores = torch.linspace(-1, 2, n * len(found)).reshape(n, -1)
    names = tuple(f"CLASS{index}" for index in range(n))
    return replace(TextExplanation((text,), found, scores, target_names=names, prediction="CLASS0", probability=0.5,
                                   explainer={"name": "SquareGrad", "layer": "emb"}), **changes)


def hostile(text):
    """A record with ``text`` in each of its strings."""
    found = (Unit(text, (0, 0), (0,), None), Unit(text, (0, len(text)), (1,)))
    return TextExplanation(
        (text,), found, torch.tensor([[1.0, -1.0], [0.5, 0.0]]), (0, 1), (text, text), (0.5, 0.5), text, 0.5, False,
        "word", text, {"name": text, "layer": text, text: text}, 1.0, {text: text})


def test_the_text_is_whole_for_each_target():
    page = Page(explained().to_html())
    assert [text for _, text in page.all("div", "text")] == ["A rare\n\nfilm."] * 2
    scores = [attributes["data-score"] for attributes, _ in page.all("span") if "data-score" in attributes]
    assert scores == ["−1", "−0.571", "−0.143", "+0.286", "+0.714", "+1.14", "+1.57", "+2"]
    shown = [attributes["class"].split()[1] for attributes, _ in page.all("span") if "data-score" in attributes]
    assert shown == ["n6", "n3", "n1", "p2", "p4", "p7", "p9", "p12"]


def test_targets_are_chosen_by_mouse_and_keyboard():
    page = Page(explained(n=3).to_html())
    radios = [attributes for attributes, _ in page.all("input")]
    assert [radio["type"] for radio in radios] == ["radio"] * 3 and len({radio["name"] for radio in radios}) == 1
    assert ["checked" in radio for radio in radios] == [True, False, False]
    labels = [(attributes["for"], text) for attributes, text in page.all("label")]
    assert labels == [(radio["id"], f"CLASS{index}") for index, radio in enumerate(radios)]
    ((group, _),) = page.all("fieldset")
    ((legend, text),) = page.all("legend")
    assert group["role"] == "radiogroup" and group["aria-labelledby"] == legend["id"] and "targets" in text
    # Right after each button come its label and what it shows, which is how the style sheet knows what to show.
    order = [name for name, attributes in page.elements
             if name in ("input", "label") or "view" in attributes.get("class", "").split()]
    assert order == ["input", "label", "section"] * 3
    style = page.all("style")[0][1]
    assert ".pnpx-text .view { display: none;" in style
    assert ".pnpx-text input:checked + label + .view { display: block; }" in style
    assert not re.search(r"input[^{]*\{[^}]*(display: none|visibility)", style)  # hidden ones get no focus
    assert "input:focus-visible + label" in style


def test_one_target_needs_no_buttons():
    page = Page(explained(n=1, probabilities=(0.25,)).to_html())
    assert page.all("input") == [] and len(page.all("section", "only")) == 1
    assert " ".join(page.all("p", "about")[0][1].split()) == "predicted CLASS0 (50.0%) · target CLASS0 (25.0%)"
    assert Page(explained(n=1, scores=torch.ones(4)).to_html()).all("section", "only")


def test_generated_tokens_are_the_buttons():
    whole = Encoded.of_pieces(["The", " film"]).then(Encoded.of_pieces([" is", "\n"]))
    found = tuple(units(whole, "token"))
    record = TextExplanation(whole.joined, found, torch.tensor([[1.0, 2.0, 0.0, 0.0], [1.0, 2.0, -3.0, 0.0]]),
                             target_names=(" is", "\n"), probabilities=(0.42, 0.1), generation=True, prediction=None)
    page = Page(record.to_html())
    assert [text for _, text in page.all("label")] == ["is", "⏎"]
    assert [text for _, text in page.all("p", "label")] == ["prompt", "generated", "strongest"] * 2
    assert [text for _, text in page.all("div", "text")] == ["The film", " is⏎\n"] * 2
    assert " ".join(page.all("p", "head")[0][1].split()) == "token 1 of 2: is, probability 42.0%"


def test_the_legend_and_the_strongest_have_numbers():
    page = Page(explained().to_html())
    legends = page.all("div", "legend")
    assert [attributes["aria-label"] for attributes, _ in legends] == ["Colours of scores from −2 through 0 to +2"] * 2
    assert [text for _, text in page.all("div", "ticks")] == ["−20+2"] * 2
    assert [text for _, text in page.all("li")][:2] == ["A −1", "rare −0.571"]
    unsigned = Page(explained(scores=torch.tensor([[0.0, 1.0, 2.0, 4.0]] * 2)).to_html())
    assert unsigned.all("div", "legend")[0][0]["aria-label"] == "Colours of scores from 0 through 2 to 4"
    assert {attributes["class"] for attributes, _ in unsigned.all("i")} == {f"q{step}" for step in range(13)}


def test_all_values_are_in_a_table_unless_there_are_too_many():
    page = Page(explained().to_html())
    assert [text for _, text in page.all("td")] == [
        "−1", "+0.714", "−0.571", "+1.14", "−0.143", "+1.57", "+0.286", "+2"]
    assert [text for attributes, text in page.all("th") if attributes["scope"] == "row"] == ["A", "rare", "film", "."]
    assert Page(explained("a " * 3001).to_html()).all("table") == []


@pytest.mark.parametrize("kind", ["page", "snippet"])
def test_no_string_becomes_markup(kind):
    def render(record):
        return Page(record.to_html() if kind == "page" else record._repr_html_())

    plain, page = render(hostile("ordinary")), render(hostile(HOSTILE))
    assert [name for name, _ in page.elements] == [name for name, _ in plain.elements]
    assert [sorted(attributes) for _, attributes in page.elements] == [sorted(a) for _, a in plain.elements]
    assert [text for _, text in page.all("div", "text")] == [HOSTILE + HOSTILE] * 2
    assert page.all("div" if kind == "snippet" else "h1", "title")[0][1] == f"{HOSTILE} at {HOSTILE}"
    assert page.all("label")[0][1] == f"{HOSTILE} 50.0%"
    assert page.all("section")[0][0]["aria-label"] == f"target {HOSTILE}"
    assert "49" not in "".join(page.contents)


def test_it_needs_no_network_and_runs_no_script():
    source = hostile("ordinary").to_html()
    page = Page(source)
    assert "://" not in source and "url(" not in source and "@import" not in source
    fetching = {"script", "link", "iframe", "object", "embed", "base", "form", "img"}
    assert fetching.isdisjoint(name for name, _ in page.elements)
    names = [name for _, attributes in page.elements for name in attributes]
    assert not [name for name in names if name.startswith("on") or name in ("style", "src", "href")]
    policy = next(attributes["content"] for attributes, _ in page.all("meta") if "http-equiv" in attributes)
    digest = base64.b64encode(hashlib.sha256(page.all("style")[0][1].encode()).digest()).decode()
    assert policy == f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"


def test_ids_are_unique_also_in_a_notebook():
    record = explained(n=3)
    for sources in ([record.to_html()], [record._repr_html_(), record._repr_html_()]):
        pages = [Page(source) for source in sources]
        ids = [attributes["id"] for page in pages for _, attributes in page.elements if "id" in attributes]
        assert len(ids) == len(set(ids)) > 6
        assert len({attributes["name"] for page in pages for attributes, _ in page.all("input")}) == len(pages)
        named = [attributes[name] for page in pages for _, attributes in page.elements
                 for name in ("for", "aria-labelledby") if name in attributes]
        assert set(named) <= set(ids)
    assert record.to_html() == record.to_html()
    assert "<html" not in record._repr_html_()


def test_styles_of_a_snippet_reach_nothing_else():
    style = re.sub(r"/\*.*?\*/", "", Page(explained()._repr_html_()).all("style")[0][1])
    selectors = re.findall(r"(?:^|[{}])\s*([^{}]+)\{", style)
    assert len(selectors) > 80
    for part in selectors:
        assert part.startswith("@media") or all(
            one.strip().startswith((".pnpx-text", ".pnpx-page")) for one in re.split(r",(?![^(]*\))", part)), part


def test_light_dark_print_and_right_to_left():
    page = Page(explained("שלום, world").to_html())
    style = page.all("style")[0][1]
    assert "@media screen and (prefers-color-scheme: dark)" in style and "@media print" in style
    assert style.count(".pnpx-text .p12 {") == 2 and "colours */" not in style
    assert {attributes["dir"] for attributes, _ in page.all("div", "text")} == {"auto"}
    assert dict(page.all("html")[0][0])["lang"] == "en"


def test_scores_that_are_no_numbers_and_texts_that_are_no_text():
    page = Page(explained(scores=torch.tensor([[float("nan"), float("inf"), 1.0, -1.0]] * 2)).to_html())
    assert [attributes["data-score"] for attributes, _ in page.all("span") if "data-score" in attributes][:2] == [
        "not a number", "+inf"]
    assert "unit nan" in page.all("span", "unit")[0][0]["class"]
    page = Page(TextExplanation(("",), (), torch.zeros(0)).to_html())
    assert page.all("div", "text")[0][1] == "" and page.all("table") == []
    source = explained("a\ud800b\x00c\x1b\u202ed").to_html()
    source.encode("utf-8")
    assert not set("\x00\x1b\ud800") & set(source)


def test_parts_of_the_text_without_a_score_are_told_apart():
    record = TextExplanation(("seen and cut",), (Unit("seen", (0, 4), (0,)),), torch.ones(1))
    assert [text for _, text in Page(record.to_html()).all("span", "apart")] == [" and cut"]


@pytest.mark.parametrize("code", [*range(0x202A, 0x202F), *range(0x2066, 0x206A)])
def test_names_and_texts_turn_nothing_else_around(code):
    """Unicode's own names say which characters these are."""
    sign = chr(code)
    assert unicodedata.name(sign).split()[-1] in ("OVERRIDE", "EMBEDDING", "ISOLATE", "FORMATTING")
    record = explained(f"A{sign} film", n=2, target_names=(f"GOOD{sign}", "BAD"), prediction=f"GOOD{sign}",
                       probabilities=(0.52, 0.48), explainer={"name": f"Own{sign}", "layer": sign, sign: sign})
    drawn = " ".join(text.get_text() for text in record.plot().findobj(Text))
    for shown in (record.to_html(), str(record), drawn):
        assert sign not in shown and "GOOD\N{REPLACEMENT CHARACTER}" in shown and "52.0%" in shown


@pytest.mark.parametrize("chance, expected", [
    (0.00031, "0.031%"), (0.00096, "0.1%"), (0.00094, "0.094%"), (0.0, "0.0%"), (3e-9, "<0.001%"), (0.0123, "1.2%"),
])
def test_small_probabilities_are_not_zero(chance, expected):
    record = explained(n=2, probabilities=(chance, 0.5), probability=chance)
    text = "".join(text for _, text in Page(record.to_html()).all("label"))
    drawn = [text.get_text() for text in record.plot().findobj(Text)]
    assert "CLASS0 " + expected in text and f"predicted CLASS0 ({expected})" in str(record)
    assert f"target CLASS0 ({expected})" in str(record) and f"target CLASS0 ({expected})" in drawn
    assert f"predicted CLASS0 ({expected})" in drawn


def test_names_are_isolated_from_what_stands_beside_them():
    record = explained(n=2, target_names=("\u05d8\u05d5\u05d1", "BAD"), prediction="\u05d8\u05d5\u05d1")
    page = Page(record.to_html())
    assert [text for _, text in page.all("bdi")].count(record.prediction) == 4  # predicted, button, heading, table
    alone = Page(explained(n=1, target_names=(record.prediction,), prediction=None).to_html())
    assert [text for _, text in alone.all("bdi")] == [record.prediction] * 2


def test_written_whole(tmp_path):
    source = explained().to_html(tmp_path / "a.html")
    assert (tmp_path / "a.html").read_text("utf-8") == source
    with pytest.raises(FileNotFoundError):
        explained().to_html(tmp_path / "none" / "a.html")
    assert [path.name for path in tmp_path.iterdir()] == ["a.html"]
