"""Standard normal noise for Monte Carlo estimates: independent draws, or draws arranged so that their errors cancel.

Every draw has the shape of one sample and comes from a generator of its own on the CPU, in float32. So it is the same
on every device, in every precision, for every sample of a batch, and whatever else is drawn.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from math import ceil, exp, lgamma, prod

import torch
from torch import Tensor

Sampler = Callable[[Sequence[int], int, torch.Generator], Iterator[Tensor]]
"""``sampler(shape, count, generator)`` yields ``count`` draws of ``shape``.

Each is standard normal by itself; of `orthogonal_latin` nearly.
"""

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


def orthogonal_latin(shape: Sequence[int], count: int, generator: torch.Generator) -> Iterator[Tensor]:
    """A Latin hypercube whose numbers are nearly uncorrelated over the draws: what pairs contribute cancels, too.

    The intervals come in the order that draws towards the corners of a regular simplex give them, a simplex that is
    turned at random (in the manner of Owen, 1994, doi:10.1080/01621459.1994.10476891). It has an axis less than there
    are draws: more numbers are cut, in their order, into parts of about as many, each with a simplex of its own, and
    what pairs across parts contribute stays. Draws are arranged in blocks of up to 64.

    Each number is standard normal by itself, and numbers of different parts are independent; those of one draw and part
    are so only nearly. From 16 draws on, the mean product of the squares of two is within 0.005 of 1, which it should
    be, or of only two or three within 0.03; and the variance of a draw's squared length is within 4 % of what it should
    be. Of fewer draws they are farther off: of 4, by 0.05 and 5 %.

    >>> draws = torch.stack(list(orthogonal_latin((8,), 32, torch.Generator().manual_seed(0))))
    >>> bool((torch.corrcoef(draws.T) - torch.eye(8)).abs().max() < 0.15)
    True
    """
    size = prod(shape)
    for extent in _even_blocks(size, count):
        order = _simplex_ranks(size, extent, generator)
        yield from _in_intervals(order, generator).reshape(extent, *shape)


def _even_blocks(size: int, count: int) -> Iterator[int]:
    """How many draws of ``size`` numbers are arranged together: in blocks as even as can be, lest one be of few."""
    most = max(1, min(_BLOCK, _NUMBERS // max(size, 1)))
    blocks = ceil(count / most)
    for number in range(blocks):
        yield count * (number + 1) // blocks - count * number // blocks


def _latin_block(size: int, count: int, generator: torch.Generator) -> Tensor:
    """``count`` draws of a Latin hypercube, (count, size)."""
    # An order of the intervals for each number: sorting random integers, whose last bits are those of 0 to count - 1,
    # gives one. For values alone, next to each other, NumPy sorts several times faster than PyTorch finds the order of
    # random numbers.
    last_bits = _BLOCK - 1
    keys = torch.empty(size, count, dtype=torch.int32).random_(generator=generator).bitwise_and_(~last_bits)
    keys.bitwise_or_(torch.arange(count, dtype=torch.int32)).numpy().sort(axis=1)
    order = keys.bitwise_and_(last_bits).T
    return _in_intervals(order, generator)


def _in_intervals(order: Tensor, generator: torch.Generator) -> Tensor:
    """Normal numbers, each somewhere in the one that ``order`` says of as many equally likely intervals as rows."""
    # From 0 to 1, made -1 to 1.
    share = torch.rand(order.shape, generator=generator, dtype=torch.float32)
    share.add_(order).mul_(2 / len(order)).sub_(1)
    # The ends, where rounding would give infinity, are cut off at 5.3 standard deviations.
    ends = 1 - torch.finfo(torch.float32).eps
    normal: Tensor = share.clamp_(-ends, ends).erfinv_().mul_(2**0.5)
    return normal


def _simplex_ranks(size: int, count: int, generator: torch.Generator) -> Tensor:
    """For each number the ranks of ``count`` draws along the corners of a simplex, (count, size)."""
    if count < 2 or not size:
        return torch.zeros(count, size)
    parts = max(1, round(size / (count - 1)))
    width = ceil(size / parts)
    found = torch.randn(parts, count - 1, width, generator=generator, dtype=torch.float64)
    # An orthonormal frame, no direction of which is likelier than another: with the signs that make it unique.
    spans = count - 1 <= width
    frame, triangle = torch.linalg.qr(found.mT if spans else found)
    frame = torch.where(triangle.diagonal(dim1=-2, dim2=-1)[:, None] < 0, -frame, frame)
    corners = _simplex(count) @ (frame.mT if spans else frame)
    lengths = _lengths(parts, count, width, generator)
    reach = corners.norm(dim=2, keepdim=True)
    if not spans:  # a simplex's shadow: its longest row gets the longest vector, which leaves numbers uncorrelated
        lengths = lengths.sort(1).values.gather(1, reach[..., 0].argsort(1).argsort(1))
    draws = (corners * (lengths[..., None] / reach)).transpose(0, 1).reshape(count, -1)[:, :size]
    ranks: Tensor = draws.argsort(0).argsort(0)
    return ranks


def _lengths(parts: int, count: int, width: int, generator: torch.Generator) -> Tensor:
    """How long the draws of each part are before their ranks are taken, (parts, count).

    With the lengths of normal vectors each draw would be normal, and the ranks of its numbers nearly independent. As
    ranks make lengths more alike, these differ more, by as much as was found by trial to make up for it.
    """
    lengths = torch.randn(parts, count, width, generator=generator, dtype=torch.float64).norm(dim=2)
    mean = 2**0.5 * exp(lgamma((width + 1) / 2) - lgamma(width / 2))
    stretch = (1 + 5.6 * min(1, width / (count - 1)) / count) ** 0.5
    stretched: Tensor = (mean + stretch * (lengths - mean)).clamp_(min=1e-3)
    return stretched


def _simplex(count: int) -> Tensor:
    """The corners of a regular simplex around the origin, (count, count - 1), with orthonormal columns: Helmert's."""
    axis = torch.arange(1, count, dtype=torch.float64)
    corners = torch.ones(count, count - 1, dtype=torch.float64).triu() - torch.diag(axis, -1)[:, :-1]
    normalised: Tensor = corners / (axis * (axis + 1)).sqrt()
    return normalised


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
    "orthogonal_latin": orthogonal_latin,
}
"""The samplers by name."""

_MANY, _FEW = 16, 4


def spread(shape: Sequence[int], count: int, generator: torch.Generator) -> Iterator[Tensor]:
    """The sampler of the least error in means, as far as is known.

    That is `orthogonal_latin` where 16 draws or more are arranged together, and there are at most 4 numbers for each of
    them; else `latin`. With fewer draws there is less to gain, and the numbers of one are less independent; with more
    numbers there is hardly anything to gain, and it takes more time.
    """
    together = min(_even_blocks(prod(shape), count), default=0)
    sample = orthogonal_latin if together >= _MANY and prod(shape) <= _FEW * together else latin
    return sample(shape, count, generator)
