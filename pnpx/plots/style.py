"""How every figure looks: its sizes, its words and its colours, which readers with any colour vision can tell apart."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure, SubFigure

from pnpx.plots.parts import Array, finite

WIDTH = 6.4  # inches of whatever fills the width
INK, MUTED, FAINT, PAPER = "#1b1f24", "#5f6b7a", "#d7dce2", "#ffffff"
SMALL, MEDIUM, LARGE = 7.5, 8.5, 11.0
DPI = 150
# Okabe and Ito's colours (2008) that stand out on white.
LINES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#1b1f24")
POSITIVE, NEGATIVE = "#b2182b", "#2166ac"

# Blue to white to red, as RdBu_r, but with ends that are not so dark that one cannot tell them apart.
DIVERGING = LinearSegmentedColormap.from_list(
    "pnpx_diverging",
    ["#134b87", "#2f79b5", "#75b3d4", "#c0dceb", "#f9f9f9", "#fbd0b9", "#ee9273", "#cf5246", "#9c1127"],
)
# Perceptually uniform, with light for zero as in the diverging map, and without magma's last, almost black tenth.
SEQUENTIAL = LinearSegmentedColormap.from_list("pnpx_sequential", colormaps["magma_r"](np.linspace(0.0, 0.9, 128)))


class Panel(Protocol):
    """One part of a figure."""

    def size(self) -> tuple[float, float]:
        """Its width and height, in inches."""

    def draw(self, parent: SubFigure) -> None:
        """Draw it on a figure of that size."""


@dataclass(frozen=True)
class Scale:
    """From attributions to colours: around zero where they have both signs, up from zero where none is negative."""

    limit: float
    """The largest absolute value that has a colour of its own."""
    signed: bool
    clipped: bool
    """Whether there are values beyond the limit."""

    @classmethod
    def of(cls, maps: Sequence[Array], percentile: float | None = None) -> "Scale":
        """The scale the maps share: its limit is this percentile of their absolute values (see `pnpx.plots.plot`)."""
        if percentile is None:
            percentile = 99.0 if max((one.size for one in maps), default=0) > 64 * 64 else 100.0
        values = finite(maps)
        sizes = np.abs(values)
        limit = float(np.percentile(sizes, percentile)) if sizes.size else 0.0
        limit = limit or float(sizes.max(initial=0.0))
        return cls(limit, bool((values < 0).any()), bool((sizes > limit).any()))

    @property
    def norm(self) -> Normalize:
        """From values to [0, 1]."""
        size = min(self.limit, 8e307) or 1.0  # twice of it must be finite
        return Normalize(-size if self.signed else 0.0, size)

    @property
    def cmap(self) -> LinearSegmentedColormap:
        """From [0, 1] to colours."""
        return DIVERGING if self.signed else SEQUENTIAL

    @property
    def ticks(self) -> list[float]:
        """The values to print beside the colours."""
        if not self.limit:
            return [0.0]
        return [-self.limit, 0.0, self.limit] if self.signed else [0.0, self.limit / 2, self.limit]

    def rgba(self, values: Array) -> Array:
        """The colours of the values, (..., 4)."""
        colours: Array = np.asarray(self.cmap(self.norm(np.nan_to_num(values))), dtype=np.float64)
        return colours


def figure(width: float, height: float) -> Figure:
    """A figure, in inches, of its own: nothing of pyplot's knows of it, and threads do not share anything."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    result = Figure(figsize=(width, height), dpi=DPI, facecolor=PAPER, layout="constrained")
    result.get_layout_engine().set(w_pad=0.08, h_pad=0.05)  # type: ignore[union-attr, call-arg]
    FigureCanvasAgg(result)
    return result


def number(value: float) -> str:
    """Three digits of a number, and all those before the point: "0", "-0.0123", "1326", "1.5e-07"."""
    text = f"{value:.0f}" if 1000 <= abs(value) < 1e5 else f"{value:.3g}"
    return text.replace("-", "\N{MINUS SIGN}")


def word(text: object, longest: int = 28) -> str:
    """A label on one line, cut in its middle where it is longer than ``longest`` characters."""
    line = " ".join(str(text).split())
    half = (longest - 1) // 2
    return line if len(line) <= longest else f"{line[:half]}…{line[-half:]}"


def panel_title(axes: Axes, text: str, colour: str = MUTED) -> None:
    """A small title above the axes, which is not read as mathematics."""
    axes.set_title(word(text, 44), fontsize=MEDIUM, color=colour, pad=5, parse_math=False)


def axis_labels(axes: Axes, x: str, y: str) -> None:
    """Quiet labels of both axes."""
    axes.set_xlabel(word(x), fontsize=SMALL, color=MUTED, parse_math=False)
    axes.set_ylabel(word(y), fontsize=SMALL, color=MUTED, parse_math=False)


def frame(axes: Axes, *, ticks: bool = True) -> None:
    """Thin, faint borders and small ticks; no ticks for images."""
    for spine in axes.spines.values():
        spine.set_color(FAINT)
        spine.set_linewidth(0.8)
    axes.tick_params(labelsize=SMALL, labelcolor=MUTED, color=FAINT, width=0.8, length=2.5)
    if not ticks:
        axes.set_xticks([])
        axes.set_yticks([])


def colour_bar(parent: Figure | SubFigure, scale: Scale, axes: Any, **options: Any) -> None:
    """What the colours mean, in numbers."""
    from matplotlib.cm import ScalarMappable

    ends = ("both" if scale.signed else "max") if scale.clipped else "neither"
    bar = parent.colorbar(ScalarMappable(scale.norm, scale.cmap), ax=axes, extend=ends, **options)
    bar.set_ticks(scale.ticks, labels=[number(tick) for tick in scale.ticks])
    bar.ax.tick_params(labelsize=SMALL, labelcolor=MUTED, color=FAINT, length=2)
    bar.outline.set_edgecolor(FAINT)
    bar.ax.set_label("colour bar")
