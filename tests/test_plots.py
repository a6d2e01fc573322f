"""What the figures contain: the panels, the numbers behind the colours, and the words."""

import threading
import warnings
from dataclasses import replace
from itertools import pairwise

import matplotlib.pyplot
import numpy as np
import pytest
import torch
from matplotlib.patches import FancyBboxPatch
from matplotlib.text import Text

import pnpx
from pnpx.explanation import Explanation
from pnpx.plots import plot, plot_input
from pnpx.plots.image import as_image, overlay
from pnpx.plots.style import DIVERGING, SEQUENTIAL, Scale, number, word
from pnpx.plots.tabular import strongest
from pnpx.plots.tokens import ink_on, place
from tests.errors import raises


def explanation(attributions, explained=None, inputs=None, **changes):
    """An explanation of two samples whose second is predicted a dog."""
    explained = attributions if explained is None else explained
    n = len(attributions)
    made = Explanation(
        attributions=attributions, explained=explained, inputs=explained if inputs is None else inputs,
        targets=torch.arange(n), prediction=torch.arange(n), probability=torch.tensor([0.5, 0.982]),
        output=torch.zeros(n, 2), explainer={"name": "SmoothGrad", "layer": None}, seconds=1.0, batch_axes=(0,),
        class_names=["cat", "dog"])
    return replace(made, **changes)


def random(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def images(channels=3, size=8):
    return explanation(random(2, channels, size, size), torch.rand(2, channels, size, size))


def panels(figure):
    """The axes but for colour bars."""
    return [axes for axes in figure.get_axes() if axes.get_label() != "colour bar"]


def bars(figure):
    return [axes for axes in figure.get_axes() if axes.get_label() == "colour bar"]


def texts(figure):
    return [text.get_text() for text in figure.findobj(Text) if text.get_text()]


def shown(axes):
    return np.asarray(axes.images[0].get_array())


def test_an_image_stands_beside_its_map_pooled_over_channels():
    record = images()
    figure = plot(record, 1)
    picture, heat = panels(figure)
    np.testing.assert_allclose(shown(picture), record.inputs[1].permute(1, 2, 0))
    np.testing.assert_allclose(shown(heat), record.attributions[1].sum(0), rtol=1e-5, atol=1e-6)
    assert heat.images[0].get_interpolation() == picture.images[0].get_interpolation() == "nearest"
    assert len(bars(figure)) == 1


def test_the_pooling_can_be_chosen():
    record = images()
    heat = panels(record.plot(1, pooling="l2"))[1]
    np.testing.assert_allclose(shown(heat), record.attributions[1].norm(dim=0), rtol=1e-5)


def test_signed_maps_have_white_at_zero_and_others_begin_there():
    record = images()
    signed = panels(plot(record))[1].images[0]
    limit = record.attributions[0].sum(0).abs().max().item()
    assert signed.get_clim() == pytest.approx((-limit, limit)) and signed.get_cmap().name == DIVERGING.name
    squares = replace(record, attributions=record.attributions.square())
    square = panels(plot(squares))[1].images[0]
    limit = squares.attributions[0].sum(0).max().item()
    assert square.get_clim() == pytest.approx((0, limit)) and square.get_cmap().name == SEQUENTIAL.name


def test_the_colour_bar_has_numbers():
    record = explanation(torch.tensor([[[[-0.5, 0.25]]], [[[1.0, 0.0]]]]))
    (bar,) = bars(plot(record, 0))
    assert [label.get_text() for label in bar.get_yticklabels()] == ["\N{MINUS SIGN}0.5", "0", "0.5"]
    (bar,) = bars(plot(record, 1))
    assert [label.get_text() for label in bar.get_yticklabels()] == ["0", "0.5", "1"]


def test_says_explainer_layer_target_prediction_and_probability():
    record = replace(images(), explainer={"name": "VarGrad", "layer": "conv2"})
    assert {"VarGrad at conv2", "target dog · predicted dog (98.2%)"} <= set(texts(plot(record, 1)))
    bare = replace(record, targets=None, prediction=None, probability=None)
    assert not [text for text in texts(plot(bare)) if "target" in text or "predicted" in text]
    weighted = replace(record, targets=torch.zeros(2, 2))
    assert "weighted output · predicted cat (50.0%)" in texts(plot(weighted))


def test_a_row_for_each_target_all_on_one_scale():
    attributions = random(2, 3, 1, 8, 8)
    record = explanation(attributions, torch.rand(2, 1, 8, 8), targets=torch.tensor([[0, 1, 5], [1, 0, 5]]))
    figure = plot(record, 1)
    axes = panels(figure)
    assert [one.get_title() for one in axes] == ["input", "target dog", "input", "target cat", "input", "target 5"]
    for row in range(3):
        np.testing.assert_allclose(shown(axes[2 * row + 1]), attributions[1, row, 0], rtol=1e-6)
    limit = attributions[1].abs().max().item()
    assert {one.images[0].get_clim() for one in axes[1::2]} == {(-limit, limit)}


def test_a_map_of_another_resolution_is_laid_over_the_input():
    pixels = torch.rand(2, 1, 8, 8)
    record = explanation(random(2, 5, 4, 4), inputs=pixels, explainer={"name": "X", "layer": "conv"})
    picture, heat, over = panels(plot(record, 0))
    assert shown(heat).shape == (4, 4) and shown(over).shape == (8, 8, 3) and shown(picture).shape == (8, 8, 3)
    assert heat.get_title() == "attribution · 4\N{MULTIPLICATION SIGN}4"
    assert len(panels(plot(record, 0, overlay=False))) == 2


def test_large_maps_are_laid_over_the_input_too_and_small_ones_where_asked():
    assert len(panels(plot(images(3, 40)))) == 3
    assert len(panels(plot(images(3, 8)))) == 2
    assert len(panels(plot(images(3, 8), overlay=True))) == 3


def test_the_overlay_is_the_strongest_colour_where_the_map_is_and_grey_where_it_is_zero():
    mixed = overlay(np.zeros((4, 4, 3)), np.array([[1.0, 0.0], [0.0, -1.0]]), Scale.of([np.array([1.0, -1.0])]))
    red, grey, blue = mixed[0, 0], mixed[0, 3], mixed[3, 3]
    assert (mixed[:2, :2] == red).all() and (mixed[2:, 2:] == blue).all()  # each value covers 2 x 2 pixels
    assert red[0] > 2 * red[2] and blue[2] > 2 * blue[0] and grey.tolist() == [grey[0]] * 3


@pytest.mark.parametrize("shape, expected", [((1, 2, 2), (2, 2, 3)), ((3, 2, 4), (2, 4, 3)), ((4, 2, 2), (2, 2, 3)),
                                             ((7, 2, 2), (2, 2, 3)), ((2, 5), (2, 5, 3))])
def test_images_of_any_number_of_channels(shape, expected):
    picture = as_image(np.random.default_rng(0).normal(size=shape))
    assert picture.shape == expected and picture.min() == 0 and picture.max() == 1


def test_a_constant_image_is_grey():
    assert (as_image(np.full((1, 2, 2), -7.0)) == 0.5).all()


def test_a_picture_already_between_0_and_1_is_shown_as_it_is():
    values = np.linspace(0.2, 0.7, 12).reshape(3, 2, 2)
    np.testing.assert_array_equal(as_image(values), np.moveaxis(values, 0, -1))


def test_images_without_a_channel_axis_need_their_kind():
    record = explanation(random(2, 6, 6))
    assert shown(panels(plot(record, kind="image"))[1]).shape == (6, 6)
    assert len(panels(plot(replace(record, kind="image")))) == 2
    assert panels(plot(record))[0].lines  # taken for a series


def test_a_series_is_lines_above_the_attributions():
    record = explanation(random(2, 9, 3), random(2, 9, 3), feature_names=["$x$", "y", "z"])
    lines, heat = panels(plot(record, 1))
    np.testing.assert_allclose([line.get_ydata() for line in lines.lines], record.inputs[1].T, rtol=1e-6)
    np.testing.assert_allclose(shown(heat), record.attributions[1].T, rtol=1e-6)
    assert [label.get_text() for label in heat.get_yticklabels()] == ["$x$", "y", "z"]
    assert [text.get_text() for text in lines.get_legend().get_texts()] == ["$x$", "y", "z"]
    assert (heat.get_xlabel(), heat.get_ylabel()) == ("time step", "feature")


CHANNELS_FIRST = {"given": ({}, {"channel_axis": 1}), "negative": ({}, {"channel_axis": -2}),
                  "of the explainer": ({"explainer": {"name": "X", "layer": None, "channel_axis": 1}}, {})}


@pytest.mark.parametrize("changes, options", CHANNELS_FIRST.values(), ids=CHANNELS_FIRST)
def test_a_series_whose_channels_come_first(changes, options):
    record = explanation(random(2, 2, 10), torch.rand(2, 2, 10), feature_names=["left", "right"], **changes)
    lines, heat = panels(plot(record, 1, **options))
    np.testing.assert_allclose([line.get_ydata() for line in lines.lines], record.inputs[1], rtol=1e-6)
    np.testing.assert_allclose(shown(heat), record.attributions[1], rtol=1e-6)
    assert [label.get_text() for label in heat.get_yticklabels()] == ["left", "right"]
    assert (heat.get_xlabel(), heat.get_ylabel()) == ("time step", "channel")
    (axes,) = panels(plot_input(record, 1, **options))
    np.testing.assert_allclose([line.get_ydata() for line in axes.lines], record.inputs[1], rtol=1e-6)
    pooled = replace(record, attributions=record.attributions.mean(1))
    (axes,) = panels(plot(pooled, 1, **options))
    assert len(axes.lines) == 2
    np.testing.assert_allclose(shown(axes), pooled.attributions[1:], rtol=1e-6)


def test_the_channels_of_a_layer_are_not_those_of_the_inputs():
    record = explanation(random(2, 4, 8), torch.rand(2, 4, 8), torch.rand(2, 10, 2),
                         explainer={"name": "X", "layer": "conv", "channel_axis": 1})
    (heat,) = panels(plot(record, 0))
    np.testing.assert_allclose(shown(heat), record.attributions[0], rtol=1e-6)
    assert (heat.get_xlabel(), heat.get_ylabel()) == ("position", "channel")
    assert len(panels(plot_input(record, 0))[0].lines) == 2


def test_an_image_whose_channels_come_last():
    first = images(3, 8)
    moved = {name: getattr(first, name).movedim(1, -1) for name in ("attributions", "explained", "inputs")}
    last = replace(first, **moved)
    for one, other in zip(panels(plot(first)), panels(plot(last, channel_axis=3)), strict=True):
        np.testing.assert_allclose(shown(one), shown(other), rtol=1e-6)


def test_a_series_of_one_feature_has_its_attributions_behind_its_line():
    record = explanation(random(2, 9, 1), random(2, 9, 1))
    (axes,) = panels(plot(record, 1))
    np.testing.assert_allclose(axes.lines[0].get_ydata(), record.inputs[1, :, 0], rtol=1e-6)
    np.testing.assert_allclose(shown(axes), record.attributions[1].T, rtol=1e-6)
    flat = explanation(record.attributions[..., 0], record.inputs[..., 0], kind="series")
    np.testing.assert_allclose(shown(panels(plot(flat, 1))[0]), record.attributions[1].T, rtol=1e-6)


def test_a_table_is_bars_of_the_strongest_features():
    names = [f"f{index}" for index in range(20)]
    attributions = torch.zeros(2, 20)
    attributions[1, 4], attributions[1, 7], attributions[1, 0] = -3.0, 2.0, 1.0
    record = explanation(attributions, torch.arange(40.0).reshape(2, 20), feature_names=names)
    (axes,) = panels(plot(record, 1, top=3))
    assert [label.get_text() for label in axes.get_yticklabels()] == ["f4 = 24", "f7 = 27", "f0 = 20"]
    assert [patch.get_width() for patch in axes.patches] == [-3, 2, 1]
    blue, red, other = (patch.get_facecolor() for patch in axes.patches)
    assert red == other and blue[2] > blue[0] and red[0] > red[2]
    assert axes.get_title() == "3 of 20 features"
    assert len(panels(plot(record, 1))[0].patches) == 12


def test_a_table_with_infinite_values():
    values = torch.tensor([[1.0, -torch.inf, torch.nan, torch.inf, -2.0, 1e-9]])
    (axes,) = panels(plot(explanation(values, probability=None)))
    widths = {label.get_text().partition(" = ")[0]: bar.get_width()
              for label, bar in zip(axes.get_yticklabels(), axes.patches, strict=True)}
    assert widths["feature 3"] == -widths["feature 1"] == pytest.approx(2.3)
    assert (widths["feature 4"], widths["feature 0"], widths["feature 2"]) == (-2, 1, 0)
    low, high = axes.get_xlim()
    assert low < -2.3 and high > 2.3
    assert {"inf", "\N{MINUS SIGN}inf", "nan"} <= {text.get_text() for text in axes.texts}
    for value in (torch.inf, -torch.inf, torch.nan, 1e308):
        plot(explanation(torch.full((1, 3), value, dtype=torch.float64), probability=None)).canvas.draw()


def test_parts_that_are_zero_everywhere_are_named_and_not_drawn():
    out, nothing = random(1, 5, 4), torch.zeros(1, 2, 4)
    parts = (out, (nothing, nothing))
    record = replace(explanation(out, probability=None), attributions=parts, explained=parts, batch_axes=(0, 0, 0))
    figure = plot(record)
    assert len(panels(figure)) < len(panels(plot(replace(record, attributions=(out, (nothing + 1, nothing + 1))))))
    assert "target cat · predicted cat · zero everywhere: [1][0], [1][1]" in texts(figure)
    assert "[0]" in texts(figure) and "[1][0]" not in texts(figure)
    nan = replace(record, attributions=(out, (torch.full_like(nothing, torch.nan), nothing)))
    assert "[1][0]" in texts(plot(nan)) and "[1][1]" not in texts(plot(nan))
    all_zero = plot(replace(record, attributions=(0 * out, (nothing, nothing))))
    assert {"[0]", "[1][0]", "[1][1]"} <= set(texts(all_zero)) and not any("zero every" in t for t in texts(all_zero))


def test_the_strongest_leave_nan_to_the_end():
    assert strongest(np.array([1.0, np.nan, -2.0, 0.0]), 3) == [2, 0, 3]


def test_tokens_are_coloured_by_the_sum_over_their_width():
    attributions = torch.tensor([[[1.0, 1.0], [-0.5, 0.5], [-1.0, 0.0], [9.0, 9.0]]] * 2)
    record = explanation(attributions, torch.ones(2, 4, 2), torch.zeros(2, 4), tokens=[["a"], ["good", "$5", "bad"]],
                         explainer={"name": "X", "layer": "embeddings"})
    figure = plot(record, 1)
    (axes,) = panels(figure)
    colours = [box.get_facecolor() for box in axes.patches if isinstance(box, FancyBboxPatch)]
    expected = [DIVERGING(1.0), DIVERGING(0.5), DIVERGING(0.25)]  # the padding, 18, sets no scale
    np.testing.assert_allclose(colours, expected, atol=0.01)
    assert {"good", "$5", "bad", "attribution", "\N{MINUS SIGN}2", "2"} <= set(texts(figure))


def test_tokens_of_several_targets():
    record = explanation(random(2, 2, 3), torch.ones(2, 3), tokens=["a", "b", "c"], targets=torch.tensor([[0, 1]] * 2))
    figure = plot(record)
    assert {"target cat", "target dog"} <= set(texts(figure)) and texts(figure).count("b") == 2


def test_lines_of_tokens_are_no_wider_than_asked():
    placed = place(["word"] * 50 + ["a" * 200, "\n", ""], 3.0)
    assert [token.index for token in placed] == list(range(53))
    assert all(token.left + token.width <= 3.0 for token in placed if len(token.word) < 200)
    assert len({token.line for token in placed}) > 5 and placed[-2].word == "⏎"
    for before, after in pairwise(placed):
        assert after.line > before.line or after.left > before.left + before.width


def test_the_ink_stands_out():
    assert ink_on(np.array([1.0, 1, 1, 1])) != ink_on(np.array([0.2, 0, 0, 1]))


def test_a_panel_for_each_part_of_a_structure():
    structure = (random(2, 5, 4), {"h": random(1, 2, 7), "none": None})
    record = replace(images(), attributions=structure, explained=structure, inputs=torch.rand(2, 5, 4),
                     batch_axes=(0, 1), explainer={"name": "X", "layer": "lstm"})
    figure = plot(record, 1)
    assert {"[0]", "[1]['h']"} <= set(texts(figure))
    heat, table = panels(figure)
    np.testing.assert_allclose(shown(heat), structure[0][1].T, rtol=1e-6)
    lengths = sorted(patch.get_width() for patch in table.patches)
    assert lengths == pytest.approx(sorted(structure[1]["h"][0, 1].tolist()))


def test_an_input_explained_as_a_layer_is_drawn_as_an_input():
    record = explanation(random(2, 6, 6), torch.rand(2, 6, 6), kind="image", explainer={"name": "X", "layer": "pixels"})
    assert [axes.get_title() for axes in panels(plot(record))] == ["input", "attribution"]


@pytest.mark.parametrize("shape", [(), (3,), (2, 3), (1, 3), (3, 4, 4), (2, 3, 4, 4)])
@pytest.mark.parametrize("kind, layer", [
    (None, None), ("image", None), ("series", None), ("tabular", None), ("image", "fc")])
def test_every_shape_is_drawn_in_every_kind(shape, kind, layer):
    record = explanation(random(2, *shape), torch.zeros(2, *shape), torch.rand(2, 3, 8, 8) if layer else None,
                         kind=kind, explainer={"name": "X", "layer": layer})
    figure = plot(record, 1)
    figure.canvas.draw()
    assert len(panels(figure)) >= 1
    assert len(panels(plot_input(record, 1))) == 1


@pytest.mark.parametrize("value", [0.0, float("nan"), 1e-300, 1e300])
def test_maps_without_a_range_are_drawn(value):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for shape in [(1, 4, 4), (4, 3), (4,)]:
            plot(explanation(torch.full((2, *shape), value, dtype=torch.float64)), 0).canvas.draw()


def test_low_precision_is_drawn():
    record = images()
    half = replace(record, attributions=record.attributions.bfloat16(), inputs=record.inputs.bfloat16(),
                   explained=record.explained.bfloat16())
    np.testing.assert_allclose(shown(panels(plot(half))[1]), half.attributions[0].double().sum(0))


def test_the_percentile_clips_and_says_so():
    values = np.arange(101.0)
    assert Scale.of([values]) == Scale(100.0, False, False)
    assert Scale.of([values], 90) == Scale(90.0, False, True)
    assert Scale.of([np.arange(-5000.0, 1)]).clipped  # more than 64 x 64 values
    assert Scale.of([np.array([0.0] * 99 + [7.0])], 50).limit == 7.0  # where most are zero the limit is not


def test_numbers_and_words():
    assert [number(value) for value in (0.0, -0.01234, 1326.4, 1.5e-7, 2.0)] == [
        "0", "\N{MINUS SIGN}0.0123", "1326", "1.5e\N{MINUS SIGN}07", "2"]
    assert word("a\n b" + "c" * 50, 11) == "a bcc…ccccc" and word("short") == "short"


def test_mathematics_and_markup_are_words():
    hostile = "$\\frac{x$"
    record = replace(images(), class_names=[hostile] * 2, explainer={"name": hostile, "layer": hostile})
    several = replace(images(1), attributions=random(2, 2, 1, 8, 8), targets=torch.tensor([[0, 1]] * 2),
                      class_names=[hostile] * 2)
    for one in (record, several, explanation(random(2, 3), feature_names=[hostile] * 3), explanation(
            random(2, 9, 2), feature_names=[hostile] * 2), explanation(random(2, 2), tokens=[hostile] * 2)):
        figure = plot(one)
        figure.canvas.draw()
        assert any(hostile in text for text in texts(figure))


@pytest.mark.parametrize("record, expected", [(images(), (8, 8, 3)), (replace(images(1), kind="image"), (8, 8, 3))])
def test_the_input_alone(record, expected):
    (axes,) = panels(plot_input(record, 1))
    np.testing.assert_allclose(shown(axes), as_image(record.inputs[1].double().numpy()))
    assert shown(axes).shape == expected


def test_the_input_alone_of_other_kinds():
    (series,) = panels(plot_input(explanation(random(2, 9, 2)), 1))
    np.testing.assert_allclose([line.get_ydata() for line in series.lines], random(2, 9, 2)[1].T, rtol=1e-6)
    (table,) = panels(plot_input(explanation(torch.arange(40.0).reshape(2, 20)), 1))
    assert [patch.get_width() for patch in table.patches] == list(range(20, 32))
    tokens = plot_input(explanation(random(2, 2), tokens=["good", "bad"]))
    assert texts(tokens) == ["good", "bad"]


def test_nothing_is_left_open_and_settings_are_left_alone():
    before = dict(matplotlib.rcParams)
    plot(images()).canvas.draw()
    assert matplotlib.pyplot.get_fignums() == [] and dict(matplotlib.rcParams) == before


def test_threads_draw_the_same():
    record, results = images(), {}

    def work(index):
        figure = plot(record)
        figure.canvas.draw()
        results[index] = np.asarray(figure.canvas.buffer_rgba())

    threads = [threading.Thread(target=work, args=(index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    figure = plot(record)
    figure.canvas.draw()
    expected = np.asarray(figure.canvas.buffer_rgba())
    assert len(results) == 4 and all((one == expected).all() for one in results.values())


@pytest.mark.parametrize("options, kind, message", [
    ({"sample": 2}, IndexError, "sample 2 is out of range: the explanation holds 2"),
    ({"kind": "imgae"}, ValueError,
     "kind must be one of image, series, tabular, tokens, but got 'imgae'; the nearest: 'image'"),
    ({"kind": "tokens"}, ValueError, "to draw tokens, the explanation must hold them, but its tokens are None; "
                                     "add them by dataclasses.replace(explanation, tokens=...)"),
    ({"pooling": "summ"}, ValueError, "no way to pool is called 'summ'; the nearest: 'sum'"),
    ({"percentile": 0}, ValueError, "0 < percentile <= 100 must hold, but got 0"),
    ({"percentile": 101}, ValueError, "0 < percentile <= 100 must hold, but got 101"),
    ({"top": 0}, ValueError, "top must be at least 1, but got 0"),
    ({"channel_axis": 4}, ValueError, "channel_axis must be one of the axes 1 to 3 of what is explained, but got 4"),
    ({"channel_axis": 0}, ValueError, "channel_axis must be one of the axes 1 to 3 of what is explained, but got 0"),
])
def test_says_what_is_wrong(options, kind, message):
    with pytest.raises(kind) as error:
        plot(images(), **options)
    assert str(error.value) == message


@pytest.mark.parametrize("given", ["x", True, 1.0])
def test_the_axis_of_the_channels_is_a_whole_number(given):
    for draw in (plot, plot_input, lambda _, **options: pnpx.Gradient(torch.nn.ReLU(), **options)):
        with raises(TypeError, f"channel_axis must be an int or None, but got {given!r}"):
            draw(images(), channel_axis=given)


def test_the_axis_of_the_channels_may_be_a_number_of_numpy():
    record = explanation(random(2, 2, 10), torch.rand(2, 2, 10))
    assert len(panels(plot(record, channel_axis=np.int64(1)))[0].lines) == 2
    assert len(panels(plot_input(record, channel_axis=np.int64(1)))[0].lines) == 2
