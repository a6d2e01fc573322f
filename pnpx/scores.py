"""From what a model returns, and targets, to one score a sample: what gradients are taken of."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor

from pnpx.extractors import Extractor, part_of
from pnpx.structure import is_container, items, map_tensors, tensors
from pnpx.suggest import nearest
from pnpx.targets import read_targets

Targets: TypeAlias = Any
"""None, an int, ints (batch,) or (batch, n_targets), a tuple of indices or a list of them, weights, or a callable."""

ScoreFunction: TypeAlias = Callable[[Any, Any], Tensor]
InferenceMode: TypeAlias = Literal["logits", "softmax", "log_softmax"]
Task: TypeAlias = Literal["classification", "regression", "segmentation", "detection"]

TASKS = ("classification", "regression", "segmentation", "detection")
INFERENCE_MODES = ("logits", "softmax", "log_softmax")


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


@dataclass(frozen=True)
class Objective:
    """How the scores of an explainer come about, whatever the targets."""

    score: Task | ScoreFunction = "classification"
    output_extractor: Extractor = None
    inference_mode: InferenceMode = "logits"
    n_classes: int | None = None

    def __post_init__(self) -> None:
        if not callable(self.score) and self.score not in TASKS:
            raise ValueError(f"score must be one of {TASKS} or a callable, but is {self.score!r}")
        if self.inference_mode not in INFERENCE_MODES:
            raise ValueError(
                f"inference_mode must be one of {INFERENCE_MODES}, but is {self.inference_mode!r}; "
                f"{nearest(str(self.inference_mode), INFERENCE_MODES)}"
            )
        whole = isinstance(self.n_classes, int) and not isinstance(self.n_classes, bool)
        if self.n_classes is not None and (not whole or self.n_classes < 1):
            raise ValueError(f"`n_classes >= 1` must hold, but got n_classes={self.n_classes!r}")
        if self.inference_mode != "logits" and self.score in ("regression", "detection"):
            raise ValueError(f"score={self.score!r} needs inference_mode='logits', but it is {self.inference_mode!r}")

    def read(self, output: Any) -> Any:
        """The tensor in what the model returned, as the inference mode wants it."""
        if self.output_extractor is not None:
            extractor = self.output_extractor
            if isinstance(extractor, (int, str)):
                found = part_of(output, extractor, "output")
            else:
                found = _call(extractor, output)
        elif self.score == "detection":
            found = output
        else:
            found = find_output(output)
        if not isinstance(found, Tensor) or self.score == "detection":
            return found
        if self.n_classes is not None and found.ndim > 1 and found.shape[self.class_axis(found)] != self.n_classes:
            raise ValueError(
                f"n_classes={self.n_classes} was given, but the model's output has shape {tuple(found.shape)}, "
                f"with {found.shape[self.class_axis(found)]} classes"
            )
        if self.inference_mode == "logits":
            return found
        axis = self.class_axis(found)
        if found.ndim < 2 or found.shape[axis] == 1:
            raise ValueError(
                f"the {self.inference_mode} over a single output is constant, but the output has shape "
                f"{tuple(found.shape)}; use inference_mode='logits'"
            )
        return found.softmax(axis) if self.inference_mode == "softmax" else found.log_softmax(axis)

    def class_axis(self, output: Tensor) -> int:
        """The axis of the classes: the last one; of a segmentation (batch, classes, height, width) the second."""
        return 1 if self.score == "segmentation" and output.ndim > 1 else output.ndim - 1

    def read_targets(self, targets: Targets) -> Targets:
        """``targets`` as tensors and tuples, where they are no functions and no boxes.

        Raises:
            TypeError, ValueError: they are nothing that can be a target.
        """
        if callable(self.score) or callable(targets) or self.score == "detection":
            return targets
        return read_targets(targets)

    def aim(
        self, targets: Targets, batch: Any, batch_size: int, clean: Callable[[], Any], whole: int | None = None
    ) -> Aim:
        """The scores for ``targets``.

        Args:
            targets: see `Targets`.
            batch: what a callable as target is given, beside the output.
            batch_size: the number of samples.
            clean: gives the output for the batch itself; called only where the targets depend on it.
            whole: where these samples are some of a larger batch, of which the targets were not cut: its size. What has
                the size of the part is then no target for each sample of the part.
        """
        if callable(self.score):
            return _Custom(self, self.score, targets, batch_size)
        if callable(targets):
            return _Custom(self, targets, batch, batch_size)
        if self.score == "detection":
            from pnpx.detection import Detection

            return Detection(self, targets, batch_size, clean, whole)
        return _Chosen(self, targets, batch_size, clean, whole)


def find_output(output: Any) -> Tensor:
    """The tensor in what a model returned: it, its ``logits`` or ``out``, the first of a tuple, the only one of a
    mapping.

    Raises:
        TypeError: there is none, or it is not clear which.
    """
    if isinstance(output, Tensor):
        return output
    if isinstance(output, (tuple, list)) and not hasattr(output, "_fields") and output:
        return find_output(output[0])
    parts = dict(items(output)) if is_container(output) else {}
    for name in ("logits", "out"):
        found = parts.get(name, getattr(output, name, None))
        if isinstance(found, Tensor):
            return found
    floats = [part for part in parts.values() if isinstance(part, Tensor) and part.is_floating_point()]
    if len(floats) == 1:
        return floats[0]
    what = f"the parts {', '.join(repr(str(key)) for key in parts)}" if parts else f"a {type(output).__name__}"
    raise TypeError(
        f"the model returned {what}, in which the scores are not clear; say where: output_extractor='logits'"
    )


def _call(extractor: Any, output: Any) -> Any:
    if not callable(extractor):
        raise TypeError(f"output_extractor must be an int, a str or a callable, but is {extractor!r}")
    return extractor(output)


def check_rows(output: Tensor, rows: int) -> None:
    """Require that ``output`` has so many rows."""
    if output.ndim == 0 or output.shape[0] != rows:
        raise ValueError(
            f"the model's output must have a row for each of the {rows} samples, but its shape is "
            f"{tuple(output.shape)}; choose the right tensor with output_extractor, or bring its batch axis to the "
            "front there"
        )


def split_copies(output: Any, copies: int, batch_size: int) -> list[Any]:
    """``output`` for several copies of a batch as so many outputs for the batch."""
    if copies == 1:
        return [output]
    rows = [slice(start * batch_size, (start + 1) * batch_size) for start in range(copies)]
    if isinstance(output, list):  # an entry a sample, as detectors return
        return [output[row] for row in rows]
    return [map_tensors(lambda tensor, row=row: tensor[row], output) for row in rows]  # type: ignore[misc]


class _Custom(Aim):
    """Scores by the user's own function, which always sees the batch as the user gave it."""

    def __init__(self, objective: Objective, function: ScoreFunction, companion: Any, batch_size: int) -> None:
        self._objective, self._function = objective, function
        self._companion, self._batch_size = companion, batch_size

    def scores(self, output: Any, copies: int) -> list[Tensor]:
        read = self._objective.read(output)
        for tensor in tensors(read)[:1] if not isinstance(read, list) else ():
            check_rows(tensor, copies * self._batch_size)
        return [torch.cat([self._score(part) for part in split_copies(read, copies, self._batch_size)])]

    def _score(self, output: Any) -> Tensor:
        score = self._function(output, self._companion)
        if not isinstance(score, Tensor) or score.shape != (self._batch_size,) or not score.is_floating_point():
            what = (
                f"a tensor of shape {tuple(score.shape)} and {score.dtype}"
                if isinstance(score, Tensor)
                else repr(score)
            )
            raise TypeError(
                f"a callable score must return one float a sample, a tensor of shape ({self._batch_size},), "
                f"but returned {what}"
            )
        return score


class _Chosen(Aim):
    """Scores picked out of, or weighted over, the model's output."""

    def __init__(
        self,
        objective: Objective,
        targets: Targets,
        batch_size: int,
        clean: Callable[[], Any],
        whole: int | None = None,
    ) -> None:
        self._objective, self._batch_size, self._clean = objective, batch_size, clean
        self._given_for = whole or batch_size
        self._segments = objective.score == "segmentation"
        self._indices: tuple[Tensor, ...] | None = None  # one (batch, n_targets) an axis of the output after the batch
        self._weights: Tensor | None = None
        self._shared = False  # whether the weights are one for all samples
        if targets is None:
            self._predict()
            return
        given = read_targets(targets)
        if not isinstance(given, Tensor):
            columns = torch.tensor(given).reshape(1 if isinstance(given, tuple) else len(given), -1)
            self._set_indices([self._per_sample(column)[:, None] for column in columns.unbind(1)])
            return
        if given.is_floating_point() or (self._segments and given.dtype == torch.bool):
            self._weights = given
            return
        self._require_integers(given)
        if given.ndim > 2:
            raise ValueError(
                f"targets of classes have shape (batch,) or (batch, n_targets), but got {tuple(given.shape)}"
            )
        if given.ndim == 2:
            self.n_targets = given.shape[1]
            if len(given) != self._given_for or not self.n_targets:
                raise ValueError(
                    f"targets of several classes a sample have shape (batch, n_targets) = "
                    f"({self._given_for}, n_targets), but got {tuple(given.shape)}"
                )
        self._set_indices([given if given.ndim == 2 else self._per_sample(given)[:, None]])

    @property
    def resolved(self) -> Tensor | None:
        if self._indices is None:
            if self._weights is None or not self._shared:
                return self._weights
            return self._weights.expand(self._batch_size, *self._weights.shape)
        if len(self._indices) > 1:
            return torch.cat(self._indices, dim=1)
        return self._indices[0] if self.n_targets else self._indices[0][:, 0]

    def scores(self, output: Any, copies: int) -> list[Tensor]:
        read = self._read(output, copies)
        if self._weights is not None:
            return [self._weighted(read, self._weights, copies)]
        if self._indices is None:  # one output a sample: nothing to choose
            return [read.reshape(len(read))]
        if self._segments and len(self._indices) == 1:
            (classes,) = self._indices
            return [self._weighted(read, self._region(read, column), copies) for column in classes.unbind(1)]
        if len(self._indices) != read.ndim - 1:
            if not (read.ndim == 1 and len(self._indices) == 1):
                raise ValueError(
                    f"the model's output has shape {tuple(read.shape)}, so a target has {read.ndim - 1} indices, "
                    f"but {len(self._indices)} were given; give a tuple of them, such as {(0,) * (read.ndim - 1)}"
                )
            read = read[:, None]
        for axis, index in enumerate(self._indices, start=1):
            self._require_range(index, read.shape[axis], axis, read.ndim)
        rows = torch.arange(len(read), device=read.device)
        columns = zip(*(index.unbind(1) for index in self._indices), strict=True)
        return [read[(rows, *(index.to(read.device).repeat(copies) for index in column))] for column in columns]

    def _read(self, output: Any, copies: int) -> Tensor:
        read = self._objective.read(output)
        if not isinstance(read, Tensor) or not read.is_floating_point():
            what = f"a tensor of {read.dtype}" if isinstance(read, Tensor) else f"a {type(read).__name__}"
            raise TypeError(
                f"scores are taken from a tensor of floats, but the model's output is {what}; see output_extractor"
            )
        check_rows(read, copies * self._batch_size)
        return read

    def _predict(self) -> None:
        """Choose what the model predicts for the batch itself."""
        with torch.no_grad():
            read = self._read(self._clean(), 1)
        if read.ndim == 1 or read.shape[1:].numel() == 1:
            return
        if self._segments:
            self._weights = self._one_hot(read, read.argmax(1))
        elif read.ndim > 2 or self._objective.score == "regression":
            kind = "a regression" if self._objective.score == "regression" else "a model"
            example = (0,) * (read.ndim - 1) if read.ndim > 2 else 0
            raise ValueError(
                f"targets=None needs one predicted class, but {kind} with output of shape {tuple(read.shape)} has "
                f"several outputs a sample; say which one is explained, such as targets={example}"
            )
        else:
            self._set_indices([read.argmax(1)[:, None]])

    def _set_indices(self, indices: Sequence[Tensor]) -> None:
        self._indices = tuple(index.long() for index in indices)

    def _per_sample(self, given: Tensor) -> Tensor:
        if given.numel() == 1 and given.ndim <= 1:
            return given.reshape(1).expand(self._batch_size)
        if given.shape != (self._given_for,):
            raise ValueError(
                f"targets must be one for all or one a sample, ({self._given_for},), but got shape "
                f"{tuple(given.shape)}"
            )
        return given

    @staticmethod
    def _require_integers(given: Tensor) -> None:
        if given.dtype == torch.bool or given.is_floating_point() or given.is_complex():
            raise TypeError(f"targets of classes must be integers, but are {given.dtype}")

    @staticmethod
    def _require_range(index: Tensor, size: int, axis: int, ndim: int) -> None:
        outside = index[(index < 0) | (index >= size)]
        if len(outside):
            where = "" if ndim == 2 else f" along axis {axis} of the output"
            raise ValueError(f"targets must be in the range 0 to {size - 1}{where}, but got {int(outside[0])}")

    def _weighted(self, read: Tensor, weights: Tensor, copies: int) -> Tensor:
        weights = weights.to(read.device, torch.promote_types(read.dtype, torch.float32))
        per_sample = (self._batch_size, *read.shape[1:])
        if weights.shape == read.shape[1:] and read.ndim > 1:
            weights = weights.expand(per_sample)
            self._shared = True
        elif weights.shape != (self._given_for, *read.shape[1:]):
            raise ValueError(
                f"targets that are floats are weights of the output's shape, {(self._given_for, *per_sample[1:])} or "
                f"{per_sample[1:]}, "
                f"but got {tuple(weights.shape)}; for classes give integers"
            )
        terms = read * weights.repeat(copies, *[1] * (read.ndim - 1))
        total = terms.reshape(len(terms), -1).sum(1)
        if not self._segments:
            return total
        pixels = (weights != 0).reshape(self._batch_size, -1).sum(1).clamp(min=1)
        return total / pixels.repeat(copies)

    def _region(self, read: Tensor, classes: Tensor) -> Tensor:
        """Weights of the pixels that the model itself gives to ``classes``, (batch,); of all where there are none."""
        self._require_range(classes, read.shape[1], 1, 2)
        with torch.no_grad():
            clean = self._read(self._clean(), 1)
        chosen = classes.to(clean.device).reshape(-1, *[1] * (clean.ndim - 2))
        inside = clean.argmax(1) == chosen
        nowhere = ~inside.flatten(1).any(1)
        inside |= nowhere.reshape(-1, *[1] * (inside.ndim - 1))
        return self._one_hot(clean, chosen.expand_as(inside)) * inside[:, None]

    @staticmethod
    def _one_hot(read: Tensor, classes: Tensor) -> Tensor:
        return torch.zeros_like(read, dtype=torch.float32).scatter_(1, classes[:, None], 1.0)


def rows_of_targets(targets: Targets, rows: slice, batch_size: int, weights: bool = True) -> Targets:
    """The targets of some samples of a batch; what is one for all stays as it is.

    With ``weights`` floats without further axes are weights on the classes; otherwise, as a callable score is given
    them, numbers one a sample.
    """
    if isinstance(targets, list):
        shared = weights and all(isinstance(target, float) for target in targets)
        return targets[rows] if len(targets) == batch_size and not shared else targets
    if type(targets) is tuple:  # indices are for all samples; what a callable score is given may not be
        return tuple(rows_of_targets(part, rows, batch_size, weights) for part in targets)
    if isinstance(targets, Mapping):
        return {key: rows_of_targets(part, rows, batch_size, weights) for key, part in targets.items()}
    if isinstance(targets, (Tensor, np.ndarray)) and targets.ndim and len(targets) == batch_size:
        floats = targets.is_floating_point() if isinstance(targets, Tensor) else targets.dtype.kind == "f"
        return targets if weights and floats and targets.ndim == 1 else targets[rows]
    return targets
