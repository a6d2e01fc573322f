"""Expected gradients: integrated gradients, averaged over a set of baselines."""

from collections.abc import Iterator, Mapping
from dataclasses import KW_ONLY, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from pnpx.attributors import Bound
from pnpx.baselines import baseline_call, require_finite
from pnpx.explainers.points import GradientExplainer, Point
from pnpx.extractors import Call
from pnpx.parameters import Range, require_count, require_seed, tunable
from pnpx.statistics import Mean
from pnpx.structure import tensors


@dataclass(frozen=True)
class ExpectedGradients(GradientExplainer):
    """The mean, over baselines and over positions on the way from each, of the gradient times the way (Erion et al.,
    2021, arXiv:1906.10670).

    The attributions of a sample add up, on average over draws, to the score there less the mean score of the baselines.
    Every baseline is used equally often (to one), and the positions are drawn one from each of ``n_iter`` equal parts
    of the way, which leaves the average as it is and makes its error smaller.

    Args:
        baselines: inputs, such as training samples: a tensor (n_baselines, ...), or a tuple or mapping of them, one an
            input. At a layer the ways run between what the layer gives for them and for the input itself.
        n_iter: how many draws.
        seed: of the draws, which are shared by the whole batch.
    """

    _: KW_ONLY
    baselines: Any
    n_iter: int = tunable(50, Range(10, 200))
    seed: int = 0

    statistic = Mean

    def __post_init__(self) -> None:
        super().__post_init__()
        require_count("n_iter", self.n_iter, 1)
        require_seed(self.seed)
        require_finite("baselines", self.baselines)

    @classmethod
    def example_parameters(cls, inputs: Any) -> dict[str, Any]:
        """Two baselines: nothing, and the first sample."""

        def two(value: Any) -> Any:
            if isinstance(value, Mapping):
                return {key: two(part) for key, part in value.items()}
            if isinstance(value, PackedSequence):
                (value,) = tensors(value)
            if isinstance(value, (tuple, list)):
                return tuple(two(part) for part in value)
            value = torch.as_tensor(value)
            return torch.stack([torch.zeros_like(value[0]), value[0]])

        return {"baselines": two(inputs)}

    @property
    def n_points(self) -> int:
        return self.n_iter

    def points(self, bound: Bound, reference: Call | None) -> Iterator[Point]:
        """Positions on the ways from the baselines, those of one baseline after another."""
        sets = self._sets(bound.call)
        count = self._count(sets)
        generator = torch.Generator().manual_seed(self.seed)
        strata = torch.randperm(self.n_iter, generator=generator)
        positions = (strata + torch.rand(self.n_iter, generator=generator)) / self.n_iter
        order = torch.randperm(count, generator=generator)
        for turn in range(min(count, self.n_iter)):
            baseline = [values[int(order[turn])] for values in sets]
            call = baseline_call(bound.call, self._named(bound.call, baseline))
            starts = bound.activations(call)
            ways = [value.tensor - start for start, value in zip(starts, bound.values, strict=True)]
            for position in positions[turn::count].tolist():
                yield Point([start + position * way for start, way in zip(starts, ways, strict=True)], ways)

    @staticmethod
    def _named(call: Call, baseline: list[Tensor]) -> Any:
        if isinstance(call.forward, Mapping):
            return dict(zip(call.forward, baseline, strict=True))
        return tuple(baseline) if call.is_tuple else baseline[0]

    def _sets(self, call: Call) -> list[Tensor]:
        """The baselines of each input, (n_baselines, ...)."""
        given = self.baselines
        if isinstance(call.forward, Mapping) and isinstance(given, Mapping):
            if missing := [key for key in call.forward if key not in given]:
                raise ValueError(f"baselines must be given for every input, but there are none for {missing[0]!r}")
            given = [given[key] for key in call.forward]
        elif not isinstance(given, (tuple, list)):
            given = [given]
        if len(given) != len(call.values):
            raise ValueError(
                f"there are {len(call.values)} inputs, so as many sets of baselines, but {len(given)} were given"
            )
        sets = []
        for values, value in zip(given, call.values, strict=True):
            values = torch.from_numpy(values) if isinstance(values, np.ndarray) else values
            if isinstance(value, PackedSequence) and isinstance(values, Tensor):
                (value,) = tensors(value)
                values = values[:, : value.shape[1]]  # some samples of a batch may all be shorter than the longest
            if not isinstance(values, Tensor) or not isinstance(value, Tensor):
                raise TypeError(
                    f"baselines must be a tensor (n_baselines, ...) for each input, but got {type(values).__name__}"
                )
            if values.shape[1:] != value.shape[1:] or not len(values):
                raise ValueError(
                    f"baselines must have shape (n_baselines, *{tuple(value.shape[1:])}) with at least one, but have "
                    f"{tuple(values.shape)}"
                )
            sets.append(values.detach())
        return sets

    @staticmethod
    def _count(sets: list[Tensor]) -> int:
        counts = {len(values) for values in sets}
        if len(counts) > 1:
            raise ValueError(f"every input must have as many baselines, but they have {sorted(counts)}")
        return counts.pop()
