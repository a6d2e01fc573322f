"""Making the explainers that a configuration names, also without some of what it says of them."""

from collections.abc import Collection
from dataclasses import MISSING, Field, dataclass, fields
from typing import Any

from pnpx.explainers import Explainer
from pnpx.subjects import Subject


@dataclass(frozen=True)
class Maker:
    """Makes an explainer of one kind for a model, at any layer, and without any of its ``arguments``."""

    kind: type[Explainer]
    subject: Subject
    arguments: dict[str, Any]

    def __call__(self, layer: str | None, left_out: Collection[str]) -> Any:
        arguments = {name: value for name, value in self.arguments.items() if name not in left_out}
        if missing := [item.name for item in required(self.kind) if item.name not in arguments]:
            examples = self.kind.example_parameters(self.subject.data.inputs[:1])
            arguments |= {name: examples[name] for name in missing if name in examples}
        return self.kind(self.subject.module, layer=layer, **arguments)

    def rehearse(self, layer: str | None, left_out: Collection[str], index: int) -> None:
        """Raise what the explainer would raise for the sample of that index."""
        self(layer, left_out).rehearse(self.subject.data.take([index]))


def required(kind: type[Explainer]) -> list[Field[Any]]:
    """The parameters of an explainer without a default, beside the model."""
    return [
        item
        for item in fields(kind)
        if item.init and item.name != "model" and item.default is MISSING and item.default_factory is MISSING
    ]
