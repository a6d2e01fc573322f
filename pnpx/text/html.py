"""An explained text as HTML that needs no network and no other file, and runs no script."""

import base64
import hashlib
import math
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from pnpx.text.colours import STEPS, Scale, hexadecimal, number, paint, percent
from pnpx.text.layout import Fragment, blank, layout, visible

if TYPE_CHECKING:
    from jinja2 import Template

    from pnpx.text.record import TextExplanation

_CELLS = 6000  # beyond which a table of all values helps nobody


@dataclass(frozen=True)
class View:
    """The text for one target."""

    name: str
    short: str
    """What is on its button."""
    chance: str
    scores: list[float]
    strongest: list[int]


def page(explanation: "TextExplanation") -> str:
    """A page of its own, whose security policy allows its own style sheet and nothing else."""
    return _render("page", explanation, "text")


def snippet(explanation: "TextExplanation", key: str) -> str:
    """A part of a page, such as the output of a notebook's cell; ``key`` must be unlike that of any other part."""
    return _render("snippet", explanation, key)


def part(explanation: "TextExplanation", key: str, place: bool = True) -> str:
    """What a page shows of one explanation among others; it needs `style` in its head, and a ``key`` of its own.

    ``place`` tells whether where it was explained is in its heading.
    """
    return _render("part", explanation, key, place)


def style() -> str:
    """The style sheet of the parts."""
    return _style()


def _render(kind: str, explanation: "TextExplanation", key: str, place: bool = True) -> str:
    scores, scale = explanation.rows.detach().cpu().double().tolist(), Scale.of(explanation.scores)
    sheet = _style()
    source = _template().render(
        kind=kind, key=key, style=sheet, digest=base64.b64encode(hashlib.sha256(sheet.encode()).digest()).decode(),
        title=visible(explanation.title(place)), explanation=explanation, scale=scale,
        views=[_view(explanation, row, scores[row]) for row in range(len(scores))],
        blocks=layout(explanation.texts, explanation.units), labels=_labels(explanation),
        words=[visible(unit.text) if unit.text.strip() else blank(unit.text).strip() for unit in explanation.units],
        facts=_facts(explanation), table=len(scores) * len(explanation.units) <= _CELLS,
    )
    return source.encode("utf-8", "replace").decode("utf-8")


def _view(explanation: "TextExplanation", row: int, scores: list[float]) -> View:
    name = visible(explanation.target_name(row))
    chance = "" if not explanation.probabilities else percent(explanation.probabilities[row])
    short = name
    if explanation.generation:
        short = name.strip() or blank(name).strip() or "∅"
    return View(name, short or f"target {row + 1}", chance, scores, explanation.strongest(row, 6))


def _labels(explanation: "TextExplanation") -> list[str]:
    if explanation.generation and len(explanation.texts) == 2:
        return ["prompt", "generated"]
    n_texts = len(explanation.texts)
    return [f"text {index + 1}" for index in range(n_texts)] if n_texts > 1 else [""]


def _facts(explanation: "TextExplanation") -> dict[str, str]:
    facts = {"granularity": explanation.granularity.replace("_", " ")}
    if explanation.aggregation:
        facts["aggregation"] = explanation.aggregation
    facts |= {str(name): _value(value) for name, value in explanation.explainer.items() if name != "name"}
    facts |= {str(name): _value(value) for name, value in explanation.diagnostics.items()}
    facts["seconds"] = f"{explanation.seconds:.3g}"
    return {visible(name): visible(value) for name, value in facts.items()}


def _value(value: Any) -> str:
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, float):
        return number(value)
    if isinstance(value, (list, tuple)):
        shown = ", ".join(_value(item) for item in value[:8])
        return shown + (f", … ({len(value)} values)" if len(value) > 8 else "")
    return str(value)


def _paint_class(scale: Scale, score: float) -> str:
    step = scale.step(score)
    if step is None:
        return "nan"
    return f"q{step}" if not scale.signed else f"n{-step}" if step < 0 else f"p{step}"


def _signed(scale: Scale, score: float) -> str:
    return number(score, scale.signed)


def _share(scale: Scale, score: float) -> float:
    return 0.0 if not scale.limit or math.isnan(score) else abs(score) / scale.limit


def _step_class(scale: Scale, step: int) -> str:
    return _paint_class(Scale(float(STEPS), scale.signed), float(step))


def _is_cut(fragment: Fragment) -> bool:
    return fragment.unit is None and not fragment.text.isspace()


@cache
def _style() -> str:
    """The style sheet, with a class for each colour, by day and by night."""
    sheet = (files("pnpx.text") / "templates" / "text.css").read_text("utf-8")
    for scheme in ("light", "dark"):
        rules = []
        for letter, signed, sign in (("p", True, 1), ("n", True, -1), ("q", False, 1)):
            for step in range(STEPS + 1):
                back, ink = map(hexadecimal, paint(sign * step, signed, scheme))
                rules.append(f".pnpx-text .{letter}{step} {{ background: {back}; color: {ink}; }}")
        sheet = sheet.replace(f"/* {scheme} colours */", "\n".join(rules))
    return sheet


@cache
def _template() -> "Template":
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters.update(number=number, percent=percent, visible=visible)
    environment.globals.update(paint=_paint_class, signed=_signed, share=_share, step_class=_step_class, cut=_is_cut)
    return environment.from_string((files("pnpx.text") / "templates" / "text.html.j2").read_text("utf-8"))
