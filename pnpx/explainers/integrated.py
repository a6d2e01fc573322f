"""Integrated gradients: the mean gradient on a path from a baseline, times the path."""

import inspect
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from pnpx.attributors import Bound
from pnpx.baselines import BASELINES, Baseline, baseline_call
from pnpx.explainers.absence import absent_values
from pnpx.explainers.base import require_count
from pnpx.explainers.pieces import Piece
from pnpx.explainers.points import GradientExplainer, Point
from pnpx.extractors import Call
from pnpx.parameters import Range, tunable
from pnpx.scores import Aim, Targets
from pnpx.statistics import Sum
from pnpx.structure import Structure
from pnpx.suggest import nearest

Rule = Literal["gausslegendre", "graded", "riemann_middle", "riemann_left", "riemann_right", "riemann_trapezoid"]
RULES = ("gausslegendre", "graded", "riemann_middle", "riemann_left", "riemann_right", "riemann_trapezoid")

_PACKAGE = __name__.partition(".")[0]
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
    """

    n_steps: int = tunable(32, Range(10, 100))
    baseline: Baseline = 0.0
    rule: Rule = "gausslegendre"
    gap_tolerance: float | None = 0.05
    replacement: Baseline | None = None

    statistic = Sum

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.rule not in RULES:
            raise ValueError(f"rule must be one of {RULES}, but is {self.rule!r}")
        require_count("n_steps", self.n_steps, 2 if self.rule == "riemann_trapezoid" else 1)
        if self.rule in ("gausslegendre", "graded") and self.n_steps > 4096:
            raise ValueError(
                f"`n_steps <= 4096` must hold for rule={self.rule!r}, whose nodes take memory as its square, but got "
                f"n_steps={self.n_steps}; choose rule='riemann_middle'"
            )
        for given in (self.baseline, self.replacement):
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
        return {name: value[0] if aim.n_targets is None else value.T for name, value in by_name.items()}

    def _all(self, inputs: Any, targets: Targets, diagnose: bool) -> tuple[Structure, Call, Piece]:
        found = super()._all(inputs, targets, diagnose or self.gap_tolerance is not None)
        if self.gap_tolerance is not None:
            self._warn(found[2].diagnostics["relative_gap"], self.gap_tolerance)
        return found

    def _warn(self, share: Tensor, tolerance: float) -> None:
        above = share > tolerance
        if not above.any():
            return
        samples = above if above.ndim == 1 else above.any(1)
        other = "" if self.rule == "graded" else ", or rule='graded' where norms do, as those of Llama near zero"
        worst, count = float(share[above].max()), int(samples.sum())
        warnings.warn(
            f"what {self.n_steps} steps miss of score(input) - score(baseline) is up to {worst:.0%} of it, and above "
            f"gap_tolerance={tolerance:g} for {count} of {len(samples)} samples: the gradient changes too fast on the "
            f"path; choose more n_steps{other}, or a baseline nearer to the input, such as pnpx.baselines.Token for "
            "tokens; gap_tolerance=None turns this warning off",
            RuntimeWarning,
            stacklevel=_callers_level(),
        )

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


def _callers_level() -> int:
    """The level, as the caller of this counts it for `warnings`, of the first call from outside of this package."""
    level, frame = 0, inspect.currentframe()
    while frame is not None and str(frame.f_globals.get("__name__", "")).partition(".")[0] == _PACKAGE:
        level, frame = level + 1, frame.f_back
    return level


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
