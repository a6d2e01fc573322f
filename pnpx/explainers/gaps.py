"""What to say where numerical integration along a path misses too much."""

import inspect
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

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
    """

    tolerance: float
    n_steps: int
    max_steps: int | None
    rule: str
    from_zero: bool
    nearer: str

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
    """Warn, once, at the line outside of this package, if gaps are above the tolerance.

    Args:
        shares: of each sample the relative gap, (batch,), or (batch, n_targets).
        made: how they came about.
        unit: what a sample is called.
    """
    above = shares > made.tolerance
    if not above.any():
        return
    instead = _withheld.get()
    if instead is not None:
        instead.append(made)
        return
    samples = (above if above.ndim == 1 else above.any(1)).nonzero()[:, 0].tolist()
    named = ", ".join(map(str, samples[:_NAMED])) + (", …" if len(samples) > _NAMED else "")
    warnings.warn(
        f"what {made.most_steps} steps miss of score(input) - score(baseline) is up to "
        f"{float(shares[above].max()):.0%} of it, and above gap_tolerance={made.tolerance:g} for {len(samples)} of "
        f"{len(above)} {unit}s ({named}): the gradient changes too fast on the path; choose "
        f"{', or '.join(_advice(made))}; gap_tolerance=None turns this warning off",
        RuntimeWarning,
        stacklevel=_callers_level(),
    )


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
    near = (begin.norm(dim=-1) <= 1e-3 * end.norm(dim=-1)) & (end != begin).any(-1)
    found: Tensor = near.reshape(len(near), -1).any(1)
    return found


def _callers_level() -> int:
    """The level, as the caller of this counts it for `warnings`, of the first call from outside of this package."""
    level, frame = 0, inspect.currentframe()
    while frame is not None and str(frame.f_globals.get("__name__", "")).partition(".")[0] == _PACKAGE:
        level, frame = level + 1, frame.f_back
    return level
