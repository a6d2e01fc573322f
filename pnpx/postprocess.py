"""From raw attributions to one map: pool the channels, then bring the map to a common scale."""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

import torch
from torch import Tensor

from pnpx.suggest import nearest

POOLINGS: Mapping[str, Callable[[Tensor, int], Tensor]] = MappingProxyType(
    {
        "sum": lambda values, dim: values.sum(dim),
        "abs_sum": lambda values, dim: values.abs().sum(dim),
        "mean": lambda values, dim: values.mean(dim),
        "max": lambda values, dim: values.amax(dim),
        "min": lambda values, dim: values.amin(dim),
        "max_abs": lambda values, dim: values.abs().amax(dim),
        "l2": lambda values, dim: values.square().sum(dim).sqrt(),
    }
)
"""The ways to pool an axis, by name. ``abs_sum``, ``max_abs`` and ``l2`` lose the sign."""


def _by_minmax(values: Tensor, dims: tuple[int, ...]) -> Tensor:
    low = values.amin(dims, keepdim=True)
    return _divide(values - low, values.amax(dims, keepdim=True) - low)


def _by_max_abs(values: Tensor, dims: tuple[int, ...]) -> Tensor:
    return _divide(values, values.abs().amax(dims, keepdim=True))


NORMALISATIONS: Mapping[str, Callable[[Tensor, tuple[int, ...]], Tensor]] = MappingProxyType(
    {"minmax": _by_minmax, "symmetric": _by_max_abs}
)
"""The ways to normalise, by name."""


def pool(attributions: Tensor, method: str = "sum", dim: int = 1) -> Tensor:
    """One value in place of all those along an axis, as a rule the channels.

    Args:
        attributions: floating-point, for instance (batch, channels, height, width).
        method: one of `POOLINGS`: "sum" (of signed values, which may cancel), "abs_sum", "mean", "max", "min",
            "max_abs" or "l2" (the Euclidean length).
        dim: the axis to pool; with several targets a sample the channels are axis 2.

    Returns:
        ``attributions`` without axis ``dim``, for instance (batch, height, width), of the same dtype.

    Raises:
        ValueError: ``method`` is unknown.
        IndexError: there is no axis ``dim``.

    >>> pool(torch.tensor([[[3.0, 1.0], [-4.0, 1.0]]]), "l2").tolist()
    [[5.0, 1.4142135381698608]]
    """
    if method not in POOLINGS:
        raise ValueError(f"no way to pool is called {method!r}; {nearest(method, POOLINGS)}")
    return _in_float32(attributions, lambda values: POOLINGS[method](values, dim))


def normalise(attributions: Tensor, method: str = "minmax", keep: int | Sequence[int] = 0) -> Tensor:
    """The attributions on a common scale, each sample on its own.

    Args:
        attributions: floating-point, of any shape.
        method: "minmax" takes the smallest value to 0 and the largest to 1, and a constant map to zeros; "symmetric"
            divides by the largest absolute value, so signs and zeros stay what they are, and takes a map of zeros
            to zeros. Neither makes a NaN of finite values.
        keep: the axis, or axes, whose entries are normalised each on its own: 0, the batch, by default; ``(0, 1)``
            for each target or channel too; ``()`` to normalise everything together.

    Returns:
        A tensor of the same shape and dtype, in [0, 1] ("minmax") or [-1, 1] ("symmetric").

    Raises:
        ValueError: ``method`` is unknown.
        IndexError: there is no axis that ``keep`` names.

    >>> normalise(torch.tensor([[1.0, 2.0, 3.0], [4.0, 4.0, 4.0]])).tolist()
    [[0.0, 0.5, 1.0], [0.0, 0.0, 0.0]]
    """
    if method not in NORMALISATIONS:
        raise ValueError(f"no way to normalise is called {method!r}; {nearest(method, NORMALISATIONS)}")
    kept = [keep] if isinstance(keep, int) else list(keep)
    wrong = [axis for axis in kept if not -attributions.ndim <= axis < attributions.ndim]
    if wrong:
        raise IndexError(
            f"keep must name axes of the attributions, whose shape is {tuple(attributions.shape)}, but got {wrong[0]}"
        )
    dims = tuple(sorted(set(range(attributions.ndim)) - {axis % attributions.ndim for axis in kept}))
    if not attributions.numel():
        return attributions.clone()
    if not dims:  # each entry is a map of its own; amin(()) would take them all for one
        return normalise(attributions[..., None], method, tuple(range(attributions.ndim)))[..., 0]
    return _in_float32(attributions, lambda values: NORMALISATIONS[method](values, dims))


def _divide(values: Tensor, scales: Tensor) -> Tensor:
    return torch.where(scales == 0, torch.zeros_like(values), values / scales)


def _in_float32(values: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
    """The result of ``function``, computed in float32 where ``values`` are of a narrower dtype."""
    if not values.is_floating_point():
        raise TypeError(f"attributions must be floating-point, but got {values.dtype}; convert them, as by .float()")
    wide = values.float() if values.dtype in (torch.float16, torch.bfloat16) else values
    return function(wide).to(values.dtype)
