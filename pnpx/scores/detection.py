"""The score of object detectors: how well the boxes a model finds match the boxes to be explained."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from pnpx.scores.aim import Aim
from pnpx.scores.outputs import OutputReader, check_rows, split_copies

_BOX = 5  # x1, y1, x2, y2, objectness, then the classes


class Detection(Aim):
    """The similarity of D-RISE (Petsiuk et al., 2021, arXiv:2006.03204, section 3.2), averaged over the boxes to
    explain.

    For each of those the best match among the boxes found: intersection over union, times objectness, times the cosine
    of the class probabilities. Boxes are (x1, y1, x2, y2).

    The model returns a tensor (batch, boxes, 5 + classes) of boxes, objectness and class probabilities, or a list with
    a mapping of ``boxes`` (n, 4), ``scores`` (n,) and ``labels`` (n,) for each sample, as torchvision's detectors do.
    Targets are given in the same form, for each sample; None: the boxes that the model finds.
    """

    def __init__(
        self,
        reader: OutputReader,
        targets: Any,
        batch_size: int,
        clean: Callable[[], Any],
        whole: int | None = None,
    ) -> None:
        self._reader, self._batch_size = reader, batch_size
        if targets is None:
            with torch.no_grad():
                targets = reader.read(clean())
        self._wanted = [(b.detach(), o.detach(), c) for b, o, c in self._boxes(targets, "targets")]
        n_samples = whole or batch_size
        if len(self._wanted) != n_samples:
            raise ValueError(
                f"targets must hold the boxes of each of the {n_samples} samples, but hold {len(self._wanted)}"
            )

    def scores(self, output: Any, copies: int) -> list[Tensor]:
        read = self._reader.read(output)
        if isinstance(read, Tensor):
            check_rows(read, copies * self._batch_size)
        rows = []
        for part in split_copies(read, copies, self._batch_size):
            found = self._boxes(part, "the model's output")
            if len(found) != self._batch_size:
                raise ValueError(
                    f"the model must find boxes for each of the {self._batch_size} samples, not {len(found)}"
                )
            rows += [self._match(wanted, boxes) for wanted, boxes in zip(self._wanted, found, strict=True)]
        return [torch.stack(rows)]

    @staticmethod
    def _boxes(output: Any, what: str) -> list[tuple[Tensor, Tensor, Tensor]]:
        """For each sample: boxes (n, 4), objectness (n,), and class probabilities (n, classes) or labels (n,)."""
        if isinstance(output, Tensor) and output.ndim == 3 and output.shape[2] > _BOX:
            return [(boxes[:, :4], boxes[:, 4], boxes[:, _BOX:]) for boxes in output]
        if isinstance(output, Sequence) and all(
            isinstance(o, Tensor) and o.ndim == 2 and o.shape[1] > _BOX for o in output
        ):
            return [(boxes[:, :4], boxes[:, 4], boxes[:, _BOX:]) for boxes in output]
        try:
            if isinstance(output, Tensor):
                raise TypeError
            return [(sample["boxes"], sample["scores"], sample["labels"]) for sample in output]
        except (KeyError, TypeError, IndexError):
            shape = f"of shape {tuple(output.shape)}" if isinstance(output, Tensor) else f"a {type(output).__name__}"
            raise TypeError(
                "boxes are a tensor (batch, boxes, 5 + classes), or for each sample a mapping of 'boxes', 'scores' and "
                f"'labels', but {what} is {shape}"
            ) from None

    @staticmethod
    def _match(wanted: tuple[Tensor, Tensor, Tensor], found: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        boxes, objectness, classes = found
        if not len(wanted[0]) or not len(boxes):
            return boxes.sum() * 0.0  # nothing to find, or nothing found: no score, but still part of the graph
        if wanted[2].shape[1:] != classes.shape[1:]:
            raise ValueError(
                "targets and the model's output must both give labels, or both class probabilities, of the same number "
                "of classes"
            )
        overlap = _intersection_over_union(wanted[0].to(boxes), boxes)
        if classes.is_floating_point():
            alike = torch.cosine_similarity(wanted[2].to(classes)[:, None], classes[None], dim=2)
        else:
            alike = (wanted[2].to(classes.device)[:, None] == classes[None]).to(boxes.dtype)
        return (overlap * objectness[None] * alike).amax(1).mean()


def _intersection_over_union(one: Tensor, other: Tensor) -> Tensor:
    """The overlap of each of (n, 4) with each of (m, 4) boxes, (n, m), from 0 to 1."""
    low = torch.maximum(one[:, None, :2], other[None, :, :2])
    high = torch.minimum(one[:, None, 2:], other[None, :, 2:])
    common = (high - low).clamp(min=0).prod(2)
    areas = [(boxes[:, 2:] - boxes[:, :2]).clamp(min=0).prod(1) for boxes in (one, other)]
    return common / (areas[0][:, None] + areas[1][None] - common).clamp(min=torch.finfo(common.dtype).tiny)
