"""Standard normal noise for Monte Carlo estimates: independent draws, or draws arranged so that their errors cancel.

Every draw has the shape of one sample and comes from a generator of its own on the CPU, in float32. So it is the same
on every device, in every precision, for every sample of a batch, and whatever else is drawn.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from math import ceil, prod

import numpy as np
import torch
from torch import Tensor

Sampler = Callable[[Sequence[int], int, torch.Generator], Iterator[Tensor]]
"""``sampler(shape, count, generator)`` yields ``count`` draws of ``shape``; each is standard normal by itself."""

_BLOCK, _NUMBERS = 64, 2**20
"""The most draws arranged together, a power of two, and the most numbers in them all: this bounds memory and time,
whatever the number of draws.
"""


def independent(shape: Sequence[int], count: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Draws that know nothing of one another.

    >>> [draw.shape for draw in independent((2, 3), 2, torch.Generator().manual_seed(0))]
    [torch.Size([2, 3]), torch.Size([2, 3])]
    """
    for _ in range(count):
        yield torch.randn(tuple(shape), generator=generator, dtype=torch.float32)


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
    (Yu et al., 2016, arXiv:1610.09072, section 3). In many dimensions random directions are nearly orthogonal anyway.

    >>> a, _, b, _ = orthogonal((8,), 4, torch.Generator().manual_seed(0))
    >>> abs(float(a @ b)) < 1e-5
    True
    """
    return islice(_mirrored(_orthogonal(shape, _pairs(count), generator)), count)


def latin(shape: Sequence[int], count: int, generator: torch.Generator) -> Iterator[Tensor]:
    """A Latin hypercube: each number of a draw takes each of as many equally likely intervals once, in random order.

    What the single numbers contribute on their own cancels nearly, whatever their order, and the rest has no more
    variance than ``count - 1`` independent draws have (McKay et al., 1979, doi:10.2307/1268522; Owen, 1997,
    doi:10.1137/S0036142994277468). Draws are arranged in blocks of up to 64.

    >>> draws = torch.stack(list(latin((3,), 4, torch.Generator().manual_seed(0))))
    >>> ((draws < 0).sum(0) == 2).all()  # of each number half of the draws are negative
    tensor(True)
    """
    size = prod(shape)
    for extent in _even_blocks(size, count):
        yield from _latin_block(size, extent, generator).reshape(extent, *shape)


def simplex(shape: Sequence[int], count: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Draws towards the corners of a regular simplex, turned at random, with the lengths of independent normal vectors.

    What is of first order in the noise cancels nearly, as does most of what pairs of numbers contribute, unless there
    are many more numbers than draws: these are cut, in their order, into parts of about ``count - 1``, each with a
    simplex of its own. Fewer numbers are the shadow of one. Direction and length of a draw know nothing of each other,
    so that each is standard normal by itself. Draws are arranged in blocks of up to 64.

    >>> a, b, c = simplex((2,), 3, torch.Generator().manual_seed(0))
    >>> directions = torch.stack([draw / draw.norm() for draw in (a, b, c)])
    >>> bool(directions.sum(0).abs().max() < 1e-6)  # the corners of a triangle
    True
    """
    size = prod(shape)
    for extent in _even_blocks(size, count):
        yield from _simplex_block(size, extent, generator).reshape(extent, *shape)


def _even_blocks(size: int, count: int) -> Iterator[int]:
    """How many draws of ``size`` numbers are arranged together: in blocks as even as can be, lest one be of few."""
    most = max(1, min(_BLOCK, _NUMBERS // max(size, 1)))
    blocks = ceil(count / most)
    for number in range(blocks):
        yield count * (number + 1) // blocks - count * number // blocks


def _latin_block(size: int, count: int, generator: torch.Generator) -> Tensor:
    """``count`` draws of a Latin hypercube, (count, size)."""
    # An order of the intervals for each number: sorting random integers, whose last bits are those of 0 to count - 1,
    # gives one. For values alone NumPy sorts several times faster than PyTorch finds the order of random numbers.
    last_bits = _BLOCK - 1
    keys = torch.empty(count, size, dtype=torch.int32).random_(generator=generator).bitwise_and_(~last_bits)
    keys.bitwise_or_(torch.arange(count, dtype=torch.int32)[:, None])
    order = torch.from_numpy(np.sort(keys.numpy(), axis=0)).bitwise_and_(last_bits)
    # Somewhere in each interval; from 0 to 1 made -1 to 1.
    share = torch.rand(count, size, generator=generator, dtype=torch.float32).add_(order).mul_(2 / count).sub_(1)
    # The ends, where rounding would give infinity, are cut off at 5.3 standard deviations.
    ends = 1 - torch.finfo(torch.float32).eps
    return share.clamp_(-ends, ends).erfinv_().mul_(2**0.5)


def _simplex_block(size: int, count: int, generator: torch.Generator) -> Tensor:
    """``count`` draws along the corners of simplices, (count, size)."""
    if count < 2 or not size:
        return torch.randn(count, size, generator=generator, dtype=torch.float32)
    parts = max(1, round(size / (count - 1)))
    width = ceil(size / parts)
    found = torch.randn(parts, count, width, generator=generator, dtype=torch.float64)
    lengths = torch.randn(parts, count, width, generator=generator, dtype=torch.float64).norm(dim=2)
    # Whatever turns these vectors turns those that are made of them: so no direction is likelier than another.
    centred = found - found.mean(1, keepdim=True)
    spans = count - 1 <= width  # else rows cannot be a simplex, but columns can be orthogonal, of one length
    values, vectors = torch.linalg.eigh(centred @ centred.mT if spans else centred.mT @ centred)
    rank = min(count - 1, width)
    values, vectors = values[..., -rank:], vectors[..., -rank:]
    whitening = (vectors / values.sqrt()[..., None, :]) @ vectors.mT
    corners = whitening @ centred if spans else centred @ whitening
    reach = corners.norm(dim=2, keepdim=True)
    if not spans:  # the longer shadow gets the longer vector, which leaves the columns nearly orthogonal
        lengths = lengths.sort(1).values.gather(1, reach[..., 0].argsort(1).argsort(1))
    draws: Tensor = corners * (lengths[..., None] / reach)
    return draws.transpose(0, 1).reshape(count, -1)[:, :size].float()


def _pairs(count: int) -> int:
    """How many pairs make ``count`` draws; the last one is broken up where ``count`` is odd."""
    return (count + 1) // 2


def _mirrored(draws: Iterator[Tensor]) -> Iterator[Tensor]:
    for draw in draws:
        yield draw
        yield -draw


def _orthogonal(shape: Sequence[int], count: int, generator: torch.Generator) -> Iterator[Tensor]:
    size = prod(shape)
    block = max(1, min(_BLOCK, size, _NUMBERS // max(size, 1)))
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


SAMPLERS: dict[str, Sampler] = {
    "independent": independent,
    "antithetic": antithetic,
    "orthogonal": orthogonal,
    "latin": latin,
    "simplex": simplex,
}
"""The samplers by name."""

_FEW = 16


def spread(shape: Sequence[int], count: int, generator: torch.Generator) -> Iterator[Tensor]:
    """The sampler of the least error in means, as far as is known: `simplex` for up to 16 numbers a draw, or `latin`.

    Beyond that a simplex is hardly any better, and takes more time than a Latin hypercube.
    """
    return (simplex if prod(shape) <= _FEW * count else latin)(shape, count, generator)
