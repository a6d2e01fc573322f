"""Integrated gradients: the mean gradient on a path from a baseline, times the path."""

from collections.abc import Iterator
from dataclasses import KW_ONLY, dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from pnpx.attributors import Bound
from pnpx.baselines import BASELINES, Baseline, Token, baseline_call, require_finite
from pnpx.explainers.absence import absent_values
from pnpx.explainers.gaps import Integration, starts_near_zero, warn_of_gaps
from pnpx.explainers.pieces import Piece
from pnpx.explainers.points import GradientExplainer, Point
from pnpx.extractors import Call
from pnpx.parameters import Range, require_count, tunable
from pnpx.scores import Aim, Targets
from pnpx.statistics import Sum
from pnpx.structure import Structure
from pnpx.suggest import nearest

Rule = Literal["gausslegendre", "graded", "riemann_middle", "riemann_left", "riemann_right", "riemann_trapezoid"]
RULES = ("gausslegendre", "graded", "riemann_middle", "riemann_left", "riemann_right", "riemann_trapezoid")

_FROM_ZERO = "from_zero"  # what `diagnose` tells the warning, and nobody else
_NEAREST = 1e-14  # the position up to which graded nodes resolve what happens near the baseline


@dataclass(frozen=True)
class IntegratedGradients(GradientExplainer):
    """The integral of the gradient along the straight path from a baseline, times the path (Sundararajan, Taly and Yan,
    2017, arXiv:1703.01365).

    The attributions of a sample add up to the score there less that at the baseline; what numerical integration misses
    of it is in the ``diagnostics`` of `explain`: ``completeness_gap``, also given by that method, and ``relative_gap``,
    its magnitude as a share of the difference. (Not of less than a hundredth of the attributions' magnitudes together,
    or of what the scores' precision tells apart: a difference of about zero says nothing about the integration.)

    Near the zero vectors a network of norms, such as Llama, changes most between 1e-12 and 1e-1 of the path, and the
    usual rules miss it all. Choose another baseline there, such as `pnpx.baselines.Token`, or ``rule="graded"``.

    Args:
        n_steps: how many points on the path.
        baseline: an input: a number, a tensor, "zeros", "mean", "blur", a callable on the input, or one for each input.
            At a layer the path runs between what the layer gives for it and for the input itself.
        replacement: where the path begins, as a value at the layer itself, in the same forms; then ``baseline`` is not
            used.
        rule: the rule of integration. "gausslegendre" is best for what is smooth along the path, "graded" where the
            score changes at no telling how small a distance from the baseline; see `nodes`.
        gap_tolerance: the largest ``relative_gap`` without a warning, from `attribute` as well as `explain`; None: no
            warning, and `attribute` saves a forward pass at the baseline (at the inputs one more).
        max_steps: samples whose ``relative_gap`` is above the tolerance are explained again with twice as many steps,
            and so on, with this many at most. None: ``n_steps`` are all.
    """

    _: KW_ONLY
    n_steps: int = tunable(32, Range(10, 100))
    baseline: Baseline = 0.0
    rule: Rule = "gausslegendre"
    gap_tolerance: float | None = 0.05
    replacement: Baseline | None = None
    max_steps: int | None = None

    statistic = Sum

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.rule not in RULES:
            raise ValueError(f"rule must be one of {RULES}, but is {self.rule!r}")
        require_count("n_steps", self.n_steps, 2 if self.rule == "riemann_trapezoid" else 1)
        if self.max_steps is not None:
            require_count("max_steps", self.max_steps, self.n_steps)
            if self.gap_tolerance is None:
                raise ValueError("max_steps needs a gap_tolerance, down to which steps are added, but that is None; "
                                 "give one, or leave max_steps out")
        for name, count in (("n_steps", self.n_steps), ("max_steps", self.max_steps or 0)):
            if self.rule in ("gausslegendre", "graded") and count > 4096:
                raise ValueError(
                    f"`{name} <= 4096` must hold for rule={self.rule!r}, whose nodes take memory as its square, but "
                    f"got {name}={count}; choose rule='riemann_middle'"
                )
        for name, given in (("baseline", self.baseline), ("replacement", self.replacement)):
            require_finite(name, given)
            if isinstance(given, str) and given not in BASELINES:
                raise ValueError(f"no baseline {given!r}; {nearest(given, BASELINES)}")
        if self.gap_tolerance is not None:
            if isinstance(self.gap_tolerance, bool) or not isinstance(self.gap_tolerance, (int, float)):
                raise TypeError(f"gap_tolerance must be a number or None, but got {self.gap_tolerance!r}")
            if not self.gap_tolerance > 0:
                raise ValueError(f"`gap_tolerance > 0` must hold, but got gap_tolerance={self.gap_tolerance}")

    @property
    def n_points(self) -> int:
        return self.n_steps

    def reference_call(self, call: Call) -> Call:
        """The call of the baseline."""
        return call if self.replacement is not None else baseline_call(call, self.baseline)

    def points(self, bound: Bound, reference: Call | None) -> Iterator[Point]:
        """The nodes on the path."""
        starts, path = self._path(bound, reference)
        for position, weight in zip(*nodes(self.rule, self.n_steps), strict=True):
            pairs = zip(starts, bound.values, strict=True)
            yield Point([torch.lerp(start, value.tensor, position) for start, value in pairs], path, weight)

    def explain_at(self, bound: Bound, aim: Aim, reference: Call | None) -> list[list[Tensor]]:
        """The attributions, by twice as many steps again for the samples that need them, if there may be more."""
        found, n_steps = super().explain_at(bound, aim, reference), self.n_steps
        while self.max_steps is not None and self.gap_tolerance is not None and 2 * n_steps <= self.max_steps:
            share = self.diagnose(bound, aim, reference, found)["relative_gap"]
            above = share.isfinite() & (share > self.gap_tolerance)  # no steps mend what is not finite
            if not above.any():
                break
            n_steps *= 2
            finer = replace(self, n_steps=n_steps, max_steps=None).explain_at(bound, aim, reference)
            axes = [value.axis for value in bound.values]
            # Each sample by itself, so that what is found for it does not depend on those beside it.
            found = [[_rows_of(of_sample, *both) for both in zip(new, old, axes, strict=True)]
                     for of_sample, new, old in zip(above.reshape(len(above), -1).T, finer, found, strict=True)]
        return found

    def completeness_gap(self, inputs: Any, targets: Targets = None) -> Tensor:
        """How much the attributions of each sample miss of its score less that at the baseline: (batch,), or
        (batch, n_targets) for several targets a sample."""
        *_, piece = super()._all(inputs, targets, diagnose=True)
        return piece.diagnostics["completeness_gap"]

    def diagnose(self, bound: Bound, aim: Aim, reference: Call | None, found: list[list[Tensor]]) -> dict[str, Tensor]:
        """The completeness gap, and its magnitude as a share of the difference of the scores."""
        starts, _ = self._path(bound, reference)
        sums = torch.stack([_sum_by_sample(of_target, bound) for of_target in found])
        masses = torch.stack([_sum_by_sample([one.abs() for one in of_target], bound) for of_target in found])
        with torch.no_grad():
            at_end = torch.stack(aim.scores(bound.output, 1)).reshape(sums.shape)
        at_start = bound.scores([starts], aim)[:, 0]
        rounding = min(1000 * torch.finfo(at_end.dtype).eps, 1.0)
        at_start, at_end = at_start.to(sums), at_end.to(sums)
        gap = (at_end - at_start) - sums
        least = torch.maximum(0.01 * masses, rounding * torch.maximum(at_start.abs(), at_end.abs()))
        share = gap.abs() / torch.maximum((at_end - at_start).abs(), least).clamp(min=torch.finfo(sums.dtype).tiny)
        by_name = {"completeness_gap": gap, "relative_gap": share}
        told = {name: value[0] if aim.n_targets is None else value.T for name, value in by_name.items()}
        near = [starts_near_zero(start, value.tensor, value.axis)
                for start, value in zip(starts, bound.values, strict=True)]
        return {**told, _FROM_ZERO: torch.stack(near).any(0)}

    def _all(self, inputs: Any, targets: Targets, diagnose: bool) -> tuple[Structure, Call, Piece]:
        found = super()._all(inputs, targets, diagnose or self.gap_tolerance is not None)
        diagnostics = found[2].diagnostics
        from_zero = diagnostics.pop(_FROM_ZERO, None)
        if self.gap_tolerance is not None and from_zero is not None:
            share = diagnostics["relative_gap"]
            above = share > self.gap_tolerance
            zero = bool(from_zero[above if above.ndim == 1 else above.any(1)].any())
            nearer = "a baseline nearer to the input"
            if self.replacement is not None:
                nearer = "a replacement nearer to the value" if zero else ""
            elif isinstance(self.baseline, Token):
                nearer = ""
            elif zero:
                nearer += ", such as pnpx.baselines.Token for tokens"
            start = "baseline" if self.replacement is None else "replacement"
            made = Integration(self.gap_tolerance, self.n_steps, self.max_steps, self.rule, zero, nearer, start)
            warn_of_gaps(share, made)
        return found

    def _path(self, bound: Bound, reference: Call | None) -> tuple[list[Tensor], list[Tensor]]:
        """Where the path starts, and the way from there to the value, for each explained tensor."""
        if reference is None:
            raise RuntimeError("integrated gradients need the call of a baseline")
        if self.replacement is None:
            starts = bound.activations(reference)
        else:
            starts = absent_values(bound.values, self.replacement)
        for start, value in zip(starts, bound.values, strict=True):
            if start.shape != value.tensor.shape:
                raise ValueError(
                    f"the baseline gives shape {tuple(start.shape)} at {bound.describe()}, but the input "
                    f"{tuple(value.tensor.shape)}; choose a baseline of the input's length"
                )
        return starts, [value.tensor - start for start, value in zip(starts, bound.values, strict=True)]


def _rows_of(chosen: Tensor, new: Tensor, old: Tensor, axis: int | None) -> Tensor:
    """The rows of ``new`` for the samples chosen, (batch,), and of ``old`` for the others."""
    if axis is None:
        return new if bool(chosen.all()) else old
    return torch.where(chosen.reshape(-1, *[1] * (new.ndim - 1 - axis)), new, old)


def _sum_by_sample(attributions: list[Tensor], bound: Bound) -> Tensor:
    """The sum of each sample's attributions over all that is explained, (batch,)."""
    parts = []
    for tensor, value in zip(attributions, bound.values, strict=True):
        rows = tensor.reshape(1, -1) if value.axis is None else tensor.movedim(value.axis, 0)
        parts.append(rows.reshape(len(rows), -1).sum(1))
    return torch.stack(parts).sum(0)


def nodes(rule: Rule, n_steps: int) -> tuple[list[float], list[float]]:
    """Positions on the path, from 0 at the baseline to 1, and the weights of the gradients there, which add up to 1.

    The graded nodes are those of Gauss and Legendre in the logarithm of the position, from 1e-14 on: as many for each
    power of ten. At whatever distance from the baseline the score changes, down to 1e-12, 64 of them integrate it to
    1e-4, and what changes slowly, such as polynomials of the position, to 1e-10.

    >>> nodes("riemann_middle", 2)
    ([0.25, 0.75], [0.5, 0.5])
    """
    if rule in ("gausslegendre", "graded"):
        roots, halves = np.polynomial.legendre.leggauss(n_steps)
        positions, weights = (roots + 1) / 2, halves / 2
        if rule == "graded":
            positions = _NEAREST ** (1 - positions)
            weights = weights * positions * -np.log(_NEAREST)
            weights[0] += _NEAREST  # for what is nearer still
            weights /= weights.sum()
        return positions.tolist(), weights.tolist()
    if rule == "riemann_trapezoid":
        inner = 1 / (n_steps - 1)
        return list(np.linspace(0, 1, n_steps)), [inner / 2, *[inner] * (n_steps - 2), inner / 2]
    offset = {"riemann_left": 0.0, "riemann_middle": 0.5, "riemann_right": 1.0}[rule]
    return [(step + offset) / n_steps for step in range(n_steps)], [1 / n_steps] * n_steps
