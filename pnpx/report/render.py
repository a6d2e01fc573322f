"""What a report holds, and its page: one HTML file that needs no network and no other file."""

import base64
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pnpx.atomic import write_whole
from pnpx.report.png import is_whole

if TYPE_CHECKING:
    from pnpx.ranking import Ranking
    from pnpx.recommender import Recommendation
    from pnpx.text.record import TextExplanation


@dataclass(frozen=True)
class Panel:
    """The attributions of one explainer at one place, for one sample."""

    explainer: str
    layer: str | None
    """None for the input."""
    parameters: Mapping[str, Any]
    """Of the explainer, without its layer."""
    png: Path
    """The figure."""
    target: str
    """What was explained, such as a class name; "" if there is nothing to say."""
    seconds: float
    notes: Mapping[str, str]
    """What else to say, by name."""
    text: "TextExplanation | None" = None
    """The explanation of a text, which is shown as text in place of the figure."""


@dataclass(frozen=True)
class Sample:
    """A sample, what the model says about it, and why."""

    index: int
    """In its data."""
    input_png: Path | None
    label: str | None
    """The truth, where it is known."""
    prediction: str | None
    """None where nothing that was explained tells it."""
    probability: float | None
    panels: Sequence[Panel]
    how: str = "predicted"
    """How the model came to what is its ``prediction``: that need not be a class."""
    texts: Sequence[str] = ()
    """The sample, where it is a text, or a pair of them."""
    missing: Sequence["Failure"] = ()
    """Why explanations of it are missing, each with what happened to it."""

    @property
    def judged(self) -> bool:
        """Whether it is known if the prediction is right: a class was predicted, and the true one is known."""
        return self.how == "predicted" and self.label is not None and self.prediction is not None

    @property
    def mistaken(self) -> bool:
        """Whether the prediction is known to be wrong."""
        return self.judged and self.label != self.prediction


@dataclass(frozen=True)
class Section:
    """A model and the samples explained."""

    model: str
    architecture: str
    n_parameters: int
    data: str
    accuracy: float | None
    """Between 0 and 1, on data held out."""
    samples: Sequence[Sample]
    detected: str = ""
    """Of which kinds of modules the model is made; "" if that was not looked at."""
    rankings: Sequence[tuple[str | None, str, "Ranking"]] = ()
    """The explainers of each place, ranked, where metrics judge them, and by which units, if there are several."""
    recommendations: Sequence[tuple[str | None, Sequence["Recommendation"]]] = ()
    """What was recommended at each place, where that was asked for."""

    @property
    def selectable(self) -> bool:
        """Whether there are explanations in it with several targets, of which a reader chooses one."""
        return any(panel.text is not None and panel.text.rows.shape[0] > 1
                   for sample in self.samples for panel in sample.panels)


@dataclass(frozen=True)
class Failure:
    """What could not be explained, and why."""

    model: str
    explainer: str
    layer: str | None
    message: str


@dataclass(frozen=True)
class Report:
    """Everything on the page."""

    title: str
    created: str
    settings: str
    """The YAML as run."""
    sections: Sequence[Section]
    failures: Sequence[Failure]
    versions: Mapping[str, str]

    @property
    def samples(self) -> list[Sample]:
        """Those of all sections."""
        return [sample for section in self.sections for sample in section.samples]

    @property
    def panels(self) -> list[Panel]:
        """Those of all samples."""
        return [panel for sample in self.samples for panel in sample.panels]

    @property
    def has_texts(self) -> bool:
        """Whether there are explanations of texts on it."""
        return any(panel.text is not None for panel in self.panels)

    @property
    def explainers(self) -> list[str]:
        """The names of the explainers, in the order in which they come up first."""
        return list(dict.fromkeys(panel.explainer for panel in self.panels))

    @property
    def seconds(self) -> float:
        """How long all the explaining took."""
        return sum(panel.seconds for panel in self.panels)


def render(report: Report, path: Path) -> None:
    """Write the page: one file, with its images inside, that loads nothing and runs no script.

    Raises:
        FileNotFoundError: an image, or the folder of ``path``, does not exist. Nothing is written then.
        ValueError: an image is no PNG, or was cut off.
    """
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    from pnpx.text.colours import percent
    from pnpx.text.html import part, style
    from pnpx.text.layout import visible

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
                              finalize=lambda value: visible(value) if isinstance(value, str) else value)
    environment.filters.update(image=_image, duration=_duration, parameter=_parameter, percent=percent,
                               score=score)
    # Both come escaped: the style sheet holds nothing that was given, and the part is made by a template like this one.
    environment.globals.update(text_style=lambda: Markup(style()), text_part=lambda *of: Markup(part(*of)))
    template = environment.from_string((files("pnpx.report") / "templates" / "report.html.j2").read_text("utf-8"))
    write_whole(path, template.render(report=report).encode("utf-8", "replace"))


@dataclass(frozen=True)
class _Image:
    address: str
    width: int
    height: int
    inches: float
    """The width it was made for."""


def _image(path: Path) -> _Image:
    content = Path(path).read_bytes()
    if not is_whole(content):
        raise ValueError(f"the images of a report must be PNG files, but {str(path)!r} is none, or is damaged")
    # The sizes keep the page from jumping while it is laid out: a PNG has them in its first chunk.
    width, height = struct.unpack(">II", content[16:24])
    density = content.find(b"pHYs", 24, 1024)  # pixels a metre, which all figures of matplotlib say
    per_inch = struct.unpack(">I", content[density + 4 : density + 8])[0] * 0.0254 if density > 0 else 0.0
    address = f"data:image/png;base64,{base64.b64encode(content).decode()}"
    return _Image(address, width, height, width / (per_inch or 110))


def _duration(seconds: float) -> str:
    """In words: "0.32 s", "12 s", "3 min 5 s", "2 h 10 min"."""
    if seconds < 10:
        return f"{seconds:.2g} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def _parameter(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def score(value: float) -> str:
    """A value of a metric: three digits, and no more where it is small or large.

    >>> score(0.12345), score(-3.0), score(12345.6), score(0.0000123), score(float("inf"))
    ('0.123', '-3.00', '12,346', '1.23e-05', '∞')
    """
    if value in (float("inf"), float("-inf")):
        return "∞" if value > 0 else "-∞"
    size = abs(value)
    if size >= 1000:
        return f"{value:,.0f}"
    if size >= 1 or size == 0:
        return f"{value:.{2 if size < 10 else 1}f}"
    return f"{value:.3f}" if size >= 0.001 else f"{value:.3g}"
