"""What of a text model's output is explained: classes by index or label, and outputs at positions."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pnpx.suggest import nearest
from pnpx.text.tasks import SPAN, configuration, logits_of, span_of


@dataclass(frozen=True)
class Classes:
    """The classes explained for one text; ``single`` where one was asked for, so that its scores have no extra axis."""

    indices: tuple[int, ...] | None
    single: bool = True


def label_names(model: nn.Module) -> dict[int, str]:
    """The names of the model's classes, by index; empty where it has none of its own."""
    names = getattr(configuration(model), "id2label", None) or {}
    return {int(index): str(name) for index, name in names.items()}


def classes_of(targets: Any, n_texts: int, single: bool, names: dict[int, str]) -> list[Classes]:
    """The classes explained for each text.

    Args:
        targets: None for those predicted; an index or label for all texts; or for each text an index or label, or
            several of them. For a single text a list is several classes of it.
        n_texts: how many texts there are.
        single: whether one text was given, not in a list.
        names: the classes' labels.

    Raises:
        ValueError: there are not as many targets as texts, or no such label.
    """
    if targets is None:
        return [Classes(None)] * n_texts
    if isinstance(targets, (Tensor, np.ndarray)):
        targets = targets.tolist()
    if isinstance(targets, (str, int, np.integer)):
        return [Classes((_index(targets, names),))] * n_texts
    if not isinstance(targets, Sequence):
        raise TypeError(f"targets are None, an index, a label, or one or several for each text, but got {targets!r}")
    if single and not any(isinstance(target, Sequence) and not isinstance(target, str) for target in targets):
        targets = [targets]
    if len(targets) != n_texts:
        raise ValueError(f"there must be a target for each of the {n_texts} texts, but there are {len(targets)}")
    return [_classes(target, names) for target in targets]


def _classes(target: Any, names: dict[int, str]) -> Classes:
    if target is None:
        return Classes(None)
    if isinstance(target, (str, int, np.integer)):
        return Classes((_index(target, names),))
    if isinstance(target, (Tensor, np.ndarray)):
        target = target.tolist()
        if isinstance(target, int):
            return Classes((target,))
    if not isinstance(target, Sequence) or not target:
        raise TypeError(f"a target is None, an index, a label, or several of them, but got {target!r}")
    return Classes(tuple(_index(one, names) for one in target), single=False)


def _index(target: Any, names: dict[int, str]) -> int:
    if isinstance(target, bool) or not isinstance(target, (str, int, np.integer)):
        raise TypeError(f"a target is an index or a label, but got {target!r}")
    if not isinstance(target, str):
        return int(target)
    for index, name in names.items():
        if name == target:
            return index
    alike = [index for index, name in names.items() if name.lower() == target.lower()]
    if len(alike) == 1:
        return alike[0]
    raise ValueError(f"the model has no class {target!r}; {nearest(target, names.values())}")


@dataclass(frozen=True)
class Outputs:
    """Some outputs at positions of a sequence: one score for each.

    Attributes:
        positions: where in the sequence of logits, (n,).
        indices: which class or token there, (n,).
        names: what they are called.
        against: tokens whose score is taken off, (n,); None: none is.
        parts: for each which logits it is in, such as "start_logits"; None: the ``logits``.
    """

    positions: Tensor
    indices: Tensor
    names: tuple[str, ...]
    against: Tensor | None = None
    parts: tuple[str, ...] | None = None

    def read(self, output: Any, inference_mode: str) -> Tensor:
        """The scores, (rows, n), in what the model returned."""
        columns = []
        for number, position in enumerate(self.positions.tolist()):
            logits = self._logits(output, number)
            row = logits[:, position]
            if inference_mode == "softmax":
                row = row.softmax(-1)
            elif inference_mode == "log_softmax":
                row = row.log_softmax(-1)
            column = row[:, int(self.indices[number])]
            if self.against is not None:
                column = column - row[:, int(self.against[number])]
            columns.append(column)
        return torch.stack(columns, dim=1)

    def _logits(self, output: Any, number: int) -> Tensor:
        """(rows, length, classes)."""
        if self.parts is not None:
            span = span_of(output)
            if span is not None:
                return span[SPAN.index(self.parts[number])][:, None]  # the positions are the classes
        else:
            found = logits_of(output)
            if found is not None:
                return found
        raise TypeError(f"the model returned a {type(output).__name__} without what it returned before")
