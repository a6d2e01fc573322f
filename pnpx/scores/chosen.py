"""Scores of classification, regression and segmentation: what of the output the targets choose, or weight."""

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from pnpx.scores.aim import Aim
from pnpx.scores.outputs import OutputReader, check_rows
from pnpx.scores.targets import Targets, read_targets


class Chosen(Aim):
    """Scores picked out of, or weighted over, the model's output."""

    def __init__(
        self,
        reader: OutputReader,
        targets: Targets,
        batch_size: int,
        clean: Callable[[], Any],
        whole: int | None = None,
        rows: slice | None = None,
    ) -> None:
        self._reader, self._batch_size, self._clean = reader, batch_size, clean
        self._given_for, self._rows = whole or batch_size, rows
        self._segments = reader.score == "segmentation"
        self._indices: tuple[Tensor, ...] | None = None  # one (batch, n_targets) an axis of the output after the batch
        self._given_weights: Tensor | None = None  # for all samples, or one for each of the whole batch
        self._weights: Tensor | None = None  # (batch, *the output's axes)
        self._selected: dict[tuple[torch.Size, torch.device], list[tuple[Tensor, ...]]] = {}
        if targets is None:
            self._predict()
            return
        given = read_targets(targets)
        if not isinstance(given, Tensor):
            columns = torch.tensor(given).reshape(1 if isinstance(given, tuple) else len(given), -1)
            self._set_indices([self._per_sample(column)[:, None] for column in columns.unbind(1)])
            return
        if given.is_floating_point() or (self._segments and given.dtype == torch.bool):
            self._given_weights = given
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
            return self._weights
        if len(self._indices) > 1:
            return torch.cat(self._indices, dim=1)
        return self._indices[0] if self.n_targets else self._indices[0][:, 0]

    def scores(self, output: Any, copies: int) -> list[Tensor]:
        read = self._read(output, copies)
        if self._given_weights is not None:
            self._weights = self._weights_by_sample(read, self._given_weights)
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
        return [read[selection] for selection in self._selections(read, copies)]

    def _selections(self, read: Tensor, copies: int) -> list[tuple[Tensor, ...]]:
        """For each target what indexes its scores in ``read``; the same for all outputs of one shape."""
        key = (read.shape, read.device)
        if key not in self._selected:
            indices = self._indices or ()
            for axis, index in enumerate(indices, start=1):
                self._require_range(index, read.shape[axis], axis, read.ndim)
            rows = torch.arange(len(read), device=read.device)
            columns = zip(*(index.unbind(1) for index in indices), strict=True)
            self._selected[key] = [
                (rows, *(index.to(read.device).repeat(copies) for index in column)) for column in columns
            ]
        return self._selected[key]

    def _read(self, output: Any, copies: int) -> Tensor:
        read = self._reader.read(output)
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
        lost = read.isnan().flatten(1).any(1)
        if lost.any():
            warnings.warn(
                f"the model's output for {int(lost.sum())} of {len(lost)} samples is NaN, so that it predicts no class "
                "there, and what is explained means nothing; look at the inputs, or give targets",
                RuntimeWarning,
                stacklevel=2,
            )
        if self._segments:
            self._weights = self._one_hot(read, read.argmax(1))
        elif read.ndim > 2 or self._reader.score == "regression":
            kind = "a regression" if self._reader.score == "regression" else "a model"
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

    def _weights_by_sample(self, read: Tensor, given: Tensor) -> Tensor:
        """``given`` for these samples, (batch, *the output's axes)."""
        one = read.shape[1:]
        if given.shape == one and read.ndim > 1:
            return given.expand(self._batch_size, *one)
        if given.shape != (self._given_for, *one):
            raise ValueError(
                f"targets that are floats are weights of the output's shape, {(self._given_for, *one)} or "
                f"{tuple(one)}, but got {tuple(given.shape)}; for classes give integers"
            )
        return given if self._rows is None else given[self._rows]

    def _weighted(self, read: Tensor, weights: Tensor, copies: int) -> Tensor:
        weights = weights.to(read.device, torch.promote_types(read.dtype, torch.float32))
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
