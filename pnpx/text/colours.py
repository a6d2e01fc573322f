"""The colours of scores in a text: told apart with any colour vision, and with letters on them that can be read."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

STEPS = 12  # colours on each side of zero
Colour = tuple[int, int, int]

# From zero up. By day they are those of the figures (pnpx.plots.style): blue to red where there are both signs, and
# magma where none is negative. By night zero is dark, and the strongest scores are the brightest.
_RAMPS = {
    "light": {
        "positive": ["#f9f9f9", "#fbd0b9", "#ee9273", "#cf5246", "#9c1127"],
        "negative": ["#f9f9f9", "#c0dceb", "#75b3d4", "#2f79b5", "#134b87"],
        "sequential": ["#fcfdf3", "#feca8d", "#f1605d", "#9e2f7f", "#440f76"],
    },
    "dark": {
        "positive": ["#232a32", "#4d2a2c", "#8c3a34", "#d65f4c", "#ffb199"],
        "negative": ["#232a32", "#1f3a56", "#23609a", "#4394d6", "#a5d3fb"],
        "sequential": ["#232a32", "#51127c", "#b63679", "#fb8861", "#fcf0b4"],
    },
}
_INKS = ((0x00, 0x00, 0x00), (0xFF, 0xFF, 0xFF))  # of which one has a contrast of at least 4.5 on any colour


@dataclass(frozen=True)
class Scale:
    """From scores to steps: from -STEPS to STEPS where there are both signs, else from 0 to STEPS."""

    limit: float
    """The largest magnitude of a score."""
    signed: bool

    @classmethod
    def of(cls, scores: Tensor) -> "Scale":
        """The scale that all ``scores`` share, those that are not finite left out."""
        values = scores.detach().cpu().double().reshape(-1)
        values = values[values.isfinite()]
        return cls(float(values.abs().max()) if values.numel() else 0.0, bool((values < 0).any()))

    def step(self, score: float) -> int | None:
        """The step of a score, or None if it is not a number. Only 0 and what is close to it is at step 0."""
        if math.isnan(score):
            return None
        if not self.limit:
            return 0
        return round(max(-1.0, min(1.0, score / self.limit)) * STEPS)

    @property
    def steps(self) -> range:
        """All steps, from the lowest."""
        return range(-STEPS if self.signed else 0, STEPS + 1)

    @property
    def ticks(self) -> list[float]:
        """The scores to print beside the colours."""
        if not self.limit:
            return [0.0]
        return [-self.limit, 0.0, self.limit] if self.signed else [0.0, self.limit / 2, self.limit]


def paint(step: int, signed: bool, scheme: str = "light") -> tuple[Colour, Colour]:
    """The colour of a step, and that of letters on it, for a "light" or a "dark" scheme."""
    ramp = _RAMPS[scheme]["sequential" if not signed else "negative" if step < 0 else "positive"]
    place = abs(step) / STEPS * (len(ramp) - 1)
    first = min(int(place), len(ramp) - 2)
    low, high = _rgb(ramp[first]), _rgb(ramp[first + 1])
    red, green, blue = (round(a + (b - a) * (place - first)) for a, b in zip(low, high, strict=True))
    colour = (red, green, blue)
    return colour, max(_INKS, key=lambda ink: contrast(colour, ink))


def contrast(one: Colour, other: Colour) -> float:
    """The contrast ratio of two colours, from 1 to 21, as the Web Content Accessibility Guidelines 2.1 define it."""
    low, high = sorted((_luminance(one), _luminance(other)))
    return (high + 0.05) / (low + 0.05)


def hexadecimal(colour: Colour) -> str:
    """Such as "#ee9273"."""
    return "#" + "".join(f"{part:02x}" for part in colour)


def number(value: float, signed: bool = False) -> str:
    """Three digits of a number, with a "+" for positive ones if ``signed``: "+0.0123", "1326"."""
    if math.isnan(value):
        return "not a number"
    text = f"{value:.0f}" if 1000 <= abs(value) < 1e5 else f"{value:.3g}"
    return ("+" if signed and value > 0 else "") + text.replace("-", "\N{MINUS SIGN}")


def percent(share: float) -> str:
    """A probability in percent: one digit after the point, and two that are not zero where it is small.

    >>> percent(0.52), percent(0.00031), percent(1e-9)
    ('52.0%', '0.031%', '<0.001%')
    """
    if 0 < share < 1e-5:
        return "<0.001%"
    return f"{100 * share:.2g}%" if 0 < share < 0.00095 else f"{share:.1%}"


def shown_rows(n_rows: int, targets: int | Sequence[int] | None, first: int | None) -> list[int]:
    """The rows of the scores to show: those asked for, else all, or the ``first`` few.

    Raises:
        IndexError: there is no such row.
    """
    if targets is None:
        return list(range(n_rows if first is None else min(n_rows, first)))
    rows = [targets] if isinstance(targets, int) else list(targets)
    for row in rows:
        if not -n_rows <= row < n_rows:
            raise IndexError(f"target {row} is out of range: the scores hold {n_rows} rows")
    return [row % n_rows for row in rows]


def _rgb(text: str) -> Colour:
    return int(text[1:3], 16), int(text[3:5], 16), int(text[5:7], 16)


def _luminance(colour: Colour) -> float:
    parts = [part / 255 for part in colour]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
