"""What of an explanation is drawn: its tensors, one sample of each, with a map for each target."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from pnpx.explanation import Explanation
from pnpx.structure import Structure, is_container, items, tensors

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Part:
    """One tensor of an explanation, for one sample, without batch axis."""

    name: str
    """Where it is in the structure explained, such as "[1][0]"; "" where that is one tensor."""
    value: Array
    """What was explained there."""
    maps: tuple[Array, ...]
    """The attributions for each target, of the shape of `value` unless they were pooled."""
    batch_axis: int = 0
    """Where the batch axis was."""

    def with_channels(self, axis: int | None, to: int) -> "Part":
        """The part with its channels, ``axis`` counted with that of the batch, moved to where the drawing has them."""
        ndim = self.value.ndim + 1
        if axis is None or self.value.ndim < 2 or not -ndim <= axis < ndim or axis % ndim == self.batch_axis:
            return self
        of_sample = axis % ndim - (axis % ndim > self.batch_axis)
        moved = [np.moveaxis(one, of_sample, to) if one.ndim == self.value.ndim else one
                 for one in (self.value, *self.maps)]
        return replace(self, value=moved[0], maps=tuple(moved[1:]))


def parts(one: Explanation) -> list[Part]:
    """The parts of a batch of one."""
    maps, several, found = dict(_named(one.attributions)), one.n_targets() is not None, []
    for (name, value), axis in zip(_named(one.explained), one.batch_axes, strict=True):
        if name not in maps:  # a part that nothing was attributed to
            continue
        attributions = _first(maps[name], axis)
        rows = attributions.unbind(axis) if several else (attributions,)
        found.append(Part(name, array(_first(value, axis)), tuple(map(array, rows)), axis))
    return found


def drawn(found: Sequence[Part]) -> tuple[list[Part], list[Part]]:
    """The parts to draw, and those left out: where some attributions are not zero, those that are all zero."""
    zero = [not any(one.any() for one in part.maps) for part in found]
    if all(zero):
        return list(found), []
    shown = [part for part, is_zero in zip(found, zero, strict=True) if not is_zero]
    return shown, [part for part, is_zero in zip(found, zero, strict=True) if is_zero]


def inputs(one: Explanation) -> list[Array]:
    """The inputs of a batch of one, without batch axis; a layer's batch axis is not taken to be that of an input."""
    leaves = tensors(one.inputs)
    same = [leaf.shape for leaf in leaves] == [leaf.shape for leaf in tensors(one.explained)]
    axes = one.batch_axes if same else [0 if leaf.ndim and len(leaf) == 1 else leaf.ndim for leaf in leaves]
    return [array(_first(leaf, axis)) for leaf, axis in zip(leaves, axes, strict=True)]


def target_texts(one: Explanation) -> list[str]:
    """A description of each target of a batch of one, such as "target 3", or "" where there is none."""
    if one.targets is None:
        return [""]
    if one.targets.is_floating_point():
        return ["weighted output"]
    if one.indices or one.targets.ndim > 2:
        return [f"target {tuple(one.targets[0].tolist())}"]
    return [f"target {one.label(int(target))}" for target in one.targets.reshape(-1)]


def prediction_text(one: Explanation) -> str:
    """The prediction of a batch of one and its probability, such as "predicted 3 (98.2%)"; "" where there is none."""
    if one.prediction is None or one.prediction.numel() != 1:
        return ""
    if one.probability is not None and bool(one.probability.isnan().any()):
        return "the output is NaN"
    text = f"predicted {one.label(int(one.prediction))}"
    if one.probability is None or one.probability.numel() != 1:
        return text
    return f"{text} ({float(one.probability):.1%})"


def array(tensor: Tensor) -> Array:
    """The values as float64, which holds those of every real dtype."""
    result: Array = tensor.detach().cpu().double().numpy()
    return result


def _first(leaf: Tensor, axis: int) -> Tensor:
    return leaf.select(axis, 0) if leaf.ndim > axis else leaf


def _named(structure: Structure, name: str = "") -> Iterator[tuple[str, Tensor]]:
    if is_container(structure):
        for key, item in items(structure):
            yield from _named(item, f"{name}[{key!r}]")
    elif structure is not None:
        yield from zip([name], tensors(structure), strict=True)


def finite(maps: Any) -> Array:
    """The finite values of all ``maps``, in one row."""
    values: Array = np.concatenate([np.ravel(one) for one in maps]) if maps else np.zeros(0)
    return values[np.isfinite(values)]
