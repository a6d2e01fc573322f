"""The record: checked, saved and loaded to the last bit, drawn, and printed."""

# ruff: noqa: RUF001 - numbers are shown with minus signs

import io
import json
import math
from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from matplotlib.patches import FancyBboxPatch
from matplotlib.text import Text

from pnpx.plots.style import INK, MUTED
from pnpx.text import TextExplanation, Unit
from pnpx.text.colours import STEPS, Scale, contrast, paint
from pnpx.text.layout import Fragment, layout
from pnpx.text.terminal import render, supported

TEXT = "Zoë is\nnot 🙂."
UNITS = (Unit("[CLS]", (0, 0), (0,), None), Unit("Zoë", (0, 3), (1,)), Unit("is", (4, 6), (2,)),
         Unit("not", (7, 10), (3,)), Unit("🙂", (11, 12), (4, 5)), Unit(".", (12, 13), (6,)))


def example(**changes):
    scores = torch.tensor([[0.0, 0.1, -0.5, 2.0, 1 / 3, 1e-30], [0.0, -1.0, 0.0, 0.0, 0.0, 0.0]])
    return replace(TextExplanation(
        texts=(TEXT,), units=UNITS, scores=scores, targets=(1, 0), target_names=("GOOD", "BAD"),
        probabilities=(0.75, 0.25), prediction="GOOD", probability=0.75, explainer={"name": "SquareGrad", "n_iter": 50},
        seconds=0.125), **changes)


def same(one, other):
    if isinstance(one, torch.Tensor):
        equal = one.dtype == other.dtype and one.shape == other.shape
        return equal and bool(((one == other) | (one.isnan() & other.isnan())).all())
    if isinstance(one, float):
        return type(other) is float and (one == other or (math.isnan(one) and math.isnan(other)))
    if isinstance(one, dict):
        return type(other) is dict and list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return type(one) is type(other) and len(one) == len(other) and all(map(same, one, other))
    return type(one) is type(other) and one == other


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_save_and_load_lose_nothing(dtype, tmp_path):
    numbers = torch.randn(2, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 1e-5
    numbers[0, :4] = torch.tensor([math.nan, math.inf, -math.inf, -0.0])
    odd = {"$a": (1, [2.5, None]), "nan": math.nan, "t": torch.tensor([[True], [False]]), 3: {"x": torch.tensor(7)},
           "big": 2**70, "empty": [{}, (), torch.zeros(0, 3)], "text": "\ud800 </script> \u2028 日本"}
    before = example(scores=numbers.to(dtype), diagnostics=odd, explainer={"name": "X", "layer": ("a", "b")},
                     targets=((1, 2), 3), aggregation=None, probability=None)
    before.save(tmp_path / "a.json")
    after = TextExplanation.load(tmp_path / "a.json")
    for item in fields(TextExplanation):
        if item.name != "units":
            assert same(getattr(before, item.name), getattr(after, item.name)), item.name
    assert after.units == before.units and torch.signbit(after.scores[0, 3])
    json.loads((tmp_path / "a.json").read_text("ascii"), parse_constant=pytest.fail)  # JSON that any program reads
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_numpy_in_the_parameters_is_saved_as_python(tmp_path):
    example(explainer={"name": "X", "n": np.int64(3), "w": np.array([0.1, 2.0])}).save(tmp_path / "a.json")
    assert TextExplanation.load(tmp_path / "a.json").explainer == {"name": "X", "n": 3, "w": [0.1, 2.0]}


def test_what_cannot_be_saved_leaves_the_old_file(tmp_path):
    example().save(tmp_path / "a.json")
    before = (tmp_path / "a.json").read_bytes()
    with pytest.raises(TypeError) as error:
        example(explainer={"name": "X", "models": [object()]}).save(tmp_path / "a.json")
    assert str(error.value) == (
        "to be saved, explainer.models.0 must be made of tensors, numbers, strings, None, lists, tuples and mappings, "
        "but got object; put its name there instead, by dataclasses.replace")
    assert (tmp_path / "a.json").read_bytes() == before
    with pytest.raises(FileNotFoundError):
        example().save(tmp_path / "none" / "a.json")


@pytest.mark.parametrize("content, message", [
    ("{", "is no JSON file, or a damaged one: "),
    ("[1]", "holds no explanation of a text, but something else than TextExplanation.save writes"),
    ('{"format": "pnpx.text_explanation", "version": 9}',
     "is of format version 9, and this pnpx reads version 1; load it with the pnpx that saved it, or a later one"),
    ('{"format": "pnpx.text_explanation", "version": 1}', "is a damaged explanation of a text: KeyError('texts')"),
])
def test_files_that_are_none(content, message, tmp_path):
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(ValueError) as error:
        TextExplanation.load(tmp_path / "a.json")
    assert str(error.value).startswith(f"{str(tmp_path / 'a.json')!r} {message}")


@pytest.mark.parametrize("changes, message", [
    ({"scores": torch.zeros(5)},
     "scores must be (units,) or (targets, units) for the 6 units, but their shape is (5,)"),
    ({"target_names": ("a",)}, "target_names must hold one value for each of the 2 rows of the scores, but holds 1"),
    ({"probabilities": (0.5,) * 3},
     "probabilities must hold one value for each of the 2 rows of the scores, but holds 3"),
    ({"texts": ()}, "unit 'Zoë' is of text 0, but there are 0 texts"),
])
def test_records_that_cannot_be(changes, message):
    with pytest.raises(ValueError) as error:
        example(**changes)
    assert str(error.value) == message


def test_what_it_says():
    one = example()
    assert one.words == ["[CLS]", "Zoë", "is", "not", "🙂", "."] and one.spans[4] == (11, 12) and len(one) == 6
    assert one.strongest(0, 3) == [3, 2, 4] and one.strongest(1) == [1]
    assert repr(one) == f"TextExplanation(SquareGrad, 6 units (word), scores=(2, 6), {TEXT!r})"
    assert one.generated is None and example(generation=True).generated == ("GOOD", "BAD")
    assert example(explainer={"name": "VarGrad", "layer": "emb"}).title() == "VarGrad at emb"


def test_layout_has_all_of_the_text_and_marks_the_rest():
    blocks = layout((TEXT,), UNITS)
    assert "".join(piece.text for piece in blocks[0] if piece.kind == "text") == TEXT
    assert blocks[0][0] == Fragment("[CLS]", 0, "mark")
    assert [piece.text for piece in blocks[0] if piece.unit is None] == [" ", "\n", " "]
    shared = [Unit("🙂", (0, 1), (0,)), Unit("🙂", (0, 1), (1,)), Unit("\n", (1, 2), (2,)), Unit("▁", (2, 2), (3,)),
              Unit("\x1b", (2, 3), (4,))]
    assert layout(("🙂\n\x1bend",), shared) == [[
        Fragment("🙂", 0), Fragment("·", 1, "mark"), Fragment("⏎\n", 2, "mark"), Fragment("▁", 3, "mark"),
        Fragment("␛", 4), Fragment("end", None)]]


def test_layout_of_pairs_and_of_units_in_any_order():
    pair = [Unit("b", (0, 1), (4,), 1), Unit("[SEP]", (0, 0), (3,), None), Unit("y", (2, 3), (2,), 0),
            Unit("x", (0, 1), (1,), 0), Unit("[CLS]", (0, 0), (0,), None), Unit("[SEP]", (0, 0), (5,), None)]
    assert [[piece.text for piece in block] for block in layout(("x y", "b"), pair)] == [
        ["[CLS]", "x", " ", "y", "[SEP]"], ["b", "[SEP]"]]
    assert layout(("",), [Unit("[CLS]", (0, 0), (0,), None)]) == [[Fragment("[CLS]", 0, "mark")]]


def test_colours_can_be_read():
    for scheme in ("light", "dark"):
        for signed in (True, False):
            colours = [paint(step, signed, scheme) for step in Scale(1.0, signed).steps]
            assert min(contrast(back, ink) for back, ink in colours) >= 4.5
            assert len({back for back, _ in colours}) == len(colours)
        # Further from zero is further from the paper, on both sides: brightness alone tells how strong a score is.
        zero = paint(0, True, scheme)[0]
        for sign in (-1, 1):
            distance = [contrast(zero, paint(sign * step, True, scheme)[0]) for step in range(STEPS + 1)]
            assert distance == sorted(distance)
    assert contrast((0, 0, 0), (255, 255, 255)) == pytest.approx(21)


def test_steps_of_scores():
    scale = Scale.of(torch.tensor([-2.0, 1.0, math.nan, math.inf]))
    assert (scale.limit, scale.signed, scale.ticks) == (2.0, True, [-2.0, 0.0, 2.0])
    assert [scale.step(score) for score in (-2.0, 0.0, 1.0, math.inf, math.nan)] == [-STEPS, 0, STEPS // 2, STEPS, None]
    assert Scale.of(torch.zeros(3)).step(0.0) == 0 and Scale.of(torch.zeros(0)).ticks == [0.0]


def test_printed_without_colours():
    assert str(example()) == (
        f"SquareGrad · predicted GOOD (75.0%)\n\n{TEXT}\n\ntarget GOOD (75.0%)\n"
        "strongest: “not” +2, “is” −0.5, “🙂” +0.333, “Zoë” +0.1, “.” +1e−30\n\n"
        "target BAD (25.0%)\nstrongest: “Zoë” −1")
    assert "all scores are 0" in str(example(scores=torch.zeros(2, 6)))
    assert "\x1b" not in str(example(texts=("\x1b[31m" + TEXT,), prediction="\x1b]0;x\x07", target_names=("\x9b", "b")))


def test_printed_in_colours():
    text = render(example(), 0, "truecolor")
    back, ink = paint(STEPS, True)
    assert "\x1b[48;2;{};{};{};38;2;{};{};{}mnot\x1b[0m".format(*back, *ink) in text
    assert text.count("Zoë") == 2 and "BAD" not in text and "Zoë\x1b" in text
    assert "\x1b[48;5;124;38;5;231mnot\x1b[0m" in render(example(), 0, "256")
    lines = render(example(units=(Unit("is\nnot", (4, 10), (0,)),), scores=torch.ones(1), targets=(), target_names=(),
                           probabilities=None), colours="256").split("\n")
    assert all(line.count("\x1b[48") == line.count("\x1b[0m") for line in lines)
    with pytest.raises(IndexError, match="target 2 is out of range: the scores hold 2 rows"):
        render(example(), 2)
    with pytest.raises(ValueError, match="colours must be one of truecolor, 256, none, but got '16'"):
        render(example(), colours="16")


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self):
        return True


@pytest.mark.parametrize("environment, expected", [
    ({"TERM": "xterm-256color"}, "256"), ({"TERM": "xterm", "COLORTERM": "truecolor"}, "truecolor"),
    ({"TERM": "xterm"}, "none"), ({}, "none"), ({"TERM": "dumb", "COLORTERM": "truecolor"}, "none"),
    ({"TERM": "xterm-256color", "NO_COLOR": "1"}, "none"), ({"TERM": "xterm-256color", "NO_COLOR": ""}, "256"),
    ({"WT_SESSION": "x"}, "truecolor")])
def test_colours_that_a_terminal_can_show(environment, expected):
    assert supported(Terminal(), environment) == expected
    assert supported(io.StringIO(), environment) == "none"
    assert supported(io.StringIO(), {"FORCE_COLOR": "1", "TERM": "xterm"}) == "256"


def test_show(monkeypatch, capsys):
    for name in ("NO_COLOR", "COLORTERM", "FORCE_COLOR", "WT_SESSION"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    terminal = Terminal()
    example().show(file=terminal)
    assert "\x1b[48;5;" in terminal.getvalue()
    example().show()
    assert capsys.readouterr().out == str(example()) + "\n"
    narrow = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    example().show(file=narrow)  # prints what it can


def test_generated_tokens_are_few_at_a_time():
    many = example(scores=torch.ones(20, 6), targets=(), target_names=tuple(f" t{index}" for index in range(20)),
                   probabilities=None, generation=True)
    assert "token 12 ' t11'" in str(many) and "token 13" not in str(many)
    assert str(many).endswith("(8 more generated tokens; show them with targets=[...])")
    assert "token 20 ' t19'" in render(many, [-1])


@pytest.mark.filterwarnings("ignore:Glyph")
def test_plot():
    figure = example().plot()
    texts = [text.get_text() for axes in figure.findobj(lambda item: hasattr(item, "texts")) for text in axes.texts]
    assert texts.count("not") == 2 and "target GOOD (75.0%)" in texts and "target BAD (25.0%)" in texts
    (title, subtitle), one = figure.texts, example().plot(targets=1)
    assert (title.get_text(), subtitle.get_text()) == ("SquareGrad", "predicted GOOD (75.0%)")
    assert one.texts[1].get_text() == "target BAD (25.0%) · predicted GOOD (75.0%)"
    assert one.get_figheight() < figure.get_figheight()


def test_words_that_were_not_read_are_not_plotted_as_zeros():
    """The last two words are in no unit; the first has a zero, measured, and the second a NaN."""
    record = TextExplanation(("a film of beauty",), (Unit("a", (0, 1), (0,)), Unit("film", (2, 6), (1,))),
                             torch.tensor([0.0, torch.nan]))
    figure = record.plot()
    inks = {text.get_text(): text.get_color() for text in figure.findobj(Text)}
    boxes = [box for box in figure.findobj(FancyBboxPatch) if box.get_visible()]
    assert len(boxes) == 1 and inks["a"] == INK
    assert inks["film"] == inks["of"] == inks["beauty"] == MUTED


def test_plots_of_long_units_stay_inside():
    text = "word " * 80
    record = TextExplanation((text,), (Unit(text.strip(), (0, len(text) - 1), (0,)),), torch.ones(1))
    boxes = [patch for patch in record.plot().findobj() if type(patch).__name__ == "FancyBboxPatch"]
    assert len(boxes) == 80 and max(box.get_x() + box.get_width() for box in boxes) < 6.4
