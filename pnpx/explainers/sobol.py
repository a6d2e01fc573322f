"""Sobol' indices: which part of the variance of the score a group has a hand in."""

from dataclasses import KW_ONLY, dataclass
from functools import lru_cache

import torch
from torch import Tensor

from pnpx.explainers.games import Design
from pnpx.explainers.perturbation import PerturbationExplainer
from pnpx.parameters import Range, require_count, require_seed, tunable


@dataclass(frozen=True)
class Sobol(PerturbationExplainer):
    """Total Sobol' indices of the groups' presence (Fel et al., 2021, arXiv:2111.04138).

    How much of each group is present is drawn between nothing and all, independently; floats are blended with what
    replaces them, as much, and what is not float is present from a half on. A group's index is the part of the score's
    variance that is left, on average, where all the other groups are held: its own effect, and all its interactions
    with others. It is never negative: it tells how much a group matters, not which way. It is zero where the score is
    constant.

    The estimator is Jansen's (1999, doi:10.1016/S0010-4655(98)00154-4), over points of a scrambled Sobol' sequence;
    the variance is that of the two independent sets of points.

    Args:
        n_iter: how many points, best a power of 2; each takes as many copies as there are groups, and two more.
        seed: of the points, which samples of as many groups share.

    ``groups``, ``baseline`` and ``replacement`` are those of `PerturbationExplainer`, the rest those of `Explainer`.
    """

    _: KW_ONLY
    n_iter: int = tunable(32, Range(8, 256, log=True))
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        require_count("n_iter", self.n_iter, 2)
        require_seed(self.seed)

    def design(self, groups: int) -> Design:
        most = torch.quasirandom.SobolEngine.MAXDIM // 2
        if groups > most:
            raise ValueError(
                f"a Sobol' sequence has points for at most {most} groups, but there are {groups}; give fewer, such as "
                "groups=pnpx.masks.Patches(8)"
            )
        return _Points(groups, self.n_iter, self.seed)


@lru_cache(maxsize=8)
def _points(groups: int, count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Two independent sets of points, (count, groups) each."""
    engine = torch.quasirandom.SobolEngine(2 * groups, scramble=True, seed=seed)  # type: ignore[no-untyped-call]
    first, second = engine.draw(count, dtype=torch.float64).chunk(2, dim=1)
    return first, second


class _Points(Design):
    """For each point of the first set: it, that of the second set, and it with each coordinate of that in turn."""

    def __init__(self, groups: int, count: int, seed: int) -> None:
        self._first, self._second = _points(groups, count, seed)
        self._each, self.rows = groups + 2, count * (groups + 2)

    def kept(self, start: int, stop: int) -> Tensor:
        rows = torch.arange(start, stop)
        points, parts = rows // self._each, rows % self._each
        kept = torch.where((parts == 1)[:, None], self._second[points], self._first[points])
        mixed = parts >= 2
        kept[mixed, parts[mixed] - 2] = self._second[points[mixed], parts[mixed] - 2]
        return kept.float()

    def worth(self, scores: Tensor, clean: Tensor) -> Tensor:
        scores = scores.reshape(len(scores), -1, self._each)
        independent = scores[:, :, :2].flatten(1)
        variance = independent.var(1, correction=0)
        total = (scores[:, :, 2:] - scores[:, :, :1]).square().mean(1) / 2
        # A score that differs by rounding alone is constant.
        constant = variance.sqrt() <= 1e-6 * independent.abs().amax(1)
        return torch.where(constant[:, None], 0.0, total / torch.where(constant, 1.0, variance)[:, None])
