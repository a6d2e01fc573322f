"""Lime: a linear model, fitted to the scores near the sample."""

from dataclasses import KW_ONLY, dataclass
from functools import lru_cache
from typing import Literal

import torch
from torch import Tensor

from pnpx.explainers.coalitions import least_squares, lime_coalitions
from pnpx.explainers.games import Design
from pnpx.explainers.perturbation import PerturbationExplainer
from pnpx.parameters import Range, require_count, require_seed, tunable

Distance = Literal["cosine", "euclidean"]
DISTANCES = ("cosine", "euclidean")


@dataclass(frozen=True)
class Lime(PerturbationExplainer):
    """The coefficients of a linear model of the score in the presence of groups (Ribeiro, Singh and Guestrin, 2016,
    arXiv:1602.04938).

    With ``z`` the presence of the groups, 1 or 0, in a copy, the coefficients minimise the sum over the sample itself
    and ``n_iter`` copies of ``exp(-D(z)^2 / (2 kernel_width^2)) (score - intercept - coefficients . z)^2``, plus
    ``ridge`` times the sum of the squared coefficients. ``D`` is the distance of ``z`` from all groups, so that near
    copies weigh most. This is what the authors' package does, with its defaults; the width that the paper calls sigma
    is the square root of 2 times ``kernel_width``. As in the paper, how many groups are absent in a copy is drawn
    uniformly, and then which. A copy that is drawn several times counts so often, but is scored once.

    Args:
        n_iter: how many copies are drawn.
        kernel_width: how far the neighbourhood reaches, in units of the distance.
        distance: "cosine", 1 - sqrt(portion of groups present), from 0 to 1; or "euclidean", sqrt(number absent).
        ridge: the weight of the squared coefficients.
        seed: of the draws, which samples of as many groups share.

    ``groups``, ``baseline`` and ``replacement`` are those of `PerturbationExplainer`, the rest those of `Explainer`.
    """

    _: KW_ONLY
    n_iter: int = tunable(1000, Range(100, 5000, log=True))
    kernel_width: float = tunable(0.25, Range(0.05, 5.0, log=True))
    distance: Distance = "cosine"
    ridge: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        require_count("n_iter", self.n_iter, 1)
        require_seed(self.seed)
        for name in ("kernel_width", "ridge"):
            number = getattr(self, name)
            if isinstance(number, bool) or not isinstance(number, (int, float)):
                raise TypeError(f"{name} must be a number, but got {number!r}")
        if not 0 < self.kernel_width < float("inf"):
            raise ValueError(f"`0 < kernel_width < inf` must hold, but got kernel_width={self.kernel_width}")
        if not 0 <= self.ridge < float("inf"):
            raise ValueError(f"`0 <= ridge < inf` must hold, but got ridge={self.ridge}")
        if self.distance not in DISTANCES:
            raise ValueError(f"distance must be one of {DISTANCES}, but is {self.distance!r}")

    def design(self, groups: int) -> Design:
        return _near(groups, self.n_iter, self.seed, self.distance, self.kernel_width, self.ridge)


@lru_cache(maxsize=8)
def _near(groups: int, count: int, seed: int, distance: Distance, width: float, ridge: float) -> "_Near":
    return _Near(groups, count, seed, distance, width, ridge)


class _Near(Design):
    """Copies near and far, weighted by how near they are."""

    def __init__(self, groups: int, count: int, seed: int, distance: Distance, width: float, ridge: float) -> None:
        self._coalitions, times = lime_coalitions(groups, count, seed)
        self.rows = len(times)
        # The sample itself comes first.
        kept = torch.cat([torch.ones(1, groups, dtype=torch.float64), self._coalitions.double()])
        present = kept.sum(1)
        apart = 1 - (present / groups).sqrt() if distance == "cosine" else (groups - present).sqrt()
        weights = torch.cat([times.new_ones(1), times]) * torch.exp(-apart.square() / (2 * width**2))
        middle = weights @ kept / weights.sum()
        # The intercept, which the ridge leaves alone, goes with the means; the ridge is a row more for each group.
        rows = torch.cat([kept - middle, torch.eye(groups, dtype=torch.float64)])
        every = torch.cat([weights, weights.new_full((groups,), ridge)])
        self._operator = least_squares(rows, every)[0][:, : len(kept)]
        self._portions = weights / weights.sum()

    def kept(self, start: int, stop: int) -> Tensor:
        return self._coalitions[start:stop]

    def worth(self, scores: Tensor, clean: Tensor) -> Tensor:
        scores = torch.cat([clean[:, None], scores], dim=1)
        return (scores - (scores @ self._portions)[:, None]) @ self._operator.T
