"""The page: everything of the report is on it, nothing is fetched, and no string becomes markup."""

import base64
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from pnpx.report import Failure, Panel, Report, Sample, Section, render
from pnpx.report.render import _duration

HOSTILE = "</style></title></code><script>alert(1)</script><img src=x onerror=alert(1)>\"' onload='x {{ 7*7 }} &amp;"
VOID = {"meta", "img", "br", "link", "input", "hr"}


class Page(HTMLParser):
    """The elements of a page, and whether they are well nested."""

    def __init__(self, source):
        super().__init__()
        self.elements, self.open, self.words = [], [], []
        self.feed(source)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if not self.open or self.open[-1] != "style":
            self.words.append(data)

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())


@pytest.fixture
def png(tmp_path):
    figure = Figure(figsize=(2, 1), dpi=100)
    FigureCanvasAgg(figure).print_png(tmp_path / "a.png")
    return tmp_path / "a.png"


def full(png, text="ordinary"):
    """A report with ``text`` in each of its strings."""
    panel = Panel(explainer=text, layer=text, parameters={text: text, "noise_level": 0.1}, png=png, target=text,
                  seconds=61.0, notes={text: text})
    sample = Sample(index=17, input_png=png, label=text, prediction=text, probability=0.912, panels=[panel] * 2,
                    missing=[Failure(model=text, explainer=text, layer=text, message=text)])
    section = Section(model=text, architecture=text, n_parameters=12345, data=text, accuracy=0.9731, samples=[sample])
    return Report(title=text, created=text, settings=text, sections=[section], versions={text: text},
                  failures=[Failure(model=text, explainer=text, layer=text, message=text)])


def rendered(report, tmp_path):
    render(report, tmp_path / "report.html")
    return (tmp_path / "report.html").read_text("utf-8")


def test_everything_is_on_the_page(png, tmp_path):
    panel = Panel("SmoothGrad", "conv2", {"n_iter": 20}, png, "seven", 0.25, {"completeness gap": "0.013"})
    sample = Sample(1503, png, "seven", "one", 0.912, [panel, replace(panel, explainer="VarGrad", layer=None)])
    section = Section("digits_cnn", "two convolutions", 12345, "digits", 0.9731, [sample])
    report = Report("My run", "2026-01-02", "models: [digits_cnn]", [section],
                    [Failure("digits_cnn", "Broken", "fc9", "no module 'fc9'")], {"torch": "2.9.0"})
    page = Page(rendered(report, tmp_path))
    for words in ["My run", "2026-01-02", "digits_cnn", "architecture two convolutions", "parameters 12,345",
                  "data digits", "held-out accuracy 97.3%", "Sample 1503", "label seven", "predicted one",
                  "probability 91.2%", "✗ mistake", "SmoothGrad at conv2", "VarGrad at input", "target seven · 0.25 s",
                  "completeness gap 0.013", "n_iter 20", "Failures", "digits_cnn Broken fc9 no module 'fc9'",
                  "models: [digits_cnn]", "torch 2.9.0", "model 1", "sample 1",
                  "explainers 2", "explanations 2", "spent explaining 0.5 s", "failure 1"]:
        assert words in page.text, words
    assert page.all("html") == [{"lang": "en"}]


def test_mistakes_are_marked_and_only_they(png, tmp_path):
    right = full(png)
    assert "✓ right" in rendered(right, tmp_path) and "✗" not in rendered(right, tmp_path)
    (section,), (sample,) = right.sections, right.sections[0].samples
    for changes, words in [({"label": "other"}, True), ({"label": None}, False)]:
        source = rendered(replace(right, sections=[replace(section, samples=[replace(sample, **changes)])]), tmp_path)
        assert ("✗ mistake" in source) is words and "✓ right" not in source


def test_what_is_missing_of_a_sample_is_said_at_it(png, tmp_path):
    failures = [Failure("m", "SquareGrad", "conv1", "RuntimeError: broke"), Failure("m", "Gradient", None, "Key: 3")]
    report = full(png)
    samples = [replace(report.samples[0], missing=[]), replace(report.samples[0], index=4, panels=[], prediction=None,
                                                               probability=None, missing=failures)]
    source = rendered(replace(report, sections=[replace(report.sections[0], samples=samples)]), tmp_path)
    whole, bad = source.partition("</article>")[0], source.partition("</article>")[2].partition("</article>")[0]
    assert Page(bad + "</article>").text == (
        "Sample 4 label ordinary Nothing was explained for this sample; see the failures . "
        "SquareGrad at conv1 failed: RuntimeError: broke Gradient at input failed: Key: 3")
    assert "✓ right" in whole and "failed:" not in whole  # and of the other it is not known


def test_images_are_inside(png, tmp_path):
    page = Page(rendered(full(png), tmp_path))
    sources = [image["src"] for image in page.all("img")]
    assert sources == [f"data:image/png;base64,{base64.b64encode(png.read_bytes()).decode()}"] * 3
    assert {(image["width"], image["height"]) for image in page.all("img")} == {("200", "100")}
    assert all(len(image["alt"]) > 10 for image in page.all("img"))
    assert {figure["style"] for figure in page.all("figure")} == {"--inches: 2.00"}


def test_wide_inputs_get_a_row_of_their_own(png, tmp_path):
    report = full(png)
    FigureCanvasAgg(Figure(figsize=(6, 2), dpi=100)).print_png(tmp_path / "wide.png")
    sample = replace(report.samples[0], input_png=tmp_path / "wide.png")
    wide = replace(report, sections=[replace(report.sections[0], samples=[sample])])
    assert Page(rendered(report, tmp_path)).all("article")[0]["class"] == "sample card"
    assert Page(rendered(wide, tmp_path)).all("article")[0]["class"] == "sample card wide"


def test_needs_no_network_and_runs_no_script(png, tmp_path):
    source = rendered(full(png), tmp_path)
    page = Page(source)
    assert "://" not in source and "url(" not in source and "@import" not in source
    fetching = {"script", "link", "iframe", "object", "embed", "base", "form"}
    assert fetching.isdisjoint(name for name, _ in page.elements)
    for _, attributes in page.elements:
        assert not [name for name in attributes if name.startswith("on")]
        assert attributes.get("src", "data:image/png").startswith("data:image/png")
        assert attributes.get("href", "#").startswith("#")
    (policy,) = [meta["content"] for meta in page.all("meta") if "http-equiv" in meta]
    assert "default-src 'none'" in policy and "script" not in policy


def test_links_lead_somewhere_and_ids_are_unique(png, tmp_path):
    report = full(png)
    page = Page(rendered(replace(report, sections=list(report.sections) * 2), tmp_path))
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    named = [link["href"][1:] for link in page.all("a")]
    named += [attributes["aria-labelledby"] for _, attributes in page.elements if "aria-labelledby" in attributes]
    assert set(named) <= set(ids) and "failures" in named and "model-2-sample-1" in named


def test_no_string_becomes_markup(png, tmp_path):
    plain, hostile = Page(rendered(full(png), tmp_path)), Page(rendered(full(png, HOSTILE), tmp_path))
    assert [name for name, _ in hostile.elements] == [name for name, _ in plain.elements]
    assert [sorted(attributes) for _, attributes in hostile.elements] == [sorted(a) for _, a in plain.elements]
    # All strings come through as they were: as often as the plain ones, with nothing evaluated.
    assert hostile.text.count(" ".join(HOSTILE.split())) == plain.text.count("ordinary")
    assert "49" not in hostile.text


def test_numbers_of_parameters_may_be_anything(png, tmp_path):
    report = full(png)
    panel = replace(report.panels[0], parameters={"a": 0.1, "b": None, "c": ("x", 1), "d": HOSTILE, "e": 1e-7})
    sample = replace(report.samples[0], panels=[panel])
    text = Page(rendered(replace(report, sections=[replace(report.sections[0], samples=[sample])]), tmp_path)).text
    assert "a 0.1 b None c ('x', 1) d </style>" in text and "e 1e-07" in text


def test_what_is_not_known_is_left_out(png, tmp_path):
    sample = Sample(3, None, None, "one", None, [])
    report = replace(full(png), failures=[], sections=[
        Section("m", "a", 1, "d", None, [sample]), Section("n", "a", 1, "d", None, [])])
    text = Page(rendered(report, tmp_path)).text
    for absent in ("label", "probability", "accuracy", "ailure", "mistake", "None"):
        assert absent not in text
    assert "Nothing was explained for this sample." in text and "No samples." in text


def test_surrogates_do_not_stop_it(png, tmp_path):
    assert "a\N{REPLACEMENT CHARACTER}b" in rendered(replace(full(png), title="a\udc80b"), tmp_path)


def test_counts_of_a_report(png):
    report = full(png)
    other = replace(report, sections=list(report.sections) * 2)
    assert (len(other.samples), len(other.panels), other.explainers, other.seconds) == (2, 4, ["ordinary"], 244.0)


@pytest.mark.parametrize("seconds, expected", [
    (0, "0 s"), (0.3149, "0.31 s"), (9.96, "10 s"), (12.4, "12 s"), (59.7, "1 min 0 s"), (185, "3 min 5 s"),
    (7800, "2 h 10 min")])
def test_durations(seconds, expected):
    assert _duration(seconds) == expected


def test_a_missing_or_wrong_image_leaves_the_old_page(png, tmp_path):
    render(full(png), tmp_path / "report.html")
    before = (tmp_path / "report.html").read_bytes()
    with pytest.raises(FileNotFoundError):
        render(full(tmp_path / "gone.png"), tmp_path / "report.html")
    whole = png.read_bytes()
    for damaged in (b"", b"GIF89a", whole[:300], whole[:-1], b"GIF89a" + whole):
        (tmp_path / "b.png").write_bytes(damaged)
        with pytest.raises(ValueError) as error:
            render(full(tmp_path / "b.png"), tmp_path / "report.html")
        said = f"the images of a report must be PNG files, but {str(tmp_path / 'b.png')!r} is none, or is damaged"
        assert str(error.value) == said
    assert (tmp_path / "report.html").read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "b.png", "report.html"]


def test_light_and_dark_and_print(png, tmp_path):
    source = rendered(full(png), tmp_path)
    assert re.search(r"@media \(prefers-color-scheme: dark\)", source) and "@media print" in source
