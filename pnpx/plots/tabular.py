"""Tables: the features that count most, as bars with their names, values and attributions."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import SubFigure

from pnpx.plots.parts import Array, finite
from pnpx.plots.style import (
    FAINT,
    INK,
    MUTED,
    NEGATIVE,
    POSITIVE,
    SMALL,
    WIDTH,
    axis_labels,
    frame,
    number,
    panel_title,
    word,
)


def strongest(values: Array, top: int) -> list[int]:
    """The positions of the ``top`` values of the largest magnitude, the largest first; NaN is the smallest."""
    sizes = np.where(np.isnan(values), -1.0, np.abs(values))
    return [int(position) for position in np.argsort(-sizes, kind="stable")[:top]]


def bars(axes: Axes, lengths: Array, labels: Sequence[str], colours: Sequence[str]) -> None:
    """Horizontal bars from the top down, each with its label at the left and its length in numbers at its end."""
    reach = min(float(np.abs(finite([lengths])).max(initial=0.0)) or 1.0, 1e300)
    # What is infinite goes a little further than all that is not, and its label says what it is.
    shown = np.nan_to_num(lengths, posinf=1.15 * reach, neginf=-1.15 * reach)
    axes.barh(range(len(shown)), shown, height=0.68, color=list(colours))
    axes.set_yticks(range(len(shown)), list(labels), parse_math=False)
    axes.axvline(0, color=MUTED, linewidth=0.8)
    axes.set_xlim(-1.3 * reach if (shown < 0).any() else 0, 1.3 * reach if (shown >= 0).any() else 0)
    axes.set_ylim(len(shown) - 0.4, -0.6)
    for row, length in enumerate(shown):
        axes.annotate(number(lengths[row]), (length, row), (-3 if length < 0 else 3, 0), textcoords="offset points",
                      ha="right" if length < 0 else "left", va="center", fontsize=SMALL, color=INK)
    frame(axes)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0, labelcolor=INK)
    axes.grid(axis="x", color=FAINT, linewidth=0.5)
    axes.set_axisbelow(True)
    axes.locator_params(axis="x", nbins=5)


@dataclass(frozen=True)
class TabularPanel:
    """For each target a bar for each of the ``top`` features, longest first."""

    values: Array | None
    """(features,), to stand beside the names."""
    maps: Sequence[Array]
    """(features,) for each target; none to show the values of the first ``top`` features as bars instead."""
    texts: Sequence[str]
    names: Sequence[str]
    top: int

    def size(self) -> tuple[float, float]:
        """Its width and height, in inches."""
        return WIDTH, max(len(self.maps), 1) * (0.8 + 0.2 * min(self.top, len(self.names)))

    def draw(self, parent: SubFigure) -> None:
        """Draw it on a figure of that size."""
        grid = parent.subplots(max(len(self.maps), 1), 1, squeeze=False)[:, 0]
        shown = min(self.top, len(self.names))
        count = f"{shown} of {len(self.names)} features" if shown < len(self.names) else ""
        if not self.maps and self.values is not None:
            bars(grid[0], self.values[:shown], [word(name) for name in self.names[:shown]], [MUTED] * shown)
            axis_labels(grid[0], "value", "")
            panel_title(grid[0], count)
        for axes, one, text in zip(grid, self.maps, self.texts, strict=False):
            chosen = strongest(one, self.top)
            labels = [word(self.names[index]) for index in chosen]
            if self.values is not None:
                known = [number(self.values[index]) for index in chosen]
                labels = [f"{label} = {value}" for label, value in zip(labels, known, strict=True)]
            bars(axes, one[chosen], labels, [NEGATIVE if one[index] < 0 else POSITIVE for index in chosen])
            axis_labels(axes, "attribution", "")
            panel_title(axes, " · ".join(filter(None, [text, count])))
