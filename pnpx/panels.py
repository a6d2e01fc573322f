"""What a report says of one explanation: what the model gave, and the panel of the attributions."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pnpx.explanation import Explanation
from pnpx.store import FINGERPRINT, Record

if TYPE_CHECKING:
    from pnpx.report import Panel


_OF_GROUPS = frozenset({"by_group"})
"""Diagnostics with a number for each group, which the picture shows."""


@dataclass(frozen=True)
class Output:
    """What a model gave for a sample, in words: ``what``, such as a class, was "predicted", or else ``how``.

    Where no explanation tells it, there is none.
    """

    what: str | None = None
    probability: float | None = None
    how: str = "predicted"


def output_of(explanation: Record) -> Output:
    """What the model gave for the sample of an ``explanation``."""
    if isinstance(explanation, Explanation):
        if explanation.prediction is None:
            output = explanation.output
            if output is None or output.numel() != 1 or not output.is_floating_point():
                return Output()
            return Output(f"{float(output):.4g}", how="output")
        probability = None if explanation.probability is None else float(explanation.probability[0])
        return Output(explanation.label(int(explanation.prediction[0])), probability)
    if explanation.prediction is not None:
        return Output(explanation.prediction, explanation.probability)
    if explanation.generation:
        return Output(explanation.texts[-1], how="continuation")
    return Output(", ".join(explanation.target_names), how="explained")


def panel_of(
    explanation: Record, explainer: str, layer: str | None, parameters: Mapping[str, Any], picture: Path
) -> "Panel":
    """The panel of an ``explanation`` of one sample, by the ``explainer`` with these ``parameters`` at ``layer``."""
    from pnpx.report import Panel

    if isinstance(explanation, Explanation):
        return Panel(
            explainer=explainer,
            layer=layer,
            parameters=parameters,
            png=picture,
            target=_target(explanation),
            seconds=explanation.seconds,
            notes={
                name: f"{float(value.reshape(-1)[0]):.3g}"
                for name, value in explanation.diagnostics.items()
                if name not in _OF_GROUPS
            },
        )
    described = {name: value for name, value in explanation.explainer.items() if name != FINGERPRINT}
    return Panel(
        explainer=explainer,
        layer=layer,
        parameters=parameters,
        png=picture,
        target="" if explanation.generation else ", ".join(explanation.target_names),
        seconds=explanation.seconds,
        notes={},
        text=replace(explanation, explainer=described),
    )


def _target(explanation: Explanation) -> str:
    targets = explanation.targets
    if targets is None or targets.is_floating_point():
        return "the output"
    if explanation.indices:
        return str(tuple(targets[0].tolist()))
    return ", ".join(explanation.label(int(one)) for one in targets.reshape(-1))
