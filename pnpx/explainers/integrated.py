"""Integrated gradients: the mean gradient on a path from a baseline, times the path."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from pnpx.attributors import Bound
from pnpx.baselines import BASELINES, Baseline, baseline_call
from pnpx.explainers.base import require_count
from pnpx.explainers.points import GradientExplainer, Point
from pnpx.extractors import Call
from pnpx.parameters import Range, tunable
from pnpx.scores import Aim, Targets
from pnpx.statistics import Sum
from pnpx.suggest import nearest

Rule = Literal["gausslegendre", "riemann_middle", "riemann_left", "riemann_right", "riemann_trapezoid"]
RULES = ("gausslegendre", "riemann_middle", "riemann_left", "riemann_right", "riemann_trapezoid")


@dataclass(frozen=True)
class IntegratedGradients(GradientExplainer):
    """The integral of the gradient along the straight path from a baseline, times the path (Sundararajan, Taly and Yan,
    2017, arXiv:1703.01365).

    The attributions of a sample add up to the score there less that at the baseline; what numerical integration misses
    of it is in the ``diagnostics`` of `explain`, and given by `completeness_gap`.

    Args:
        n_steps: how many points on the path.
        baseline: an input: a number, a tensor, "zeros", "mean", "blur", a callable on the input, or one for each input.
            At a layer the path runs between what the layer gives for it and for the input itself.
        rule: the rule of integration.
    """

    n_steps: int = tunable(32, Range(10, 100))
    baseline: Baseline = 0.0
    rule: Rule = "gausslegendre"

    statistic = Sum

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.rule not in RULES:
            raise ValueError(f"rule must be one of {RULES}, but is {self.rule!r}")
        require_count("n_steps", self.n_steps, 2 if self.rule == "riemann_trapezoid" else 1)
        if self.rule == "gausslegendre" and self.n_steps > 4096:
            raise ValueError(
                "`n_steps <= 4096` must hold for rule='gausslegendre', whose nodes take memory as its square, but got "
                f"n_steps={self.n_steps}; choose rule='riemann_middle'"
            )
        if isinstance(self.baseline, str) and self.baseline not in BASELINES:
            raise ValueError(f"no baseline {self.baseline!r}; {nearest(self.baseline, BASELINES)}")

    @property
    def n_points(self) -> int:
        return self.n_steps

    def reference_call(self, call: Call) -> Call:
        """The call of the baseline."""
        return baseline_call(call, self.baseline)

    def points(self, bound: Bound, reference: Call | None) -> Iterator[Point]:
        """The nodes on the path."""
        starts, path = self._path(bound, reference)
        for position, weight in zip(*nodes(self.rule, self.n_steps), strict=True):
            pairs = zip(starts, bound.values, strict=True)
            yield Point([torch.lerp(start, value.tensor, position) for start, value in pairs], path, weight)

    def completeness_gap(self, inputs: Any, targets: Targets = None) -> Tensor:
        """How much the attributions of each sample miss of its score less that at the baseline: (batch,), or
        (batch, n_targets) for several targets a sample."""
        *_, piece = self._all(inputs, targets, diagnose=True)
        return piece.diagnostics["completeness_gap"]

    def diagnose(self, bound: Bound, aim: Aim, reference: Call | None, found: list[list[Tensor]]) -> dict[str, Tensor]:
        """The completeness gap."""
        starts, _ = self._path(bound, reference)
        ends = [value.tensor for value in bound.values]
        at_start, at_end = bound.scores([starts], aim)[:, 0], bound.scores([ends], aim)[:, 0]
        sums = torch.stack([_sum_by_sample(of_target, bound) for of_target in found])
        gap = (at_end.to(sums) - at_start.to(sums)) - sums
        return {"completeness_gap": gap[0] if aim.n_targets is None else gap.T}

    @staticmethod
    def _path(bound: Bound, reference: Call | None) -> tuple[list[Tensor], list[Tensor]]:
        """Where the path starts, and the way from there to the value, for each explained tensor."""
        if reference is None:
            raise RuntimeError("integrated gradients need the call of a baseline")
        starts = bound.activations(reference)
        for start, value in zip(starts, bound.values, strict=True):
            if start.shape != value.tensor.shape:
                raise ValueError(
                    f"the baseline gives shape {tuple(start.shape)} at {bound.describe()}, but the input "
                    f"{tuple(value.tensor.shape)}; choose a baseline of the input's length"
                )
        return starts, [value.tensor - start for start, value in zip(starts, bound.values, strict=True)]


def _sum_by_sample(attributions: list[Tensor], bound: Bound) -> Tensor:
    """The sum of each sample's attributions over all that is explained, (batch,)."""
    parts = []
    for tensor, value in zip(attributions, bound.values, strict=True):
        rows = tensor.reshape(1, -1) if value.axis is None else tensor.movedim(value.axis, 0)
        parts.append(rows.reshape(len(rows), -1).sum(1))
    return torch.stack(parts).sum(0)


def nodes(rule: Rule, n_steps: int) -> tuple[list[float], list[float]]:
    """Positions on the path, from 0 at the baseline to 1, and the weights of the gradients there, which add up to 1.

    >>> nodes("riemann_middle", 2)
    ([0.25, 0.75], [0.5, 0.5])
    """
    if rule == "gausslegendre":
        positions, weights = np.polynomial.legendre.leggauss(n_steps)
        return list((positions + 1) / 2), list(weights / 2)
    if rule == "riemann_trapezoid":
        inner = 1 / (n_steps - 1)
        return list(np.linspace(0, 1, n_steps)), [inner / 2, *[inner] * (n_steps - 2), inner / 2]
    offset = {"riemann_left": 0.0, "riemann_middle": 0.5, "riemann_right": 1.0}[rule]
    return [(step + offset) / n_steps for step in range(n_steps)], [1 / n_steps] * n_steps
