"""From scores of tokens to scores of units, and from an embedding's attributions to a score for each token."""

from collections.abc import Sequence

import torch
from torch import Tensor

from pnpx.suggest import nearest
from pnpx.text.granularity import Unit

AGGREGATIONS = ("mean", "max", "min", "sum", "signed_max")
REDUCTIONS = ("abs_mean", "l2", "sum")


def aggregate(scores: Tensor, units: Sequence[Unit], how: str = "mean", causal: Tensor | None = None) -> Tensor:
    """The score of each unit, from the scores of its tokens.

    Args:
        scores: (tokens,) or (targets, tokens), or with more axes before the tokens.
        units: their `tokens` are positions in the last axis; a token may be in several, or in none.
        how: "mean", "max", "min", "sum", or "signed_max": the score of largest magnitude, with its sign (the positive
            one of two as large).
        causal: booleans of the shape of `scores`, or that broadcast to it: whether the target depends on the token at
            all (see `causal_mask`). The other tokens count nothing, whatever their score, NaN included; a unit with
            none that counts gets 0.

    Returns:
        (units,) or (targets, units); of float32 for narrower scores. A NaN that counts makes its unit NaN.

    Raises:
        ValueError: there is no such aggregation, or a unit has a token beyond the scores.
    """
    if how not in AGGREGATIONS:
        raise ValueError(f"aggregation must be one of {', '.join(AGGREGATIONS)}, but got {how!r}; "
                         f"{nearest(how, AGGREGATIONS)}")
    positions = [position for unit in units for position in unit.tokens]
    if positions and not 0 <= min(positions) <= max(positions) < scores.shape[-1]:
        raise ValueError(f"the tokens of the units must be positions among the {scores.shape[-1]} scores, "
                         f"but reach from {min(positions)} to {max(positions)}")
    owners = torch.tensor([index for index, unit in enumerate(units) for _ in unit.tokens], dtype=torch.long,
                          device=scores.device)
    places = torch.tensor(positions, dtype=torch.long, device=scores.device)
    values = _wide(scores)[..., places]
    counted = torch.ones_like(values, dtype=torch.bool)
    if causal is not None:
        counted = causal.to(scores.device).broadcast_to(scores.shape)[..., places]

    shape = (*scores.shape[:-1], len(units))
    index = owners.expand(values.shape)

    def collect(what: Tensor, neutral: float, operation: str) -> Tensor:
        blank = torch.full(shape, neutral, dtype=what.dtype, device=what.device)
        return blank.scatter_reduce(-1, index, what, operation)

    counts = collect(counted.to(values.dtype), 0.0, "sum")
    if how in ("mean", "sum"):
        total = collect(values.where(counted, 0.0), 0.0, "sum")
        return total / counts.clamp(min=1.0) if how == "mean" else total
    highest = collect(values.where(counted, -torch.inf), -torch.inf, "amax")
    lowest = collect(values.where(counted, torch.inf), torch.inf, "amin")
    if how == "signed_max":
        result = highest.where(highest.abs() >= lowest.abs(), lowest)
    else:
        result = highest if how == "max" else lowest
    return result.where(counts > 0, 0.0)


def causal_mask(before: int, generated: int) -> Tensor:
    """(generated, before + generated) booleans: whether a token is before the one generated, so that it counts for it.

    >>> causal_mask(2, 2).int()
    tensor([[1, 1, 0, 0],
            [1, 1, 1, 0]], dtype=torch.int32)
    """
    return torch.ones(generated, before + generated).tril(before - 1).bool()


def both_sides(encoder: Tensor, decoder: Tensor) -> Tensor:
    """The attributions of tokens that encoder and decoder both read: those of both, side by side.

    The decoder reads each token one step later, and its own start token first, which is none of the text's.

    >>> both_sides(torch.tensor([[1.0], [2.0]]), torch.tensor([[7.0], [8.0]]))
    tensor([[1., 8.],
            [2., 0.]])

    Args:
        encoder: (tokens, width), or with more axes before.
        decoder: likewise.

    Returns:
        (tokens, both widths).
    """
    return torch.cat([encoder, torch.nn.functional.pad(decoder[..., 1:, :], (0, 0, 0, 1))], dim=-1)


def reduce_embedding(attributions: Tensor, how: str = "abs_mean", dim: int = -1) -> Tensor:
    """A score for each token from the attributions of its embedding's components.

    Args:
        attributions: (tokens, width), or with more axes before, such as targets.
        how: "abs_mean", the mean of the magnitudes, as interpreto has it; "l2", their Euclidean norm; "sum", which
            keeps the signs, and the sum over all tokens: methods with a completeness property need it.
        dim: the axis of the width.

    Returns:
        The shape without that axis; of float32 for narrower attributions.
    """
    if how not in REDUCTIONS:
        raise ValueError(f"reduce must be one of {', '.join(REDUCTIONS)}, but got {how!r}; {nearest(how, REDUCTIONS)}")
    values = _wide(attributions)
    if how == "abs_mean":
        return values.abs().mean(dim)
    if how == "l2":
        norms: Tensor = torch.linalg.vector_norm(values, dim=dim)
        return norms
    return values.sum(dim)


def _wide(values: Tensor) -> Tensor:
    """At least float32, in which sums of many half-precision values are still right."""
    return values.to(torch.promote_types(values.dtype, torch.float32))
