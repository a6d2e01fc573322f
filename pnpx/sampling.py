"""Standard normal noise for Monte Carlo estimates: independent draws, or draws arranged so that their errors cancel.

Every draw has the shape of one sample and comes from a generator of its own on the CPU, in float32. So it is the same
on every device, in every precision, for every sample of a batch, and whatever else is drawn.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from math import prod

import torch
from torch import Tensor

Sampler = Callable[[Sequence[int], int, torch.Generator], Iterator[Tensor]]
"""``sampler(shape, count, generator)`` yields ``count`` draws of ``shape``; each is standard normal by itself."""

_DIRECTIONS, _NUMBERS = 64, 2**20
"""The most directions made orthogonal to one another at a time, and the most numbers in them all: this bounds memory
and time, whatever the number of draws. In more dimensions random directions are nearly orthogonal already.
"""


def independent(shape: Sequence[int], count: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Draws that know nothing of one another.

    >>> [draw.shape for draw in independent((2, 3), 2, torch.Generator().manual_seed(0))]
    [torch.Size([2, 3]), torch.Size([2, 3])]
    """
    for _ in range(count):
        yield torch.randn(tuple(shape), generator=generator)


def antithetic(shape: Sequence[int], count: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Draws in mirrored pairs: the terms of odd order in the noise cancel (Hammersley and Morton, 1956).

    >>> first, second = antithetic((2,), 2, torch.Generator().manual_seed(0))
    >>> bool((first + second == 0).all())
    True
    """
    return islice(_mirrored(independent(shape, _pairs(count), generator)), count)


def orthogonal(shape: Sequence[int], count: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Mirrored draws along directions orthogonal to one another, in blocks of up to 64 directions.

    Their lengths are those of independent normal vectors, so that each draw by itself is standard normal
    (Yu et al., 2016, arXiv:1610.09072, section 3).

    >>> a, _, b, _ = orthogonal((8,), 4, torch.Generator().manual_seed(0))
    >>> abs(float(a @ b)) < 1e-5
    True
    """
    return islice(_mirrored(_orthogonal(shape, _pairs(count), generator)), count)


def _pairs(count: int) -> int:
    """How many pairs make ``count`` draws; the last one is broken up where ``count`` is odd."""
    return (count + 1) // 2


def _mirrored(draws: Iterator[Tensor]) -> Iterator[Tensor]:
    for draw in draws:
        yield draw
        yield -draw


def _orthogonal(shape: Sequence[int], count: int, generator: torch.Generator) -> Iterator[Tensor]:
    size = prod(shape)
    block = max(1, min(_DIRECTIONS, size, _NUMBERS // max(size, 1)))
    for start in range(0, count, block):
        extent = min(block, count - start)
        yield from _orthogonal_block(size, extent, generator).reshape(extent, *shape)


def _orthogonal_block(size: int, count: int, generator: torch.Generator) -> Tensor:
    """``count`` orthogonal draws, (count, size). Nothing else of what it takes to make them outlives the call."""
    draws = torch.stack(list(independent((size,), count, generator)))
    lengths = draws.norm(dim=1, keepdim=True)
    # The Gram matrix is small, and its Cholesky factor takes the draws to an orthonormal set: for long vectors this is
    # many times faster than a QR decomposition of them. float64 holds for nearly parallel draws as well.
    wide = draws.double()
    factor, failed = torch.linalg.cholesky_ex(wide @ wide.T)
    parallel = bool(failed)
    basis = torch.linalg.qr(wide.T).Q.T if parallel else torch.linalg.solve_triangular(factor, wide, upper=False)
    # The lengths go to the directions in another order: the first direction is that of the first draw.
    rescaled: Tensor = basis.float() * lengths.roll(1, 0)
    return rescaled


SAMPLERS: dict[str, Sampler] = {"independent": independent, "antithetic": antithetic, "orthogonal": orthogonal}
"""The samplers by name."""
