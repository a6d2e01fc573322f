"""How each tensor is drawn: what its shape, and the kind of the data, say."""

from collections.abc import Sequence

import numpy as np

from pnpx.explanation import Explanation
from pnpx.plots.image import ImagePanel, as_image, to_map
from pnpx.plots.parts import Array, Part, inputs
from pnpx.plots.series import SeriesPanel, as_matrix
from pnpx.plots.style import Panel, Scale
from pnpx.plots.tabular import TabularPanel
from pnpx.plots.tokens import TokenPanel
from pnpx.suggest import nearest

KINDS = ("image", "series", "tabular", "tokens")
MOVED = {"image": 0, "series": -1}
"""Which axis of a sample the channels are where it is drawn so."""


def kind_of(one: Explanation, kind: str | None) -> str | None:
    """The kind asked for, else the one that the explanation says it is."""
    chosen = one.kind if kind is None else kind
    if chosen is not None and chosen not in KINDS:
        raise ValueError(f"kind must be one of {', '.join(KINDS)}, but got {chosen!r}; {nearest(chosen, KINDS)}")
    if chosen == "tokens" and one.words() is None:
        raise ValueError("to draw tokens, the explanation must hold them, but its tokens are None; "
                         "add them by dataclasses.replace(explanation, tokens=...)")
    return chosen


def drawn_as(shape: tuple[int, ...], kind: str | None, at_input: bool, words: Sequence[str] | None) -> str:
    """The kind of drawing for a tensor of this ``shape``, without its batch axis."""
    if words is not None and 1 <= len(shape) <= 2 and shape[0] >= len(words) and kind in (None, "tokens"):
        return "tokens"
    if len(shape) >= 3:
        return "image"
    if len(shape) == 2:
        if at_input:
            return "image" if kind == "image" else "series"
        return "series" if min(shape) > 1 else "tabular"
    return "series" if len(shape) == 1 and kind == "series" and at_input else "tabular"


def panel(one: Explanation, part: Part, kind: str | None, texts: Sequence[str], *, pooling: str, overlay: bool | None,
          top: int, percentile: float | None, channel_axis: int | None) -> Panel:
    """What draws the attributions of a part."""
    words = one.words()
    # An input may also be explained as a layer, by the name of the argument.
    at_input = one.explainer.get("layer") is None or any(np.array_equal(part.value, value) for value in inputs(one))
    drawing = drawn_as(part.value.shape, kind, at_input, words)
    if drawing in MOVED:
        part = part.with_channels(channels(one, channel_axis), MOVED[drawing])
    maps = part.maps
    if drawing == "image" and maps[0].ndim >= 2:
        pooled = [to_map(values, pooling) for values in maps]
        return ImagePanel(_picture(one, part, kind, at_input), pooled, texts, Scale.of(pooled, percentile), overlay)
    if drawing == "tokens" and words is not None:
        pooled = [(to_map(values.T[..., None], pooling)[..., 0] if values.ndim == 2 else values)[: len(words)]
                  for values in maps]
        return TokenPanel(words, pooled, texts, Scale.of(pooled, percentile))
    if drawing == "series" and maps[0].ndim <= 2:
        matrices, values = [as_matrix(values) for values in maps], as_matrix(part.value)
        lines = values if at_input and len(values) == len(matrices[0]) else None
        labels = ("time step", "feature") if at_input else ("first axis", "second axis")
        if part.value.ndim == 2 and channels(one, channel_axis) is not None:
            labels = ("time step" if at_input else "position", "channel")
        named = at_input and one.feature_names is not None and len(one.feature_names) == matrices[0].shape[1]
        names = feature_names(one, matrices[0].shape[1]) if named else None
        return SeriesPanel(lines, matrices, texts, Scale.of(matrices, percentile), names, labels)
    flat, known = [values.reshape(-1) for values in maps], part.value.reshape(-1)
    names = feature_names(one, flat[0].size, at_input)
    return TabularPanel(known if known.size == flat[0].size else None, flat, texts, names, top)


def channels(one: Explanation, channel_axis: int | None) -> int | None:
    """The axis of the channels in what is explained: that asked for, else that of its explainer; None: not known."""
    found = one.explainer.get("channel_axis") if channel_axis is None else channel_axis
    return found if isinstance(found, int) else None


def input_panels(one: Explanation, kind: str | None, top: int, channel_axis: int | None) -> list[Panel]:
    """What draws the inputs: the tokens, if there are any, else each tensor."""
    words, scale = one.words(), Scale(0.0, False, False)
    if words is not None and kind in (None, "tokens"):
        return [TokenPanel(words, [], [], scale)]
    found: list[Panel] = []
    if one.explainer.get("layer") is None:
        channel_axis = channels(one, channel_axis)
    for value in inputs(one):
        drawing = drawn_as(value.shape, kind, True, None)
        if drawing in MOVED:
            value = Part("", value, ()).with_channels(channel_axis, MOVED[drawing]).value
        if drawing == "image":
            found.append(ImagePanel(as_image(value.reshape(-1, *value.shape[-2:])), [], [], scale))
        elif drawing == "series":
            matrix = as_matrix(value)
            found.append(SeriesPanel(matrix, [], [], scale, feature_names(one, matrix.shape[1])))
        else:
            found.append(TabularPanel(value.reshape(-1), [], [], feature_names(one, value.size), top))
    return found


def feature_names(one: Explanation, size: int, at_input: bool = True) -> list[str]:
    """A name for each of ``size`` features: those given if they are as many, else numbers."""
    if at_input and one.feature_names is not None and len(one.feature_names) == size:
        return [str(name) for name in one.feature_names]
    return [f"{'feature' if at_input else 'unit'} {index}" for index in range(size)]


def _picture(one: Explanation, part: Part, kind: str | None, at_input: bool) -> Array | None:
    """The image that a map belongs to: what was explained at the input, the first image among the inputs at a layer."""
    if at_input:
        return as_image(part.value.reshape(-1, *part.value.shape[-2:]))
    for value in inputs(one):
        if (value.ndim == 3 and len(value) in (1, 3, 4)) or (value.ndim == 2 and kind == "image"):
            return as_image(np.asarray(value))
    return None
