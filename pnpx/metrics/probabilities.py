"""Scores as probabilities, so that what is lost can be compared between models and classes."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from pnpx.scores import Aim, Objective, Targets


@dataclass(frozen=True)
class Probabilities(Objective):
    """The objective of a classification, in probabilities: by a softmax over the classes.

    A row that is a distribution already, as after a softmax, stays as it is, as does a single output. Where the target
    is a function of the output, it is given the output as the ``inference_mode`` wants it.

    >>> Probabilities().read(torch.tensor([[0.0, 0.0], [0.25, 0.75], [1.0, 1.0]]))
    tensor([[0.5000, 0.5000],
            [0.2500, 0.7500],
            [0.5000, 0.5000]])
    """

    def read(self, output: Any) -> Any:
        found = replace(self.plain, inference_mode="logits").read(output)
        if not isinstance(found, Tensor) or not found.is_floating_point() or found.ndim < 2 or found.shape[-1] == 1:
            return found
        normal = (found >= 0).all(-1, keepdim=True) & ((found.float().sum(-1, keepdim=True) - 1).abs() < 1e-4)
        return torch.where(normal, found, found.softmax(-1))

    @property
    def plain(self) -> Objective:
        """The objective itself, without probabilities."""
        return Objective(self.score, self.output_extractor, self.inference_mode, self.n_classes)

    def aim(
        self,
        targets: Targets,
        batch: Any,
        batch_size: int,
        clean: Callable[[], Any],
        whole: int | None = None,
        rows: slice | None = None,
    ) -> Aim:
        if callable(targets):
            return self.plain.aim(targets, batch, batch_size, clean, whole, rows)
        return super().aim(targets, batch, batch_size, clean, whole, rows)
