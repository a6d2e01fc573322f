"""A figure of an explained text: the text once for each target, each unit on the colour of its score."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from pnpx.plots import compose
from pnpx.plots.style import Scale
from pnpx.plots.tokens import TokenPanel
from pnpx.text.colours import percent, shown_rows
from pnpx.text.layout import layout, visible

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from pnpx.text.record import TextExplanation

_MANY = 12  # generated tokens


def plot(explanation: "TextExplanation", targets: int | Sequence[int] | None = None) -> "Figure":
    """The figure, one of matplotlib's; see `TextExplanation.plot`."""
    scores = explanation.rows.detach().cpu().double().numpy()
    rows = shown_rows(len(scores), targets, _MANY if explanation.generation else None)
    # Units of several words are drawn a word a box, so that long ones go on in the next line.
    words, owners = [], []
    for block in layout(explanation.texts, explanation.units):
        for fragment in block:
            for word in fragment.text.split():
                words.append(word)
                owners.append(fragment.unit)
    maps = [np.array([np.nan if owner is None else scores[row][owner] for owner in owners]) for row in rows]
    several = len(rows) > 1
    names = [_name(explanation, row) for row in rows]
    prediction = ""
    if explanation.prediction is not None:
        chance = "" if explanation.probability is None else f" ({percent(explanation.probability)})"
        prediction = visible(f"predicted {explanation.prediction}{chance}")
    subtitle = [prediction] if several or not names else [names[0], prediction]
    panel = TokenPanel(words, maps, names if several else [""] * len(rows), Scale.of([scores[rows]]))
    return compose(visible(explanation.title()), " · ".join(filter(None, subtitle)), [""], [panel])


def _name(explanation: "TextExplanation", row: int) -> str:
    name = visible(explanation.target_name(row))
    if not name:
        return ""
    text = f"token {row + 1}: {name!r}" if explanation.generation else f"target {name}"
    return text if not explanation.probabilities else f"{text} ({percent(explanation.probabilities[row])})"
