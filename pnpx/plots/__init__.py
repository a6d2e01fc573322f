"""Figures of explanations. They are matplotlib's own, but none of pyplot's: nothing stays open, threads may plot."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pnpx.explanation import Explanation
from pnpx.parameters import plain_numbers, require_axis

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from pnpx.plots.style import Panel

__all__ = ["plot", "plot_input"]


def plot(explanation: Explanation, sample: int = 0, *, kind: str | None = None, pooling: str = "sum",
         overlay: bool | None = None, top: int = 12, percentile: float | None = None,
         channel_axis: int | None = None) -> "Figure":
    """A figure of the attributions of one sample: a panel for each tensor explained, in it a row for each target.

    Tensors whose attributions are all zero, as those of an LSTM's last state often are, are named instead of drawn,
    unless all are.

    Colours are blue below zero, white at it and red above, the same for all targets; from light to dark where nothing
    is negative. How a tensor is drawn follows from its shape for one sample: (channels, height, width) as a map,
    pooled over channels, beside the input and, where large or of another resolution, laid over it; (time, features)
    as lines above a matrix; (features,) as bars; (length,) or (length, width) as coloured tokens, if the explanation
    has tokens.

    Args:
        explanation: a batch of explanations.
        sample: which of the batch; negative ones count from its end.
        kind: "image", "series", "tabular" or "tokens"; by default that of the explanation, or a guess from the shapes,
            which takes (batch, height, width) for series: images of that shape need ``kind="image"``.
        pooling: how the channels of an image, or the width of a token's embedding, become one value: one of
            `pnpx.postprocess.POOLINGS`.
        overlay: whether to lay maps over the input; by default where it helps.
        top: how many features of a table to show, those of the largest magnitude.
        percentile: of the absolute values, the one with the strongest colour; below 100 a few outliers do not make all
            else pale, and the colour bar ends in arrows. By default 99 for maps of more than 64 x 64 pixels, else 100.

    Raises:
        IndexError: there is no such sample.
        TypeError: ``channel_axis`` is no int.
        ValueError: ``kind`` or ``pooling`` is unknown, or a number is out of its range.
    """
    from pnpx.plots.choose import kind_of, panel
    from pnpx.plots.parts import drawn, parts, prediction_text, target_texts

    if percentile is not None and not 0 < percentile <= 100:
        raise ValueError(f"0 < percentile <= 100 must hold, but got {percentile}")
    if top < 1:
        raise ValueError(f"top must be at least 1, but got {top}")
    channel_axis = plain_numbers(channel_axis)
    require_axis("channel_axis", channel_axis)
    one = explanation[sample]
    kind, targets = kind_of(one, kind), target_texts(one)
    found, left_out = drawn(parts(one))
    if channel_axis is not None and not any(0 < abs(channel_axis) <= part.value.ndim for part in found):
        largest = max((part.value.ndim for part in found), default=0)
        raise ValueError(
            f"channel_axis must be one of the axes 1 to {largest} of what is explained, but got {channel_axis}"
        )
    several = one.n_targets() is not None and len(targets) > 1
    panels = [panel(one, part, kind, targets if several else [""] * len(part.maps), pooling=pooling, overlay=overlay,
                    top=top, percentile=percentile, channel_axis=channel_axis) for part in found]
    nothing = f"zero everywhere: {', '.join(part.name for part in left_out)}" if left_out else ""
    subtitle = ["" if several else targets[0], prediction_text(one), nothing]
    return compose(one.title(), " · ".join(filter(None, subtitle)), [part.name for part in found], panels)


def plot_input(explanation: Explanation, sample: int = 0, *, kind: str | None = None, top: int = 12,
               channel_axis: int | None = None) -> "Figure":
    """A figure of the inputs of one sample, without attributions; for arguments and errors see `plot`."""
    from pnpx.plots.choose import input_panels, kind_of

    channel_axis = plain_numbers(channel_axis)
    require_axis("channel_axis", channel_axis)
    one = explanation[sample]
    panels = input_panels(one, kind_of(one, kind), top, channel_axis)
    return compose("", "", [""] * len(panels), panels)


def compose(title: str, subtitle: str, names: Sequence[str], panels: Sequence["Panel"]) -> "Figure":
    """The panels below each other, under a title."""
    from pnpx.plots.style import INK, LARGE, MEDIUM, MUTED, SMALL, figure, word

    header = (0.56 if subtitle else 0.34) if title else 0.0
    sizes, named = [panel.size() for panel in panels], 0.24
    heights = [height + (named if name else 0.0) for (_, height), name in zip(sizes, names, strict=True)]
    width = max((width for width, _ in sizes), default=4.0)
    result = figure(width, header + sum(heights) + (0.0 if heights else 0.1))
    if title:
        inches = result.get_figheight()
        result.text(0.12 / width, 1 - 0.2 / inches, word(title, int(11 * width)), fontsize=LARGE, fontweight="bold",
                    color=INK, va="center", parse_math=False)
        result.text(0.12 / width, 1 - 0.43 / inches, word(subtitle, int(15 * width)), fontsize=MEDIUM, color=MUTED,
                    va="center", parse_math=False)
    if not panels:
        return result
    total = [header, *heights] if header else heights
    rows = result.subfigures(len(total), 1, squeeze=False, height_ratios=total, hspace=0)[:, 0]
    for parent, name, panel in zip(rows[len(total) - len(panels) :], names, panels, strict=True):
        parent.set_facecolor("none")
        if name:
            parent.suptitle(name, x=0.12 / width, ha="left", fontsize=SMALL, color=MUTED, family="monospace",
                            parse_math=False)
        panel.draw(parent)
    return result
