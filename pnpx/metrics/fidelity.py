"""Whether attributions foretell what the score loses with groups of features."""

from dataclasses import KW_ONLY, dataclass
from typing import ClassVar

import torch
from torch import Tensor

from pnpx.explainers.games import Game
from pnpx.metrics.agreement import correlation
from pnpx.metrics.faithfulness import Faithfulness
from pnpx.metrics.trial import Trial
from pnpx.parameters import Range, require_count, require_seed, tunable

_MOST = 10**6  # subsets, which are held in memory


@dataclass(frozen=True)
class MuFidelity(Faithfulness):
    """Pearson's correlation between what groups count for together and what the score loses with them (Bhatt, Weller
    and Moura, 2020, arXiv:2005.00631, faithfulness).

    Random subsets of the groups of a sample are taken away, ``n_iter`` of one size; for each there is the sum of their
    attributions, and the score of the sample less that without them. From -1 to 1, and 1 where attributions add up; 0
    where either side does not vary, as of a constant map, or of a single group.

    Args:
        n_iter: how many subsets. Those of one seed are shared by samples of as many groups.
        subset_size: how many groups are taken away at once, as a share of them, above 0 and below 1; at least one, and
            never all. Where it is one, the value is that of a comparison with FeatureAblation.
        seed: of the subsets.

    ``groups``, ``baseline``, ``replacement`` and ``inference_mode`` are those of `Faithfulness`. Where that is None,
    the scores are the explainer's own, which attributions are about.

    >>> from pnpx import GradientXInput
    >>> value = MuFidelity().evaluate(GradientXInput(torch.nn.Linear(4, 3)), torch.ones(1, 4), 0)
    >>> bool(value > 0.999)
    True
    """

    _: KW_ONLY
    n_iter: int = tunable(150, Range(50, 500, log=True))
    subset_size: float = tunable(0.2, Range(0.05, 0.5))
    seed: int = 0

    higher_is_better = True
    probable: ClassVar[bool] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        require_count("n_iter", self.n_iter, 2)
        if self.n_iter > _MOST:
            raise ValueError(f"`n_iter <= {_MOST}` must hold, but got n_iter={self.n_iter}")
        require_seed(self.seed)
        size = self.subset_size
        if isinstance(size, bool) or not isinstance(size, (int, float)):
            raise TypeError(f"subset_size must be a share, a float, but got {size!r}")
        if not 0 < size < 1:
            raise ValueError(f"`0 < subset_size < 1` must hold, but got subset_size={size}")

    def along(self, trial: Trial, game: Game, relevance: Tensor) -> dict[str, Tensor]:
        """The correlation, (targets, batch), from what groups count for, (targets, batch, groups)."""
        subsets = {count: self._subsets(count) for count in set(game.counts) if count}
        gone = torch.zeros(self.n_iter, *relevance.shape[1:], dtype=torch.bool)
        for sample, count in enumerate(game.counts):
            if count:
                gone[:, sample, :count] = subsets[count]
        scores = trial.play(game, self.n_iter, lambda start, stop: ~gone[start:stop])
        clean = game.clean.to("cpu", torch.float64)[:, None]
        drops = clean - scores
        # What is lost by rounding alone is nothing.
        rounding = 4 * torch.finfo(game.clean.dtype).eps * torch.maximum(clean.abs(), scores.abs())
        drops = torch.where(drops.abs() <= rounding, 0.0, drops)
        sums = torch.einsum("tbg,nbg->tnb", relevance, gone.double())
        return {"value": correlation(sums.transpose(1, 2), drops.transpose(1, 2))}

    def _subsets(self, groups: int) -> Tensor:
        """Which of so many groups are taken away, (n_iter, groups)."""
        generator = torch.Generator().manual_seed(self.seed)
        size = min(max(1, round(self.subset_size * groups)), max(1, groups - 1))
        turns = torch.rand(self.n_iter, groups, generator=generator, dtype=torch.float64).argsort(1).argsort(1)
        return turns < size
