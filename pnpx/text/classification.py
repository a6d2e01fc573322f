"""Explanations of texts that a model puts into classes: several texts a pass, those of like length together."""

import time
from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING

import torch

from pnpx.explainers.perturbation import PerturbationExplainer
from pnpx.text.batching import together
from pnpx.text.granularity import Unit, units
from pnpx.text.record import TextExplanation
from pnpx.text.scoring import Job, Scored, score
from pnpx.text.targets import Classes
from pnpx.text.tasks import Task
from pnpx.text.unpadded import Reading

if TYPE_CHECKING:
    from pnpx.text.explainer import TextExplainer


def classified(
    explain: "TextExplainer", readings: Sequence[Reading], wanted: Sequence[Classes], task: Task
) -> list[TextExplanation]:
    """The explanation of each text, for the classes wanted of it."""
    found: dict[int, TextExplanation] = {}
    parts = [units(reading.encoded, explain.granularity) for reading in readings]
    for chosen in _chunks(explain, readings, wanted, parts):
        start = time.perf_counter()
        some = [readings[index] for index in chosen]
        own = [parts[index] for index in chosen]
        classes = wanted[chosen[0]]
        targets = None
        if classes.indices is not None:
            targets = torch.tensor([wanted[index].indices for index in chosen])
            targets = targets[:, 0] if classes.single else targets
        held = [explain.held(reading) if explain.aggregated is None else set() for reading in some]
        scored = score(explain, Job(some, own, held, task.embeddings), targets)
        seconds = (time.perf_counter() - start) / len(chosen)
        for row, index in enumerate(chosen):
            found[index] = _explanation(explain, scored, row, some[row], own[row], wanted[index], seconds)
    return [found[index] for index in range(len(readings))]


def _chunks(
    explain: "TextExplainer",
    readings: Sequence[Reading],
    wanted: Sequence[Classes],
    parts: Sequence[Sequence[Unit]],
) -> list[list[int]]:
    """Which texts are explained together."""
    kinds: list[Hashable] = [(one.indices is None, one.single, len(one.indices or ())) for one in wanted]
    sizes = [explain.rows] * len(readings)
    if issubclass(explain.method, PerturbationExplainer):
        # Each text fills passes with copies of itself, and texts of as many units take as many of them.
        kinds = [(kind, len(own)) for kind, own in zip(kinds, parts, strict=True)]
        sizes = [max(1, explain.rows // max(1, len(own))) for own in parts]
    return list(together([len(reading) for reading in readings], kinds, sizes))


def _explanation(
    explain: "TextExplainer",
    scored: Scored,
    row: int,
    reading: Reading,
    parts: Sequence[Unit],
    classes: Classes,
    seconds: float,
) -> TextExplanation:
    names = explain.labels
    chosen: Sequence[int] = classes.indices or ()
    if classes.indices is None and scored.targets is not None:
        chosen = [int(scored.targets[row])]
    probabilities = None
    if scored.output is not None and scored.output.ndim == 2 and scored.output.shape[1] > 1:
        shares = scored.output[row].float().softmax(-1)
        probabilities = tuple(float(shares[index]) for index in chosen)
    predicted = None if scored.prediction is None else int(scored.prediction[row])
    return TextExplanation(
        texts=reading.encoded.joined,
        units=tuple(parts),
        scores=scored.scores[row],
        targets=tuple(chosen),
        target_names=tuple(names.get(index, str(index)) for index in chosen),
        probabilities=probabilities,
        prediction=None if predicted is None else names.get(predicted, str(predicted)),
        probability=None if scored.probability is None else float(scored.probability[row]),
        granularity=explain.granularity if isinstance(explain.granularity, str) else "spans",
        aggregation=explain.aggregated,
        explainer=scored.explainer,
        seconds=seconds,
        diagnostics={name: value[row].cpu() for name, value in scored.diagnostics.items()},
    )
