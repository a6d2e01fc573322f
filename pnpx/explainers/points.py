"""Explainers that are a statistic of the gradients at some points: the loop that joins them."""

from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pnpx.attributors import Bound
from pnpx.attributors.differentiable import require_differentiable
from pnpx.explainers.base import Explainer
from pnpx.explainers.room import Room
from pnpx.extractors import Call
from pnpx.scores import Aim
from pnpx.statistics import Statistic


@dataclass(frozen=True)
class Point:
    """Where a gradient is taken: a tensor for each explained tensor, of its shape.

    ``factor``, likewise, multiplies the gradient before it enters the statistic, and ``weight`` does so for all of
    them.
    """

    tensors: Sequence[Tensor]
    factor: Sequence[Tensor] | None = None
    weight: float = 1.0


class GradientExplainer(Explainer):
    """A statistic of the gradients at points of a place.

    A subclass says at which points, and which statistic. That is all that a new explainer of this kind needs:

    >>> import torch
    >>> from pnpx.explainers import GradientExplainer, Point
    >>> from pnpx.statistics import Mean
    >>> class HalfWay(GradientExplainer):
    ...     statistic = Mean
    ...     def points(self, bound, reference):
    ...         yield Point([value.tensor / 2 for value in bound.values])
    >>> HalfWay(torch.nn.Linear(2, 1)).attribute(torch.ones(3, 2)).shape
    torch.Size([3, 2])
    """

    @property
    @abstractmethod
    def statistic(self) -> Callable[[], Statistic]:
        """Makes the statistic; a subclass sets it as a class attribute."""

    @abstractmethod
    def points(self, bound: Bound, reference: Call | None) -> Iterator[Point]:
        """The points at the place, one copy of the batch in each."""

    @property
    def n_points(self) -> int | None:
        """How many points there are, if it is known: for the progress bar."""
        return None

    def explain_at(self, bound: Bound, aim: Aim, reference: Call | None) -> list[list[Tensor]]:
        """The statistic over all points, in the memory of one chunk of them."""
        from tqdm.auto import tqdm

        require_differentiable(bound, aim)
        statistics: list[list[Statistic]] = []
        room = Room(self.batch_size, bound, self.n_points)
        chunk: list[Point] = []
        bar = tqdm(total=self.n_points, desc=type(self).__name__, unit="point", leave=False, disable=not self.progress)
        with bar:
            for point in self.points(bound, reference):
                chunk.append(point)
                if len(chunk) >= (room.copies if bound.several else 1):
                    room.took(len(chunk), self._update(bound, aim, statistics, chunk))
                    bar.update(len(chunk))
                    chunk = []
            if chunk:
                self._update(bound, aim, statistics, chunk)
                bar.update(len(chunk))
        if not statistics:
            raise ValueError(f"{type(self).__name__} gave no point to take a gradient at; it must give at least one")
        return [[statistic.value for statistic in of_target] for of_target in statistics]

    def try_at(self, bound: Bound, aim: Aim, reference: Call | None) -> None:
        """The gradient at the first point."""
        for point in self.points(bound, reference):
            self._update(bound, aim, [], [point])
            break

    def _update(self, bound: Bound, aim: Aim, statistics: list[list[Statistic]], chunk: list[Point]) -> int:
        """Take in one chunk, in halves if it does not fit the accelerator's memory; how many points do fit."""
        try:
            if self.needs_graph:
                gradients = bound.clean_gradients(aim)
            else:
                gradients = bound.gradients([point.tensors for point in chunk], aim)
        except torch.cuda.OutOfMemoryError:
            if len(chunk) == 1:
                raise
        else:
            if not statistics:
                statistics += [[self.statistic() for _ in of_target] for of_target in gradients]
            for of_target, found in zip(statistics, gradients, strict=True):
                for index, (statistic, gradient) in enumerate(zip(of_target, found, strict=True)):
                    statistic.update(_weighed(gradient, chunk, index))
            return len(chunk)
        torch.cuda.empty_cache()
        half = len(chunk) // 2
        return min(self._update(bound, aim, statistics, part) for part in (chunk[:half], chunk[half:]))


def _weighed(gradient: Tensor, chunk: Sequence[Point], index: int) -> Tensor:
    """``gradient``, (points, ...), times each point's factor and weight."""
    wide = torch.promote_types(gradient.dtype, torch.float32)
    factors = [point.factor[index] for point in chunk if point.factor is not None]
    if factors:
        shared = all(factor is factors[0] for factor in factors)
        gradient = gradient.to(wide) * (factors[0] if shared else torch.stack(factors))
    if any(point.weight != 1.0 for point in chunk):
        weights = torch.tensor([point.weight for point in chunk], dtype=wide, device=gradient.device)
        gradient = gradient.to(wide) * weights.reshape(-1, *[1] * (gradient.ndim - 1))
    return gradient
