"""Shapley values: each group's share of what all groups together change."""

import warnings
from dataclasses import KW_ONLY, dataclass
from functools import lru_cache
from math import factorial
from typing import Any

import torch
from torch import Tensor

from pnpx.explainers.coalitions import every, least_squares, shapley_coalitions
from pnpx.explainers.games import Design
from pnpx.explainers.perturbation import PerturbationExplainer
from pnpx.parameters import Range, require_count, require_seed, tunable


@dataclass(frozen=True)
class KernelShap(PerturbationExplainer):
    """Shapley values by weighted least squares over coalitions of groups (Lundberg and Lee, 2017, arXiv:1705.07874).

    The values of a sample's groups add up to its score less that where all groups are replaced, to rounding, however
    few coalitions there are: that is a constraint of the least squares. Where all coalitions fit into ``n_iter``, they
    are the Shapley values themselves. Else coalitions are drawn in opposite pairs, which makes them exact also for
    games of groups that interact in pairs, once the draws determine them.

    Args:
        n_iter: how many coalitions at most, each a copy of the sample; beside them only none and all. Less than twice
            as many as groups do not determine the values, which is warned of.
        seed: of the draws, which samples of as many groups share.

    ``groups``, ``baseline`` and ``replacement`` are those of `PerturbationExplainer`, the rest those of `Explainer`.
    """

    _: KW_ONLY
    n_iter: int = tunable(512, Range(16, 4096, log=True))
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        require_count("n_iter", self.n_iter, 2)
        require_seed(self.seed)

    @classmethod
    def example_parameters(cls, inputs: Any) -> dict[str, Any]:
        """Enough coalitions for all groups that images have without ``groups``."""
        return {"n_iter": 160}

    def design(self, groups: int) -> Design:
        design = _kernel(groups, self.n_iter, self.seed)
        if design.determined < groups - 1:
            warnings.warn(
                f"{design.rows - 1} coalitions do not determine the Shapley values of {groups} groups, so that the "
                "smallest that agree with them are given; raise n_iter, or give fewer groups",
                RuntimeWarning,
                stacklevel=2,
            )
        return design


@lru_cache(maxsize=8)
def _kernel(groups: int, count: int, seed: int) -> "_Kernel":
    return _Kernel(groups, count, seed)


class _Kernel(Design):
    """No group, and coalitions weighted by the Shapley kernel.

    What the sum of the values must be is given, so only their differences from an equal share are fitted.
    """

    def __init__(self, groups: int, count: int, seed: int) -> None:
        self._coalitions, weights = torch.zeros(0, groups, dtype=torch.bool), torch.zeros(0, dtype=torch.float64)
        if groups > 1:
            self._coalitions, weights = shapley_coalitions(groups, count, seed)
        self._groups, self.rows = groups, 1 + len(weights)
        kept = self._coalitions.double()
        self._portions = kept.mean(1)
        self._operator, self.determined = torch.zeros(groups, 0, dtype=torch.float64), 0
        if groups > 1:
            self._operator, self.determined = least_squares(kept - self._portions[:, None], weights)

    def kept(self, start: int, stop: int) -> Tensor:
        none = torch.zeros(int(start == 0), self._groups, dtype=torch.bool)
        return torch.cat([none, self._coalitions[max(start - 1, 0) : stop - 1]])

    def worth(self, scores: Tensor, clean: Tensor) -> Tensor:
        nothing = scores[:, :1]
        change = clean[:, None] - nothing
        apart = (scores[:, 1:] - nothing - self._portions * change) @ self._operator.T
        worth = change / self._groups + apart
        return worth + (change - worth.sum(1, keepdim=True)) / self._groups


@dataclass(frozen=True)
class Shapley(PerturbationExplainer):
    """Shapley values by their definition: the mean of what a group adds, over the orders in which groups may come.

    Over all coalitions, exactly, where these are no more than what sampling would take; else over ``n_iter`` orders
    (Castro, Gomez and Tejada, 2009, doi:10.1016/j.cor.2008.04.004), each together with its reverse (Mitchell et al.,
    2022, arXiv:2104.12199). The values of a sample's groups add up, either way, to its score less that where all
    groups are replaced.

    Args:
        n_iter: how many orders; each takes as many copies as there are groups.
        seed: of the orders, which samples of as many groups share.

    ``groups``, ``baseline`` and ``replacement`` are those of `PerturbationExplainer`, the rest those of `Explainer`.
    """

    _: KW_ONLY
    n_iter: int = tunable(20, Range(4, 200, log=True))
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        require_count("n_iter", self.n_iter, 1)
        require_seed(self.seed)

    def design(self, groups: int) -> Design:
        if 2**groups - 2 <= self.n_iter * (groups - 1):
            return _All(groups)
        return _Orders(groups, self.n_iter, self.seed)


class _All(Design):
    """Every coalition but that of all groups."""

    def __init__(self, groups: int) -> None:
        self._coalitions, self.rows = every(groups), 2**groups - 1

    def kept(self, start: int, stop: int) -> Tensor:
        return self._coalitions[start:stop]

    def worth(self, scores: Tensor, clean: Tensor) -> Tensor:
        kept = self._coalitions
        scores, count = torch.cat([scores, clean[:, None]], dim=1), kept.shape[1]
        chances = torch.tensor([factorial(s) * factorial(count - s - 1) for s in range(count)], dtype=torch.float64)
        chances = chances / factorial(count)
        numbers, sizes = torch.arange(2**count), kept.sum(1)
        found = []
        for group in range(count):
            without = numbers[~kept[:, group]]
            found.append((scores[:, without + 2**group] - scores[:, without]) @ chances[sizes[without]])
        return torch.stack(found, dim=1)


class _Orders(Design):
    """No group, and for each order of the groups the first one, the first two, and so on; all of them is the sample."""

    def __init__(self, groups: int, count: int, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        half = torch.rand((count + 1) // 2, groups, generator=generator, dtype=torch.float64).argsort(1)
        # When each group comes, in each order.
        self._turns = torch.stack([half, groups - 1 - half], dim=1).flatten(0, 1)[:count]
        self._groups, self.rows = groups, 1 + count * (groups - 1)

    def kept(self, start: int, stop: int) -> Tensor:
        rows = torch.arange(start, stop) - 1
        orders, sizes = rows // (self._groups - 1), rows % (self._groups - 1) + 1
        return (self._turns[orders] < sizes[:, None]) & (rows >= 0)[:, None]

    def worth(self, scores: Tensor, clean: Tensor) -> Tensor:
        orders = len(self._turns)
        nothing = scores[:, :1, None].expand(-1, orders, 1)
        partly = scores[:, 1:].reshape(len(scores), orders, -1)
        steps = torch.cat([nothing, partly, clean[:, None, None].expand(-1, orders, 1)], dim=2).diff(dim=2)
        return steps.gather(2, self._turns.expand(len(scores), -1, -1)).mean(1)
