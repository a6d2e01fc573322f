"""Scores as probabilities, so that what is lost can be compared between models and classes."""

from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from pnpx.scores import Aim, Objective, Targets


@dataclass(frozen=True)
class Probabilities(Objective):
    """The objective of a classification, in probabilities: by a softmax over the classes.

    A row that is a distribution already, as after a softmax, stays as it is, as does a single output. Whether it is one
    is decided by the output for the batch itself, and holds for all copies of a sample: those of logits may happen to
    be one, those of probabilities to be none. Where the target is a function of the output, it is given the output as
    the ``inference_mode`` wants it.

    >>> Probabilities().read(torch.tensor([[0.0, 0.0], [0.25, 0.75], [1.0, 1.0]]))
    tensor([[0.5000, 0.5000],
            [0.2500, 0.7500],
            [0.5000, 0.5000]])
    """

    _: KW_ONLY
    normal: Tensor | None = field(default=None, repr=False, compare=False)
    """Which rows of the batch itself are distributions, (batch, ..., 1); None: each row is looked at by itself."""

    def read(self, output: Any) -> Any:
        found = replace(self.plain, inference_mode="logits").read(output)
        if not _has_classes(found):
            return found
        normal = _are_normal(found)
        if self.normal is not None and len(found) % len(self.normal) == 0:
            normal = self.normal.to(found.device)
            if normal.shape[1:-1] != found.shape[1:-1]:  # such as a copy that has lost tokens
                normal = normal.flatten(1).all(1).reshape(-1, *[1] * (found.ndim - 1))
            normal = normal.repeat(len(found) // len(normal), *[1] * (normal.ndim - 1))
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
        found = replace(self.plain, inference_mode="logits").read(clean())
        decided = replace(self, normal=_are_normal(found)) if _has_classes(found) and len(found) else self
        return super(Probabilities, decided).aim(targets, batch, batch_size, clean, whole, rows)


def _has_classes(found: Any) -> bool:
    """Whether there are several classes to tell apart, (batch, ..., classes)."""
    return isinstance(found, Tensor) and found.is_floating_point() and found.ndim > 1 and found.shape[-1] != 1


def _are_normal(found: Tensor) -> Tensor:
    """Which rows, (..., classes), are distributions, but for rounding: (..., 1)."""
    rounding = max(1e-4, 8 * torch.finfo(found.dtype).eps)
    return (found >= 0).all(-1, keepdim=True) & ((found.double().sum(-1, keepdim=True) - 1).abs() < rounding)
