"""Tokens: the text, each token on the colour of its attribution."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import SubFigure
from matplotlib.font_manager import FontProperties
from matplotlib.patches import FancyBboxPatch
from matplotlib.textpath import TextToPath

from pnpx.plots.parts import Array
from pnpx.plots.style import INK, LARGE, MEDIUM, MUTED, PAPER, WIDTH, Scale, colour_bar

LINE, TITLE, LEGEND, MARGIN, GAP, PADDING = 0.34, 0.3, 0.5, 0.12, 0.05, 0.05  # inches


@dataclass(frozen=True)
class Placed:
    """A token and its place, in inches from the left of the text."""

    index: int
    word: str
    line: int
    left: float
    width: float


def place(words: Sequence[str], width: float) -> list[Placed]:
    """The tokens in lines no wider than ``width`` inches, if no token alone is."""
    font, measure, placed = FontProperties(size=LARGE - 1), TextToPath(), []
    line, left = 0, 0.0
    for index, token in enumerate(words):
        shown = "".join({"\n": "⏎", "\t": "→"}.get(letter, letter) for letter in token) or "∅"
        inches = measure.get_text_width_height_descent(shown, font, ismath=False)[0] / 72 + 2 * PADDING
        if left and left + inches > width:
            line, left = line + 1, 0.0
        placed.append(Placed(index, shown, line, left, inches))
        left += inches + GAP
    return placed


@dataclass(frozen=True)
class TokenPanel:
    """The tokens once for each target, coloured, with a legend."""

    words: Sequence[str]
    maps: Sequence[Array]
    """(length,) for each target, NaN where a token has no score; none to show the text alone."""
    texts: Sequence[str]
    scale: Scale

    def size(self) -> tuple[float, float]:
        """Its width and height, in inches."""
        lines = 1 + max((token.line for token in place(self.words, WIDTH - 2 * MARGIN)), default=0)
        heads = TITLE * sum(map(bool, self.texts))
        return WIDTH, heads + max(len(self.maps), 1) * (lines * LINE + 0.1) + (LEGEND if self.maps else 0.0)

    def draw(self, parent: SubFigure) -> None:
        """Draw it on a figure of that size."""
        (width, height), top = self.size(), 0.0
        axes = parent.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(height, 0), label="tokens")
        axes.set_axis_off()
        rows: list[tuple[Array | None, str]] = list(zip(self.maps, self.texts, strict=True)) or [(None, "")]
        for one, text in rows:
            if text:
                axes.text(MARGIN, top + TITLE / 2, text, fontsize=MEDIUM, color=MUTED, va="center", parse_math=False)
                top += TITLE
            top = self._draw_words(axes, one, top) + 0.1
        if self.maps:
            bar = parent.add_axes(((MARGIN + 0.2) / width, 0.27 / height, 1.8 / width, 0.09 / height))
            colour_bar(parent, self.scale, None, cax=bar, orientation="horizontal")
            axes.text(MARGIN + 2.3, height - 0.31, "attribution", fontsize=MEDIUM, color=MUTED, va="center")

    def _draw_words(self, axes: Axes, one: Array | None, top: float) -> float:
        placed = place(self.words, WIDTH - 2 * MARGIN)
        for token in placed:
            x, y = MARGIN + token.left, top + token.line * LINE
            face, ink = self._colours(None if one is None else float(one[token.index]))
            if face is not None:
                axes.add_patch(FancyBboxPatch((x, y + 0.03), token.width, LINE - 0.08, facecolor=face, edgecolor="none",
                                              boxstyle="round,pad=0,rounding_size=0.04"))
            axes.text(x + PADDING, y + LINE / 2 - 0.015, token.word, fontsize=LARGE - 1, va="center_baseline",
                      color=ink, parse_math=False)
        return top + LINE * (1 + max((token.line for token in placed), default=0))

    def _colours(self, value: float | None) -> tuple[str | tuple[float, ...] | None, str]:
        """Of the box and the letters. What has no score, such as a word that the model did not read, has no box, so
        that it does not look like a zero that was measured."""
        if value is None:
            return "#eef0f3", INK
        if np.isnan(value):
            return None, MUTED
        colour = self.scale.rgba(np.array(value))
        return tuple(colour), ink_on(colour)


def ink_on(colour: Array) -> str:
    """Dark or light, whichever stands out more on a colour (red, green, blue, opacity)."""
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in colour[:3]]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return INK if luminance > 0.18 else PAPER
