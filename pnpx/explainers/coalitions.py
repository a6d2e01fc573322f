"""Coalitions of groups, which are kept while the others are replaced, and least squares over them."""

from functools import lru_cache
from itertools import combinations
from math import comb

import torch
from torch import Tensor


def every(groups: int) -> Tensor:
    """All coalitions of so many groups, (2^groups, groups): none first, all last.

    >>> every(2).int()
    tensor([[0, 0],
            [1, 0],
            [0, 1],
            [1, 1]], dtype=torch.int32)
    """
    return (torch.arange(2**groups)[:, None] >> torch.arange(groups)) % 2 == 1


def kernel_weight(size: int, groups: int) -> float:
    """The weight of all coalitions of one size together in the Shapley kernel (Lundberg and Lee, 2017,
    arXiv:1705.07874, theorem 2): (groups - 1) / (size (groups - size))."""
    return (groups - 1) / (size * (groups - size))


@lru_cache(maxsize=8)
def shapley_coalitions(groups: int, count: int, seed: int) -> tuple[Tensor, Tensor]:
    """At most ``count`` coalitions, (rows, groups), and their weights, for least squares under the Shapley kernel.

    Neither none nor all of the groups is among them. All others are where they fit. Else those of the sizes that weigh
    most, the smallest and the largest, are taken whole, as long as sampling would take each of them at least once;
    among the other sizes coalitions are drawn by the kernel, each together with its opposite (Covert and Lee, 2021,
    arXiv:2012.01536), and stand for the rest of the weight.
    """
    if 2**groups - 2 <= count:
        kept = every(groups)[1:-1]
        sizes = kept.sum(1).tolist()
        each = [kernel_weight(size, groups) / comb(groups, size) for size in sizes]
        return kept, torch.tensor(each, dtype=torch.float64)
    shares = {size: kernel_weight(size, groups) for size in range(1, groups)}
    rows: list[Tensor] = []
    weights: list[Tensor] = []
    left = count
    for size in range(1, groups // 2 + 1):
        pair = sorted({size, groups - size})
        number = comb(groups, size) * len(pair)
        share = sum(shares[one] for one in pair) / sum(shares.values())
        if number > left * share:
            break
        for one in pair:
            rows.append(_of_size(groups, one))
            weights.append(torch.full((len(rows[-1]),), shares.pop(one) / len(rows[-1]), dtype=torch.float64))
        left -= number
    if shares and left >= 2:
        kept, times = _drawn(groups, shares, left // 2, seed)
        rows.append(kept)
        weights.append(times * (sum(shares.values()) / times.sum()))
    return torch.cat(rows), torch.cat(weights)


def _of_size(groups: int, size: int) -> Tensor:
    """All coalitions of one size."""
    fewer = min(size, groups - size)
    members = torch.tensor(list(combinations(range(groups), fewer)))
    kept = torch.zeros(len(members), groups, dtype=torch.bool).scatter_(1, members, True)
    return kept if size == fewer else ~kept


def _drawn(groups: int, shares: dict[int, float], pairs: int, seed: int) -> tuple[Tensor, Tensor]:
    """So many different coalitions at most, each with its opposite, and how often each was drawn."""
    generator = torch.Generator().manual_seed(seed)
    sizes, chances = torch.tensor(list(shares)), torch.tensor(list(shares.values()), dtype=torch.float64)
    found: dict[bytes, int] = {}
    kept: list[Tensor] = []
    for _ in range(4):  # what is drawn again costs no pass, but tells of weight
        drawn = sizes[torch.multinomial(chances, pairs, replacement=True, generator=generator)]
        order = torch.rand(pairs, groups, generator=generator, dtype=torch.float64).argsort(1).argsort(1)
        for row in order < drawn[:, None]:
            keys = [one.numpy().tobytes() for one in (row, ~row)]
            if len(kept) == pairs:
                break
            if min(keys) not in found:
                kept.append(row)
            found[min(keys)] = found.get(min(keys), 0) + 1
    chosen = torch.stack(kept)
    times = torch.tensor(list(found.values()), dtype=torch.float64)
    return torch.cat([chosen, ~chosen]), torch.cat([times, times])


@lru_cache(maxsize=8)
def lime_coalitions(groups: int, count: int, seed: int) -> tuple[Tensor, Tensor]:
    """``count`` coalitions with a number of absent groups drawn from 1 to all, and which these are drawn as well.

    Returned are the different ones, (rows, groups), and how often each was drawn, (rows,).
    """
    generator = torch.Generator().manual_seed(seed)
    absent = torch.randint(1, groups + 1, (count, 1), generator=generator)
    order = torch.rand(count, groups, generator=generator, dtype=torch.float64).argsort(1).argsort(1)
    kept, times = torch.unique(order >= absent, dim=0, return_counts=True)
    return kept, times.double()


def least_squares(rows: Tensor, weights: Tensor) -> tuple[Tensor, int]:
    """What takes values, (rows,), to the weighted least-squares coefficients, of least norm where several fit.

    Returns:
        The operator, (columns, rows), and how many coefficients the rows determine.
    """
    root = weights.sqrt()[:, None]
    scaled = root * rows
    wide = len(rows) < rows.shape[1]
    values, vectors = torch.linalg.eigh(scaled @ scaled.T if wide else scaled.T @ scaled)
    determined = values > 1e-10 * values.max().clamp(min=1e-300)
    vectors = vectors[:, determined] / values[determined].sqrt()
    inverse = vectors @ vectors.T
    operator = scaled.T @ inverse if wide else inverse @ scaled.T
    return operator * root.T, int(determined.sum())
