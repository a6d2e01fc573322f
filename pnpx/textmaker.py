"""Making the explainers of texts that a configuration names: what :mod:`pnpx.maker` does for the others."""

import warnings
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from pnpx.explainers import Explainer
from pnpx.explainers.gradient import Gradient
from pnpx.explainers.perturbation import PerturbationExplainer
from pnpx.maker import Maker
from pnpx.subjects import Subject
from pnpx.text import TextExplainer
from pnpx.text.samples import TextSamples
from pnpx.texttargets import GENERATES


@dataclass(frozen=True, eq=False)
class TextSubject(Subject):
    """A model that reads texts, its tokenizer, and what it does, as :class:`pnpx.text.tasks.Task` has it."""

    data: TextSamples
    tokenizer: Any = None
    kind: str = ""


@dataclass(frozen=True)
class TextMaker(Maker):
    """Makes an explainer of texts of one kind for a model, at any layer, and without any of its ``arguments``."""

    generation: Mapping[str, Any]

    def __call__(self, layer: str | None, left_out: Collection[str]) -> TextExplainer:
        return self._of(self.kind, layer, {key: value for key, value in self.arguments.items() if key not in left_out})

    def rehearse(self, layer: str | None, left_out: Collection[str], index: int) -> None:
        """Raise what the explainer would raise for the text, as far as one gradient at the layer tells."""
        made = self(layer, left_out)
        if layer is None or issubclass(self.kind, PerturbationExplainer):
            return
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what there is to warn of, the job itself will say
            data: Any = self.subject.data
            target = data.inputs[index].target
            generates = target is None and getattr(self.subject, "kind", "") in GENERATES
            short = {**self.generation, "max_new_tokens": 1} if generates else {}
            gradient = self._of(Gradient, layer, {"granularity": made.granularity})
            gradient(data.take([index]), None if target is None else [target], **short)

    def _of(self, kind: type[Explainer], layer: str | None, arguments: dict[str, Any]) -> TextExplainer:
        place = {} if layer is None else {"layer": layer}
        tokenizer = self.subject.tokenizer if isinstance(self.subject, TextSubject) else None
        return TextExplainer(kind, self.subject.module, tokenizer, **arguments, **place)
