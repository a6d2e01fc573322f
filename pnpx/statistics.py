"""Statistics of a stream of tensors, in the memory of a few of them.

Samples arrive in chunks along the first axis. Everything is accumulated in float32 or wider, whatever the samples are.
"""

from abc import ABC, abstractmethod

import torch
from torch import Tensor
from typing_extensions import Self


def _wide(samples: Tensor) -> Tensor:
    """``samples`` in float32, or as they are if they are wider."""
    return samples.to(torch.promote_types(samples.dtype, torch.float32))


def _plus(total: Tensor, addend: Tensor) -> Tensor:
    """The sum of both, in the memory of ``total`` where that may be written to and can hold it."""
    holds = torch.promote_types(total.dtype, addend.dtype) == total.dtype and total.shape == addend.shape
    return total.add_(addend) if holds and not total.is_inference() else total + addend


class Statistic(ABC):
    """A statistic of samples that arrive in chunks and are not kept."""

    def __init__(self) -> None:
        self.count = 0

    @abstractmethod
    def update(self, samples: Tensor) -> None:
        """Take in ``samples``, of shape (samples, ...)."""

    @abstractmethod
    def merge(self, other: Self) -> None:
        """Take in all that ``other`` has seen."""

    @property
    @abstractmethod
    def value(self) -> Tensor:
        """The statistic of every sample so far, of shape (...).

        Raises:
            ValueError: there were too few samples for it.
        """

    def _require(self, least: int) -> None:
        if self.count < least:
            raise ValueError(f"{type(self).__name__} needs {least} samples or more, but got {self.count}")


class Sum(Statistic):
    """The sum.

    >>> total = Sum()
    >>> total.update(torch.tensor([1.0, 2.0]))
    >>> total.update(torch.tensor([3.0]))
    >>> total.value
    tensor(6.)
    """

    def __init__(self) -> None:
        super().__init__()
        self._total = torch.zeros(())

    def update(self, samples: Tensor) -> None:
        self._add(len(samples), _wide(samples).sum(0))

    def merge(self, other: Self) -> None:
        self._add(other.count, other._total.clone())

    def _add(self, count: int, addend: Tensor) -> None:
        """Add the sum of so many samples, a tensor that nobody else has."""
        # The first one brings shape, device and precision along.
        self._total = _plus(self._total, addend) if self.count else addend
        self.count += count

    @property
    def value(self) -> Tensor:
        self._require(1)
        return self._total.clone()


class Mean(Sum):
    """The mean."""

    @property
    def value(self) -> Tensor:
        self._require(1)
        return self._total / self.count


class MeanSquare(Mean):
    """The mean of the squares.

    >>> power = MeanSquare()
    >>> power.update(torch.tensor([1.0, 2.0, 3.0]))
    >>> round(power.value.item(), 4)
    4.6667
    """

    def update(self, samples: Tensor) -> None:
        super().update(_wide(samples).square())


class Variance(Statistic):
    """The unbiased variance, dividing by the number of samples less one, as ``torch.var`` does.

    Chunks are joined by the rule of Chan, Golub and LeVeque (1983, doi:10.1080/00031305.1983.10483115). Only squares
    are ever added up, so that it cannot come out negative, as E[g^2] - E[g]^2 can.

    >>> spread = Variance()
    >>> spread.update(torch.tensor([1e6, 1e6 + 1]))
    >>> spread.update(torch.tensor([1e6 + 2]))
    >>> spread.value
    tensor(1.)
    """

    def __init__(self) -> None:
        super().__init__()
        self._mean = torch.zeros(())
        self._scatter = torch.zeros(())

    def update(self, samples: Tensor) -> None:
        if not len(samples):
            return
        samples = _wide(samples)
        # Seen from the first of them, equal samples have a variance of exactly zero, however their sum is rounded.
        apart = samples - samples[0]
        middle = apart.mean(0)
        self._join(len(samples), samples[0] + middle, apart.sub_(middle).square_().sum(0))

    def merge(self, other: Self) -> None:
        self._join(other.count, other._mean.clone(), other._scatter.clone())

    def _join(self, count: int, mean: Tensor, scatter: Tensor) -> None:
        """Take in the mean and the sum of squares around it of so many samples, tensors that nobody else has."""
        if not count:
            return
        if not self.count:
            self.count, self._mean, self._scatter = count, mean, scatter
            return
        total = self.count + count
        shift = mean - self._mean
        self._mean = _plus(self._mean, shift * (count / total))
        self._scatter = _plus(_plus(self._scatter, scatter), shift.square_().mul_(self.count * count / total))
        self.count = total

    @property
    def value(self) -> Tensor:
        self._require(2)
        return self._scatter / (self.count - 1)
