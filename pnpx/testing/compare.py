"""Building explainers for the cases, and comparing what they find."""

from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor

from pnpx.attributors.places import Layer
from pnpx.explainers.base import Explainer
from pnpx.testing.case import Case

_FEW = 7  # of what is counted, such as noisy copies: what must hold for many holds for so many


def explainer(kind: type[Explainer], case: Case, layer: Layer = None, **parameters: Any) -> Explainer:
    """An explainer of ``kind`` for the model of ``case``, with few iterations, and ``parameters`` on top."""
    few = {
        f.name: _FEW for f in fields(kind) if "search" in f.metadata and isinstance(f.default, int) and f.default > _FEW
    }
    return kind(
        case.model, layer=layer, **{**few, **case.parameters, **kind.example_parameters(case.inputs), **parameters}
    )


def require(condition: bool, message: str) -> None:
    """Require that a property holds.

    Raises:
        AssertionError: it does not.
    """
    if not condition:
        raise AssertionError(message)


def parts(value: Any, path: str = "") -> Iterator[tuple[str, Tensor | None]]:
    """The tensors, and Nones, of an explanation, each with the path to it."""
    if value is None or isinstance(value, Tensor):
        yield path, value
    elif isinstance(value, Mapping):
        for key, part in value.items():
            yield from parts(part, f"{path}[{key!r}]")
    elif isinstance(value, (tuple, list)):
        for index, part in enumerate(value):
            yield from parts(part, f"{path}[{index}]")
    else:
        raise AssertionError(f"attributions hold tensors and None, but at {path or 'the top'} is {value!r}")


def require_equal(found: Any, expected: Any, what: str, tolerance: float = 1e-9) -> None:
    """Require that two explanations agree: the same structure, and the same numbers up to rounding.

    Args:
        found: what is examined.
        expected: what it must be.
        what: the comparison in words, for the message.
        tolerance: how far numbers may lie apart, as a fraction of the largest expected one of their tensor.

    Raises:
        AssertionError: they do not agree.
    """
    left, right = list(parts(found)), list(parts(expected))
    require(
        [path for path, _ in left] == [path for path, _ in right],
        f"{what}: the structures differ: {[path for path, _ in left]} and {[path for path, _ in right]}",
    )
    for (path, one), (_, other) in zip(left, right, strict=True):
        if one is None or other is None:
            require(one is other, f"{what}: one is None at {path}")
            continue
        where = f"{what}, at {path}" if path else what
        require(one.shape == other.shape, f"{where}: shapes {tuple(one.shape)} and {tuple(other.shape)} differ")
        if not one.numel():
            continue
        scale = float(other.abs().max())
        apart = float((one.double() - other.double()).abs().max())
        require(
            apart <= tolerance * scale + 1e-14,  # a NaN is not
            f"{where}: numbers differ by up to {apart:.3g}, where the largest is {scale:.3g}",
        )


def classes(case: Case) -> int:
    """How many classes the model of ``case`` tells apart."""
    return case.output().shape[1]


def other_targets(case: Case) -> Tensor:
    """A class for each sample that is not its target."""
    return torch.remainder(case.targets + 1, classes(case))
