"""What every kind of score has in common."""

from abc import ABC, abstractmethod
from typing import Any

from torch import Tensor


class Aim(ABC):
    """The scores that gradients are taken of: one a sample, or several where there are several targets a sample."""

    n_targets: int | None = None
    """How many targets a sample has; None: one, without an axis for it."""

    @property
    def resolved(self) -> Tensor | None:
        """The targets as a tensor, predictions filled in; None where they are no classes and no weights."""
        return None

    @abstractmethod
    def scores(self, output: Any, copies: int) -> list[Tensor]:
        """For each target the score of each row, (copies * batch,), of an ``output`` for so many copies of the
        batch."""
