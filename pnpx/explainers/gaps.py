"""What to say where numerical integration along a path misses too much."""

import inspect
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

import torch
from torch import Tensor

_PACKAGE = __name__.partition(".")[0]
_NAMED = 5  # samples


@dataclass(frozen=True)
class Integration:
    """How a path was integrated.

    Attributes:
        tolerance: the largest relative gap without a warning.
        n_steps: how many nodes there were, at first.
        max_steps: how many there may be where they are doubled; None: they are not.
        rule: that of the integration.
        from_zero: whether paths start at about zero, where graded nodes help; anywhere else they make it worse.
        nearer: a start nearer to the input, in words; "": there is none to name.
        start: the parameter that says where paths start.
    """

    tolerance: float
    n_steps: int
    max_steps: int | None
    rule: str
    from_zero: bool
    nearer: str
    start: str = "baseline"

    @property
    def most_steps(self) -> int:
        """How many there may have been for samples with gaps above the tolerance."""
        steps = self.n_steps
        while self.max_steps is not None and 2 * steps <= self.max_steps:
            steps *= 2
        return steps


_withheld: ContextVar[list[Integration] | None] = ContextVar("withheld", default=None)


@contextmanager
def withheld() -> Iterator[list[Integration]]:
    """Gives, instead of each warning, what it would be about: for one warning of many calls."""
    found: list[Integration] = []
    token = _withheld.set(found)
    try:
        yield found
    finally:
        _withheld.reset(token)


def warn_of_gaps(shares: Tensor, made: Integration, unit: str = "sample") -> None:
    """Warn, at the line outside of this package: once of gaps above the tolerance, once of those that are not finite.

    Args:
        shares: of each sample the relative gap, (batch,), or (batch, n_targets).
        made: how they came about.
        unit: what a sample is called.
    """
    finite = shares.isfinite()
    above = finite & (shares > made.tolerance)
    if not above.any() and finite.all():
        return
    instead = _withheld.get()
    if instead is not None:
        instead.append(made)
        return
    if not finite.all():
        warnings.warn(
            f"the score or its gradient is not finite at the {made.start}, on the way from there or at the input, for "
            f"{_named(~finite, unit)}, so that no attributions can add up to the difference of scores; choose another "
            f"{made.start}, at which the model gives finite ones; gap_tolerance=None turns this warning off",
            RuntimeWarning,
            stacklevel=_callers_level(),
        )
    if not above.any():
        return
    warnings.warn(
        f"what {made.most_steps} steps miss of score(input) - score(baseline) is up to "
        f"{float(shares[above].max()):.0%} of it, and above gap_tolerance={made.tolerance:g} for "
        f"{_named(above, unit)}: the gradient changes too fast on the path; choose "
        f"{', or '.join(_advice(made))}; gap_tolerance=None turns this warning off",
        RuntimeWarning,
        stacklevel=_callers_level(),
    )


def _named(chosen: Tensor, unit: str) -> str:
    """Which samples are chosen, (batch,) or (batch, n_targets): "2 of 4 samples (1, 3)"."""
    samples = (chosen if chosen.ndim == 1 else chosen.any(1)).nonzero()[:, 0].tolist()
    named = ", ".join(map(str, samples[:_NAMED])) + (", …" if len(samples) > _NAMED else "")
    return f"{len(samples)} of {len(chosen)} {unit}s ({named})"


def _advice(made: Integration) -> Iterator[str]:
    if made.rule == "graded" and not made.from_zero:
        yield "rule='gausslegendre', as the path does not start near zero"
    yield "more n_steps, as many as it takes by max_steps=" if made.max_steps is None else "a larger max_steps"
    if made.rule != "graded" and made.from_zero:
        yield "rule='graded' where norms do, as those of Llama near zero"
    if made.nearer:
        yield made.nearer


def starts_near_zero(start: Tensor, value: Tensor, axis: int | None) -> Tensor:
    """(batch,) booleans: whether a vector of the sample, along the last axis, moves, and starts at a thousandth of its
    length at most. ``axis`` is that of the batch; None: there is one sample."""
    begin, end = (one[None] if axis is None else one.movedim(axis, 0) for one in (start, value))
    begin, end = (one[:, None] if one.ndim == 1 else one for one in (begin, end))
    lengths = torch.linalg.vector_norm(begin, dim=-1), torch.linalg.vector_norm(end, dim=-1)
    near: Tensor = (lengths[0] <= 1e-3 * lengths[1]) & (end != begin).any(-1)
    return near.reshape(len(near), -1).any(1)


def _callers_level() -> int:
    """The level, as the caller of this counts it for `warnings`, of the first call from outside of this package."""
    level, frame = 0, inspect.currentframe()
    while frame is not None and str(frame.f_globals.get("__name__", "")).partition(".")[0] == _PACKAGE:
        level, frame = level + 1, frame.f_back
    return level
