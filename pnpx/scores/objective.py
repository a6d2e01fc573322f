"""The objective of an explainer: from it and the targets come the scores that gradients are taken of."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pnpx.scores.aim import Aim
from pnpx.scores.chosen import Chosen
from pnpx.scores.custom import Custom
from pnpx.scores.detection import Detection
from pnpx.scores.outputs import OutputReader
from pnpx.scores.targets import Targets, read_targets


@dataclass(frozen=True)
class Objective(OutputReader):
    """How the scores of an explainer come about, whatever the targets."""

    def read_targets(self, targets: Targets) -> Targets:
        """``targets`` as tensors and tuples, where they are no functions and no boxes.

        Raises:
            TypeError, ValueError: they are nothing that can be a target.
        """
        if callable(self.score) or callable(targets):
            return targets
        if self.score == "detection":  # a tuple of boxes is no tuple of indices
            return list(targets) if type(targets) is tuple else targets
        return read_targets(targets)

    def aim(
        self,
        targets: Targets,
        batch: Any,
        batch_size: int,
        clean: Callable[[], Any],
        whole: int | None = None,
        rows: slice | None = None,
    ) -> Aim:
        """The scores for ``targets``.

        Args:
            targets: see `Targets`.
            batch: what a callable as target is given, beside the output.
            batch_size: the number of samples.
            clean: gives the output for the batch itself; called only where the targets depend on it.
            whole: where these samples are some of a larger batch, of which the targets were not cut: its size. What has
                the size of the part is then no target for each sample of the part.
            rows: which samples of the whole these are. Weights are cut here, as only the output tells whether they are
                one for all samples.
        """
        if callable(self.score):
            return Custom(self, self.score, targets, batch_size)
        if callable(targets):
            return Custom(self, targets, batch, batch_size)
        if self.score == "detection":
            return Detection(self, targets, batch_size, clean, whole)
        return Chosen(self, targets, batch_size, clean, whole, rows)
