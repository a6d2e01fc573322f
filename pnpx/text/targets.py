"""What of a text model's output is explained: classes by index or label, and outputs at positions."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pnpx.suggest import nearest
from pnpx.text.returned import logits_of, span_of
from pnpx.text.tasks import Kind, configuration


@dataclass(frozen=True)
class Classes:
    """The classes explained for one text; ``single`` where one was asked for, so that its scores have no extra axis."""

    indices: tuple[int, ...] | None
    single: bool = True


def label_names(model: nn.Module) -> dict[int, str]:
    """The names of the model's classes, by index; empty where it has none of its own."""
    names = getattr(configuration(model), "id2label", None) or {}
    return {int(index): str(name) for index, name in names.items()}


def classes_of(
    targets: Any, n_texts: int, single: bool, names: dict[int, str], count: int | None = None
) -> list[Classes]:
    """The classes explained for each text.

    Args:
        targets: None for those predicted; an index or label for all texts; or for each text an index or label, or
            several of them. For a single text a list is several classes of it.
        n_texts: how many texts there are.
        single: whether one text was given, not in a list.
        names: the classes' labels.
        count: how many classes there are, if it is known.

    Raises:
        ValueError: there are not as many targets as texts, or no such class.
        TypeError: a target is neither an index nor a label.
    """
    if targets is None:
        return [Classes(None)] * n_texts
    targets = plain(targets)
    if not isinstance(targets, (list, tuple)):
        return [Classes((_index(targets, names, count),))] * n_texts
    if single and not any(isinstance(target, (list, tuple)) for target in targets):
        targets = [targets]
    if len(targets) != n_texts:
        raise ValueError(f"there must be a target for each of the {n_texts} texts, but there are {len(targets)}")
    return [_classes(target, names, count) for target in targets]


def plain(targets: Any) -> Any:
    """Tensors and arrays, also inside of lists, as Python's numbers and lists."""
    if isinstance(targets, (Tensor, np.ndarray, np.generic)):
        return targets.tolist()
    return [plain(target) for target in targets] if isinstance(targets, (list, tuple)) else targets


def _classes(target: Any, names: dict[int, str], count: int | None) -> Classes:
    if target is None:
        return Classes(None)
    if not isinstance(target, (list, tuple)):
        return Classes((_index(target, names, count),))
    if not target:
        raise ValueError("a target is an index, a label, or several of them, but a list of none was given")
    return Classes(tuple(_index(one, names, count) for one in target), single=False)


def _index(target: Any, names: dict[int, str], count: int | None) -> int:
    if isinstance(target, bool) or not isinstance(target, (str, int)):
        raise TypeError(f"a target is the index or the label of a class, but got {target!r}")
    if not isinstance(target, str):
        if target < 0 or (count is not None and target >= count):
            known = "" if count is None else f" to {count - 1}"
            raise ValueError(f"a target must be a class from 0{known}, but is {target}")
        return target
    for index, name in names.items():
        if name == target:
            return index
    alike = [index for index, name in names.items() if name.lower() == target.lower()]
    if len(alike) == 1:
        return alike[0]
    raise ValueError(f"the model has no class {target!r}; {nearest(target, names.values())}")


@dataclass(frozen=True)
class Outputs:
    """Some outputs at positions of one text: one score for each.

    Attributes:
        kind: what the model does, which says what is at the positions.
        positions: where in the sequence of logits, (n,).
        indices: which class or token there, (n,).
        names: what they are called.
        against: tokens whose score is taken off, (n,); None: none is.
        parts: for each which logits it is in, such as "start_logits", whose classes are positions; None: the
            ``logits``.
    """

    kind: Kind
    positions: Tensor
    indices: Tensor
    names: tuple[str, ...]
    against: Tensor | None = None
    parts: tuple[str, ...] | None = None

    @property
    def asked(self) -> Tensor:
        """The positions of the tokens that are asked about, of those that the model reads."""
        if self.kind == "span":
            return self.indices
        return self.positions if self.kind in ("tokens", "masked") else self.positions[:0]

    def read(
        self, output: Any, inference_mode: str, places: Tensor | None = None, real: Tensor | None = None
    ) -> Tensor:
        """The scores, (rows, n), in what the model returned.

        Args:
            output: of the model.
            inference_mode: "logits", "softmax" or "log_softmax".
            places: in copies that lost tokens, where each token of the text is now, (rows, length).
            real: which tokens of these copies are no padding.
        """
        if self.parts is not None:
            span = span_of(output)
            logits = torch.stack([span[part] for part in self.parts], dim=1)  # (rows, n, classes)
            if real is not None:  # a span cannot begin or end in padding
                logits = logits.masked_fill(~real[:, None].to(logits.device), -torch.inf)
            indices = self.indices if places is None else places[:, self.indices]
        else:
            positions, indices = self.positions, self.indices
            if places is not None and self.kind != "encoder_decoder":
                positions = places[:, positions]
            found = logits_of(output)
            rows = torch.arange(len(found), device=found.device)[:, None]
            logits = found[rows, positions.to(found.device)]
        if inference_mode == "softmax":
            logits = logits.softmax(-1)
        elif inference_mode == "log_softmax":
            logits = logits.log_softmax(-1)
        scores = _picked(logits, indices)
        return scores if self.against is None else scores - _picked(logits, self.against)


def _picked(logits: Tensor, indices: Tensor) -> Tensor:
    """(rows, n), of (rows, n, classes) the class that ``indices``, (n,) or (rows, n), name."""
    return logits.gather(2, indices.to(logits.device).expand(logits.shape[:2])[..., None])[..., 0]
