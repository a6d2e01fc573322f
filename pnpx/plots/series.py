"""Series and other matrices: the values as lines over time, and the attribution of each feature at each step."""

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import SubFigure
from matplotlib.ticker import MaxNLocator

from pnpx.plots.parts import Array
from pnpx.plots.style import (
    FAINT,
    INK,
    LINES,
    MUTED,
    SMALL,
    WIDTH,
    Scale,
    axis_labels,
    colour_bar,
    frame,
    panel_title,
    word,
)

NAMED = 12
"""Up to so many features are named one by one."""


def lines_of(axes: Axes, values: Array, names: Sequence[str]) -> None:
    """A line for each feature of values (time, features), named where there are few."""
    n_features = values.shape[1]
    few = n_features <= len(LINES)
    for index, name in enumerate(names):
        colour = INK if n_features == 1 else LINES[index] if few else MUTED
        axes.plot(values[:, index], color=colour, linewidth=1.5 if few else 0.8, alpha=1.0 if few else 0.6,
                  label=word(name, 16), zorder=3)
    if 1 < n_features <= len(LINES):
        legend = axes.legend(fontsize=SMALL, frameon=False, ncols=min(n_features, 4), loc="lower left",
                             bbox_to_anchor=(0, 1), borderaxespad=0.1, handlelength=1.4, labelcolor=MUTED)
        for text in legend.get_texts():
            text.set_parse_math(False)
    axes.set_xlim(-0.5, len(values) - 0.5)
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    axes.spines[["top", "right"]].set_visible(False)
    frame(axes)


def background(axes: Axes, values: Array, scale: Scale) -> None:
    """The attributions (time,) as the colours behind the lines."""
    low, high = axes.get_ylim()
    axes.imshow(values[None], cmap=scale.cmap.with_extremes(bad=FAINT), norm=scale.norm, aspect="auto",
                interpolation="nearest", extent=(-0.5, len(values) - 0.5, low, high), zorder=0)


def heat(axes: Axes, values: Array, scale: Scale, names: Sequence[str] | None) -> None:
    """Attributions (time, features): time from left to right, a row for each feature."""
    axes.imshow(values.T, cmap=scale.cmap.with_extremes(bad=FAINT), norm=scale.norm, aspect="auto",
                interpolation="nearest" if max(values.shape) <= 256 else "auto")
    frame(axes)
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    if names is not None and len(names) <= NAMED:
        axes.set_yticks(range(len(names)), [word(name, 16) for name in names], parse_math=False)
    else:
        axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))


@dataclass(frozen=True)
class SeriesPanel:
    """For each target the values as lines, if given, and below them the attributions, alike (time, features).

    A single feature needs no row of its own: its attributions are the background of its line.
    """

    values: Array | None
    maps: Sequence[Array]
    """None of them to show the lines alone."""
    texts: Sequence[str]
    scale: Scale
    names: Sequence[str] | None = None
    """Of the features."""
    labels: tuple[str, str] = ("time step", "feature")
    """Of the two axes."""

    @property
    def heights(self) -> list[float]:
        """Inches of each row that belongs to one target."""
        lines = [1.7] if self.values is not None else []
        if not self.maps or (lines and self.maps[0].shape[1] == 1):
            return lines
        return [*lines, 0.75 + min(1.6, 0.13 * self.maps[0].shape[1])]

    def size(self) -> tuple[float, float]:
        """Its width and height, in inches."""
        return WIDTH, max(len(self.maps), 1) * (sum(self.heights) + 0.2)

    def draw(self, parent: SubFigure) -> None:
        """Draw it on a figure of that size."""
        heights, n_targets = self.heights, max(len(self.maps), 1)
        ratios = {"height_ratios": heights * n_targets}
        grid: list[Axes] = list(parent.subplots(len(heights) * n_targets, 1, squeeze=False, gridspec_kw=ratios)[:, 0])
        for index in range(n_targets):
            rows = grid[len(heights) * index : len(heights) * (index + 1)]
            if self.values is not None:
                lines_of(rows[0], self.values, self.names or list(map(str, range(self.values.shape[1]))))
                axis_labels(rows[0], self.labels[0] if len(rows) == 1 else "", "value")
                rows[0].tick_params(labelbottom=len(rows) == 1)
            if not self.maps:
                continue
            if self.values is not None and len(rows) == 1:
                background(rows[0], self.maps[index][:, 0], self.scale)
            else:
                heat(rows[-1], self.maps[index], self.scale, self.names)
                axis_labels(rows[-1], *self.labels)
            panel_title(rows[-1], self.texts[index])
            colour_bar(parent, self.scale, rows[-1], pad=0.015, aspect=18, fraction=0.05)


def as_matrix(values: Array) -> Array:
    """Values (time,) as (time, 1); any others as they are."""
    return values[:, None] if values.ndim == 1 else values
