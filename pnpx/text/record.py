"""The record of an explanation of a text: its units and their scores; shown, saved as JSON and loaded again."""

import json
import os
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import torch
from torch import Tensor

from pnpx.atomic import refuse_folder, write_whole
from pnpx.text import packing
from pnpx.text.granularity import Unit
from pnpx.text.segment import Span

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORMAT, VERSION = "pnpx.text_explanation", 1


@dataclass(frozen=True, eq=False, repr=False)
class TextExplanation:
    """How much each unit of a text counts for what a model says about it, or for each token that it generates.

    Attributes:
        texts: the text, or both texts of a pair; in generation, the prompt and what was generated.
        units: the parts of the texts that have scores, in their order.
        scores: (units,) for one target, or (targets, units); in generation (generated tokens, units), 0 for units that
            come after the generated token.
        targets: what was explained, such as class indices or token ids, one a row of the scores.
        target_names: their names: class names; in generation the text of each generated token.
        probabilities: the probability of each target, where known.
        prediction: the name of the class predicted; None if there is none, as in generation.
        probability: the probability of `prediction`.
        generation: whether the targets are the tokens of a text that was generated, or was given as if it were.
        granularity: what the units are: one of `pnpx.text.granularity.GRANULARITIES`, or "spans".
        aggregation: how scores of tokens became those of units; None where units were scored whole.
        explainer: its "name" and its other parameters, as JSON knows them.
        seconds: how long the explaining took.
        diagnostics: what else there is to say, by name: numbers, strings, tensors.
    """

    texts: tuple[str, ...]
    units: tuple[Unit, ...]
    scores: Tensor
    targets: tuple[Any, ...] = ()
    target_names: tuple[str, ...] = ()
    probabilities: tuple[float, ...] | None = None
    prediction: str | None = None
    probability: float | None = None
    generation: bool = False
    granularity: str = "word"
    aggregation: str | None = "mean"
    explainer: Mapping[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    diagnostics: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        shape = tuple(self.scores.shape)
        if len(shape) not in (1, 2) or shape[-1] != len(self.units):
            raise ValueError(f"scores must be (units,) or (targets, units) for the {len(self.units)} units, "
                             f"but their shape is {shape}")
        n_rows = shape[0] if len(shape) == 2 else 1
        for name in ("targets", "target_names", "probabilities"):
            values = getattr(self, name)
            if values and len(values) != n_rows:
                raise ValueError(f"{name} must hold one value for each of the {n_rows} rows of the scores, "
                                 f"but holds {len(values)}")
        for unit in self.units:
            if unit.sequence is not None and not 0 <= unit.sequence < len(self.texts):
                raise ValueError(f"unit {unit.text!r} is of text {unit.sequence}, but there are "
                                 f"{len(self.texts)} texts")

    def __len__(self) -> int:
        return len(self.units)

    def __repr__(self) -> str:
        what = f"{len(self.units)} units ({self.granularity})"
        return f"TextExplanation({self.title()}, {what}, scores={tuple(self.scores.shape)}, {self.texts[0][:40]!r})"

    @property
    def words(self) -> list[str]:
        """The text of each unit."""
        return [unit.text for unit in self.units]

    @property
    def spans(self) -> list[Span]:
        """The characters of each unit, in its text."""
        return [unit.span for unit in self.units]

    @property
    def generated(self) -> tuple[str, ...] | None:
        """In generation, the text of each generated token."""
        return self.target_names if self.generation else None

    @property
    def rows(self) -> Tensor:
        """(targets, units) the scores, also where there is one target."""
        return self.scores if self.scores.ndim == 2 else self.scores[None]

    def title(self, place: bool = True) -> str:
        """The explainer and the place, in words: "SquareGrad at bert.embeddings"; or the explainer only."""
        name, layer = str(self.explainer.get("name", "Explanation")), self.explainer.get("layer")
        if layer is None or not place:
            return name
        return f"{name} at {', '.join(map(str, layer)) if isinstance(layer, (tuple, list)) else layer}"

    def target_name(self, row: int) -> str:
        """What the row of the scores is about: a class, a generated token; "" where nothing is known."""
        if self.target_names:
            return self.target_names[row]
        return str(self.targets[row]) if self.targets else ""

    def strongest(self, row: int = 0, n: int = 5) -> list[int]:
        """The indices of the units with the largest scores in magnitude, zeros left out."""
        values = self.rows[row].detach().cpu().double().nan_to_num()
        order = torch.argsort(values.abs(), descending=True, stable=True)[:n].tolist()
        return [index for index in order if values[index] != 0]

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write everything to one JSON file, whole or not at all, with every number to its last bit; see `load`.

        Raises:
            OSError: ``path`` cannot be written: its folder does not exist, say, or it is no file, but a folder.
            TypeError: there is something in it, such as a parameter of the explainer, that JSON cannot say.
        """
        record = {item.name: getattr(self, item.name) for item in fields(self)}
        record["units"] = [[unit.text, list(unit.span), list(unit.tokens), unit.sequence] for unit in self.units]
        content = {"format": FORMAT, "version": VERSION, **packing.pack(record, "")}
        write_whole(path, json.dumps(content, indent=1, allow_nan=False).encode("ascii"))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "TextExplanation":
        """The explanation saved at ``path``, equal to the saved one in values and dtypes; tensors are on the CPU.

        Raises:
            OSError: there is no file to read: none at all, say, or a folder.
            ValueError: the file is no explanation of a text, is damaged, or was written by a later version of pnpx.
        """
        refuse_folder(path)
        try:
            content = json.loads(Path(path).read_bytes())
        except ValueError as error:
            raise ValueError(f"{os.fspath(path)!r} is no JSON file, or a damaged one: {error}") from error
        if not isinstance(content, dict) or content.get("format") != FORMAT:
            raise ValueError(f"{os.fspath(path)!r} holds no explanation of a text, but something else than "
                             "TextExplanation.save writes")
        if content.get("version") != VERSION:
            raise ValueError(f"{os.fspath(path)!r} is of format version {content.get('version')}, and this pnpx reads "
                             f"version {VERSION}; load it with the pnpx that saved it, or a later one")
        try:
            values = {item.name: packing.unpack(content[item.name]) for item in fields(cls)}
            values["units"] = tuple(Unit(text, (start, end), tuple(tokens), sequence)
                                    for text, (start, end), tokens, sequence in values["units"])
            return cls(**values)
        except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
            raise ValueError(f"{os.fspath(path)!r} is a damaged explanation of a text: {error!r}") from error

    def plot(self, targets: int | list[int] | None = None) -> "Figure":
        """A figure of the text, each unit on the colour of its score, once for each target.

        Args:
            targets: the rows of the scores to draw; by default all, in generation the first twelve.
        """
        from pnpx.text.figure import plot

        return plot(self, targets)

    def to_html(self, path: str | os.PathLike[str] | None = None) -> str:
        """One self-contained page: the text in colours, targets to choose from, values. It runs no script.

        Args:
            path: where to write the page too, whole or not at all.
        """
        from pnpx.text.html import page

        source = page(self)
        if path is not None:
            write_whole(path, source.encode("utf-8", "replace"))
        return source

    def _repr_html_(self) -> str:
        from pnpx.text.html import snippet

        # Two outputs of a notebook are in one document, where buttons of the same name would switch each other off.
        return snippet(self, key=f"pnpx-{uuid.uuid4().hex[:12]}")

    def __str__(self) -> str:
        from pnpx.text.terminal import render

        return render(self, colours="none")

    def show(self, targets: int | list[int] | None = None, file: IO[str] | None = None,
             colours: str | None = None) -> None:
        """Print the text, each unit on the colour of its score, once for each target, with the strongest units below.

        Args:
            targets: the rows of the scores to print; by default all, in generation the first twelve.
            file: by default the standard output.
            colours: "truecolor", "256" or "none"; by default what the terminal can show, and "none" where the output is
                no terminal or NO_COLOR is set (https://no-color.org).
        """
        from pnpx.text.terminal import show

        show(self, targets, file, colours)
