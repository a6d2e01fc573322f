"""Metrics as explainers: they take the same paths through models, places, batches and extractors."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field, fields, replace
from typing import Any, cast

import torch
from torch import Tensor

from pnpx.attributors import Bound
from pnpx.explainers.base import Explainer
from pnpx.explainers.covers import Cover, Partition
from pnpx.explainers.cutting import in_pieces
from pnpx.explainers.games import Game, PlaceGame
from pnpx.explainers.occlusion import FeatureAblation
from pnpx.explainers.perturbation import PerturbationExplainer
from pnpx.explainers.pieces import Piece
from pnpx.extractors import Call
from pnpx.metrics.maps import channels_of, maps_of
from pnpx.metrics.probabilities import Probabilities
from pnpx.metrics.trial import Trial
from pnpx.scores import Aim, Objective, Targets
from pnpx.structure import Structure, tensors

Measure = Callable[[Trial], dict[str, Tensor]]
"""From the attributions of some samples to what is found of them: by name (targets, batch, ...)."""


class _Apart(Exception):
    """Places of which one is computed from another, so that each is explained by itself."""


@dataclass(frozen=True)
class _Judge(FeatureAblation):
    """Takes groups away as its base does, but lets a metric say which, and what follows from it.

    It explains nothing, and is no explainer to choose, which its name says.

    Args:
        judged: the explainer whose attributions they are.
        maps: the attributions to be judged, or to be compared, each as a list of tensors.
        pooled: how their channels were pooled; None: they were not.
        measure: what is done with them.
        probable: whether scores are probabilities, where the model tells classes apart.
        name: that of the metric.
    """

    _: KW_ONLY
    judged: Explainer | None = field(default=None, repr=False)
    maps: Sequence[Sequence[Tensor]] = field(default=(), repr=False)
    pooled: str | None = None
    measure: Measure = lambda trial: {}
    probable: bool = False
    name: str = ""

    @property
    def objective(self) -> Objective:
        """How scores come about."""
        plain = super().objective
        if not self.probable:
            return plain
        return Probabilities(plain.score, plain.output_extractor, plain.inference_mode, plain.n_classes)

    def explain_at(self, bound: Bound, aim: Aim, reference: Call | None) -> list[list[Tensor]]:
        """Nothing: zeros."""
        return [[torch.zeros_like(value.tensor) for value in bound.values] for _ in range(aim.n_targets or 1)]

    def diagnose(self, bound: Bound, aim: Aim, reference: Call | None, found: list[list[Tensor]]) -> dict[str, Tensor]:
        """What the metric measures, (batch, ...), or (batch, n_targets, ...)."""
        if any(len(given) > len(bound.values) for given in self.maps) and _several(self.layer):
            raise _Apart

        def make() -> tuple[Game, Cover]:
            cover = self.cover(bound, reference)
            return PlaceGame(bound, aim, cover, self._absent(bound, reference), self.rows), cover

        def parts() -> Sequence[Tensor] | None:
            return self._parts(bound, reference)

        which = cast(Any, reference)  # made by reference_call, which counts the samples of the batch
        channels = None if self.pooled is None else self._channels
        maps = []
        for given in self.maps:
            if len(given) != len(bound.values):
                raise ValueError(
                    f"attributions must be what explainer.attribute returns, with {len(bound.values)} tensors, as many "
                    f"as are explained, but they have {len(given)}"
                )
            rows, total = which.rows.cpu(), which.total
            maps.append(maps_of(given, bound.values, rows, total, aim.n_targets, self.pooled, channels))
        measured = self.measure(Trial(bound.values, maps, make, self.progress, self.name, parts))
        if not isinstance(measured, Mapping):
            raise TypeError(
                "measure must return a mapping, with the 'value' of each sample, (targets, batch), but returned a "
                f"{type(measured).__name__}"
            )
        single = aim.n_targets is None
        return {name: one[0] if single else one.movedim(0, 1) for name, one in measured.items()}

    def _parts(self, bound: Bound, reference: Call | None) -> Sequence[Tensor] | None:
        """What part of its attribution each element counts for, where the explainer gives each what its group is worth.

        Of channels that were pooled the mean, like the largest and the least, is what the group is worth, of which
        `maps_of` has made equal parts.
        """
        if not isinstance(self.judged, PerturbationExplainer):
            return None
        cover = self.judged.cover(bound, reference)
        if not isinstance(cover, Partition):
            return None
        whole = self.pooled is not None and self.pooled != "sum"
        return [
            (channels_of(value, self._channels) if whole else 1) / sizes
            for value, sizes in zip(bound.values, cover.sizes(), strict=True)
        ]


def judged(
    explainer: Explainer,
    inputs: Any,
    targets: Targets,
    attributions: Sequence[Structure],
    measure: Measure,
    **own: Any,
) -> Mapping[str, Tensor]:
    """What is measured of attributions of a batch: by name (batch, ...), or (batch, n_targets, ...).

    Args:
        explainer: what explained it.
        inputs: the batch.
        targets: as `Explainer.attribute` takes them.
        attributions: what is judged, or compared: structures as `Explainer.attribute` returns them.
        measure: see `Measure`.
        **own: parameters of the game that are the metric's own, such as groups.
    """
    try:
        return judging(explainer, inputs, targets, attributions, measure, **own).diagnostics
    except _Apart:
        places = list(cast(Sequence[Any], explainer.layer))
    for one in attributions:
        if not isinstance(one, (tuple, list)) or len(one) != len(places):
            raise ValueError(
                f"attributions at a sequence of {len(places)} layers must be a tuple of as many, as "
                f"explainer.attribute returns them, but are a {type(one).__name__}"
            )
    several = [
        judging(replace(explainer, layer=place), inputs, targets, parts, measure, **own).diagnostics
        for place, *parts in zip(places, *attributions, strict=True)
    ]
    return {name: _mean([found[name] for found in several]) for name in several[0]}


def judging(
    explainer: Explainer,
    inputs: Any,
    targets: Targets,
    attributions: Sequence[Structure],
    measure: Measure,
    **own: Any,
) -> Piece:
    """The same as `judged`, with the targets that were explained; at one place, or at several of which none is computed
    from another."""
    shared = {one.name: getattr(explainer, one.name) for one in fields(Explainer)}
    model, pooled = shared.pop("model"), shared.pop("reducer")
    maps = [tensors(one) for one in attributions]
    judge = _Judge(model, **{**shared, "judged": explainer, "maps": maps, "pooled": pooled, "measure": measure, **own})
    with torch.inference_mode(False), torch.no_grad():
        targets = judge.objective.read_targets(targets)
        return in_pieces(judge, inputs, judge._call(inputs), targets, diagnose=True)


def _several(layer: Any) -> bool:
    return isinstance(layer, (tuple, list)) and len(layer) > 1


def _mean(quantities: Sequence[Tensor]) -> Tensor:
    """The mean over places; NaN where one has fewer entries."""
    widest = max(quantity.shape[-1] for quantity in quantities)
    pad = torch.nn.functional.pad
    return torch.stack([pad(one, (0, widest - one.shape[-1]), value=torch.nan) for one in quantities]).mean(0)
