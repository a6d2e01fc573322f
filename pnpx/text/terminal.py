"""An explained text in a terminal: each unit on the colour of its score, and the strongest units in numbers."""

import os
import sys
from collections.abc import Mapping, Sequence
from typing import IO, TYPE_CHECKING

from pnpx.suggest import nearest
from pnpx.text.colours import STEPS, Colour, Scale, number, paint, percent, shown_rows
from pnpx.text.layout import Fragment, layout, visible

if TYPE_CHECKING:
    from pnpx.text.record import TextExplanation

COLOURS = ("truecolor", "256", "none")
_MANY = 12  # generated tokens


def show(explanation: "TextExplanation", targets: int | Sequence[int] | None = None, file: IO[str] | None = None,
         colours: str | None = None) -> None:
    """Print it to ``file``, by default the standard output; see `render`."""
    file = sys.stdout if file is None else file
    text = render(explanation, targets, supported(file, os.environ) if colours is None else colours)
    encoding = getattr(file, "encoding", None) or "utf-8"
    print(text.encode(encoding, "replace").decode(encoding), file=file)


def supported(file: IO[str], environment: Mapping[str, str]) -> str:
    """Which colours ``file`` can show: "none" where it is no terminal, where NO_COLOR is set or TERM is "dumb"."""
    terminal = environment.get("TERM", "")
    if environment.get("NO_COLOR") or terminal == "dumb":
        return "none"
    if not (file.isatty() or environment.get("FORCE_COLOR")):
        return "none"
    if environment.get("COLORTERM") in ("truecolor", "24bit") or "WT_SESSION" in environment:
        return "truecolor"
    return "256" if "256color" in terminal or environment.get("FORCE_COLOR") else "none"


def render(explanation: "TextExplanation", targets: int | Sequence[int] | None = None, colours: str = "none") -> str:
    """The text once for each target, each unit on the colour of its score, and below the strongest units in numbers.

    Letters on a colour have a colour of their own, so that they can be read on dark and on light terminals; units
    without a colour, and all else, are as the terminal has them.

    Raises:
        IndexError: there is no such target.
        ValueError: ``colours`` is unknown.
    """
    if colours not in COLOURS:
        raise ValueError(f"colours must be one of {', '.join(COLOURS)}, but got {colours!r}; "
                         f"{nearest(colours, COLOURS)}")
    scores, scale = explanation.rows.detach().cpu().double().tolist(), Scale.of(explanation.scores)
    rows = shown_rows(len(scores), targets, _MANY if explanation.generation else None)
    blocks = layout(explanation.texts, explanation.units)
    heads = [visible(explanation.title())]
    if explanation.prediction is not None:
        chance = "" if explanation.probability is None else f" ({percent(explanation.probability)})"
        heads.append(visible(f"predicted {explanation.prediction}{chance}"))
    parts = [" · ".join(heads)]
    if colours == "none":
        parts += ["\n".join(_plain(block) for block in blocks)]
    for row in rows:
        lines = [_heading(explanation, row)] if explanation.target_name(row) else []
        if colours != "none":
            lines += [_coloured(block, scores[row], scale, colours) for block in blocks]
        strongest = [f"“{_named(explanation.words[index])}” {number(scores[row][index], scale.signed)}"
                     for index in explanation.strongest(row)]
        lines.append(("strongest: " + ", ".join(strongest)) if strongest else "all scores are 0")
        parts.append("\n".join(lines))
    if colours != "none" and scale.limit:
        parts.append(_legend(scale, colours))
    if len(rows) < len(scores) and targets is None:
        parts.append(f"({len(scores) - len(rows)} more generated tokens; show them with targets=[...])")
    return "\n\n".join(parts)


def _heading(explanation: "TextExplanation", row: int) -> str:
    name = explanation.target_name(row)
    text = f"token {row + 1} {name!r}" if explanation.generation else f"target {name}"
    if explanation.probabilities:
        text += f" ({percent(explanation.probabilities[row])})"
    return visible(text)


def _named(text: str) -> str:
    line = " ".join(visible(text).split()) or repr(text)
    return line if len(line) <= 40 else f"{line[:24]}…{line[-15:]}"


def _plain(block: Sequence[Fragment]) -> str:
    return "".join(fragment.text for fragment in block if fragment.kind == "text")


def _coloured(block: Sequence[Fragment], scores: Sequence[float], scale: Scale, colours: str) -> str:
    parts = []
    for fragment in block:
        step = None if fragment.unit is None else scale.step(scores[fragment.unit])
        # A colour that reached over the end of a line would fill the rest of it.
        parts.append("\n".join(_paint(line, step, scale.signed, colours) for line in fragment.text.split("\n")))
    return "".join(parts)


def _paint(text: str, step: int | None, signed: bool, colours: str) -> str:
    if not step or not text:
        return text
    back, ink = (_code(colour, colours) for colour in paint(step, signed))
    return f"\x1b[48;{back};38;{ink}m{text}\x1b[0m"


def _code(colour: Colour, colours: str) -> str:
    if colours == "truecolor":
        return "2;{};{};{}".format(*colour)
    red, green, blue = (_nearest_of_six(part) for part in colour)
    return f"5;{16 + 36 * red + 6 * green + blue}"


def _nearest_of_six(part: int) -> int:
    return min(range(6), key=lambda level: abs(part - (0, 95, 135, 175, 215, 255)[level]))


def _legend(scale: Scale, colours: str) -> str:
    bar = "".join(_paint("  " if step else "· ", step, scale.signed, colours) for step in scale.steps[:: STEPS // 4])
    return f"{number(scale.ticks[0])} {bar} {number(scale.limit)}"
