"""What metrics of single maps share: the share that each element, or each unit of a text, has in an explanation."""

from abc import abstractmethod
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from pnpx.metrics.base import Metric
from pnpx.metrics.trial import Trial

if TYPE_CHECKING:
    from pnpx.text.explainer import TextExplainer


class Shares(Metric):
    """Judges a map by the shares of its elements in the sum of their magnitudes."""

    @abstractmethod
    def of_row(self, shares: Tensor) -> Tensor:
        """The value, (), of shares, (elements,), that add up to 1."""

    def measure(self, trial: Trial) -> dict[str, Tensor]:
        (of_elements,), valid = trial.elements()
        rows = [
            torch.stack([self._of(row[there]) for row, there in zip(of_target, valid, strict=True)])
            for of_target in of_elements
        ]
        return {"value": torch.stack(rows)}

    def of_texts(self, explainer: "TextExplainer", texts: Any, targets: Any, found: list[Any], name: str) -> Any:
        """Of the scores of units, as they are."""
        values = [torch.stack([self._of(row.detach().cpu().double()) for row in one.rows]) for one in found]
        return [value if one.scores.ndim == 2 else value[0] for value, one in zip(values, found, strict=True)]

    def _of(self, row: Tensor) -> Tensor:
        if not len(row):
            return row.new_zeros(())
        largest = row.abs().max()
        # Over the largest first, so that neither sums overflow nor the smallest numbers vanish.
        scaled = row.abs() / largest if largest > 0 else torch.ones_like(row)
        if largest.isnan():
            return row.new_full((), torch.nan)
        return self.of_row(scaled / scaled.sum())
