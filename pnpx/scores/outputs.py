"""What of a model's output the scores are taken of: the tensor in it, a row a sample."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from torch import Tensor

from pnpx.extractors import Extractor, part_of
from pnpx.structure import is_container, items, map_tensors
from pnpx.suggest import nearest

ScoreFunction: TypeAlias = Callable[[Any, Any], Tensor]
InferenceMode: TypeAlias = Literal["logits", "softmax", "log_softmax"]
Task: TypeAlias = Literal["classification", "regression", "segmentation", "detection"]

TASKS = ("classification", "regression", "segmentation", "detection")
INFERENCE_MODES = ("logits", "softmax", "log_softmax")


@dataclass(frozen=True)
class OutputReader:
    """Finds the tensor that scores are taken of in what a model returns, and puts it as the inference mode wants it."""

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


def find_output(output: Any, path: str = "") -> Tensor:
    """The tensor in what a model returned: it, its ``logits`` or ``out``, the first of a tuple, the only one of a
    mapping. ``path`` leads to it from what was returned, for errors.

    Raises:
        TypeError: there is none, or it is not clear which.
    """
    if isinstance(output, Tensor):
        return output
    if isinstance(output, (tuple, list)) and not hasattr(output, "_fields") and output:
        return find_output(output[0], f"{path}[0]")
    held = dict(items(output)) if is_container(output) else getattr(output, "__dict__", {})
    parts = output._asdict() if hasattr(output, "_fields") else held
    for name in ("logits", "out"):
        found = parts.get(name, getattr(output, name, None))
        if isinstance(found, Tensor):
            return found
    floats = [key for key, part in parts.items() if isinstance(part, Tensor) and part.is_floating_point()]
    if len(floats) == 1 and is_container(output):
        return parts[floats[0]]  # type: ignore[no-any-return]
    named = ", ".join(repr(str(key)) for key in parts) if is_container(output) else ""
    what = f"the parts {named}" if named else f"a {type(output).__name__}"
    where = "lambda output: ..."
    if floats:
        part = f"[{floats[0]!r}]" if isinstance(output, Mapping) else f".{floats[0]}"
        where = f"lambda output: output{path}{part}" if path else repr(floats[0])
    raise TypeError(
        f"the model returned {what}, in which the scores are not clear; say where: output_extractor={where}"
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
