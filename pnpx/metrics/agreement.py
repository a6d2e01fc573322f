"""How far two rows of numbers agree."""

import torch
from torch import Tensor

_ROUNDING = 1e-10


def correlation(one: Tensor, other: Tensor) -> Tensor:
    """Pearson's correlation along the last axis; 0 where either side does not vary by more than rounding.

    >>> correlation(torch.tensor([[1.0, 2.0, 3.0]] * 2), torch.tensor([[2.0, 4.0, 6.0], [5.0, 5.0, 5.0]])).round()
    tensor([1., 0.])
    """
    if not one.shape[-1]:
        return one.new_zeros(one.shape[:-1])
    scales = [side.abs().amax(-1, keepdim=True) for side in (one, other)]
    left, right = (
        (side - side.mean(-1, keepdim=True)) / torch.where(scale > 0, scale, 1.0)
        for side, scale in zip((one, other), scales, strict=True)
    )
    lengths = [torch.linalg.vector_norm(side, dim=-1) for side in (left, right)]
    varies = (lengths[0] > _ROUNDING) & (lengths[1] > _ROUNDING)
    unknown = one.isnan().any(-1) | other.isnan().any(-1)
    product = lengths[0] * lengths[1]
    found = ((left * right).sum(-1) / torch.where(varies, product, 1.0)).clamp(-1, 1)
    return torch.where(varies, found, 0.0).masked_fill(unknown, torch.nan)


def ranks(row: Tensor) -> Tensor:
    """The ranks of the numbers of a row, (n,), from 1; equal ones share the mean of theirs.

    >>> ranks(torch.tensor([5.0, 1.0, 5.0, 7.0]))
    tensor([2.5000, 1.0000, 2.5000, 4.0000], dtype=torch.float64)
    """
    _, places, counts = torch.unique(row, return_inverse=True, return_counts=True)
    last = counts.cumsum(0).double()
    means: Tensor = last - (counts.double() - 1) / 2
    return means[places]
