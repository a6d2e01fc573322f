"""What is absent, given as a value at the place itself rather than as an input."""

from collections.abc import Sequence

from torch import Tensor

from pnpx.attributors import Value
from pnpx.baselines import Baseline, baseline_call
from pnpx.extractors import Call


def absent_values(values: Sequence[Value], replacement: Baseline) -> list[Tensor]:
    """What ``replacement`` puts in the place of each of the ``values``, of its shape.

    It sees them with the axis of the batch in front; those without one as a batch of one.
    """
    moved = [v.tensor[None] if v.axis is None else v.tensor.movedim(v.axis, 0) for v in values]
    place = Call(tuple(moved) if len(moved) > 1 else moved[0], (None,) * len(moved))
    return [
        tensor[0] if value.axis is None else tensor.movedim(0, value.axis)
        for tensor, value in zip(baseline_call(place, replacement).values, values, strict=True)
    ]
