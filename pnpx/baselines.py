"""What "absent" means: inputs that stand for nothing to be seen, as the start of a path or in place of a feature."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from pnpx.extractors import Call
from pnpx.masked import require_unmasked
from pnpx.structure import map_tensors, rebuild, tensors
from pnpx.suggest import nearest

Baseline: TypeAlias = Any
"""A number, a tensor, a name of `BASELINES`, a callable on the input, or a tuple or mapping of them, one an input."""


def zeros(value: Tensor) -> Tensor:
    """Zero everywhere: black in many images, token 0 among ids."""
    return torch.zeros_like(value)


def mean(value: Tensor) -> Tensor:
    """Each sample's mean, by channel where ``value`` is (batch, channels, ...) with two axes or more after them."""
    _require_floats(value, "mean")
    if value.ndim == 1:  # a number a sample; no axes would mean all of them
        return value.clone()
    axes = list(range(2, value.ndim)) if value.ndim > 3 else list(range(1, value.ndim))
    return value.mean(axes, keepdim=True).expand_as(value)


def blur(value: Tensor) -> Tensor:
    """Images (batch, channels, height, width), blurred by a Gaussian whose standard deviation is a tenth of their size.

    Beyond the border the image goes on as its edge. It keeps the mean colours of regions, and no detail (Fong and
    Vedaldi, 2017, arXiv:1704.03296).
    """
    _require_floats(value, "blur")
    if value.ndim != 4:
        raise ValueError(
            f"baseline='blur' is for images (batch, channels, height, width), but got {tuple(value.shape)}"
        )
    for axis in (2, 3):
        sigma = max(value.shape[axis] / 10, 0.5)
        radius = int(3 * sigma) + 1
        offsets = torch.arange(-radius, radius + 1, device=value.device)
        weights = torch.exp(-offsets.to(value.dtype).square() / (2 * sigma**2))
        weights = weights / weights.sum()
        places = (torch.arange(value.shape[axis], device=value.device)[:, None] + offsets).clamp(
            0, value.shape[axis] - 1
        )
        kernel = torch.zeros(value.shape[axis], value.shape[axis], dtype=value.dtype, device=value.device)
        kernel.scatter_add_(1, places, weights.expand(len(places), -1))
        value = (value.transpose(axis, -1) @ kernel.T).transpose(axis, -1)
    return value


@dataclass(frozen=True)
class Token:
    """One token in place of every other, such as [MASK], padding, or the unknown one; tokens of ``keep`` stay.

    >>> Token(103, keep=(101, 102))(torch.tensor([[101, 2023, 2003, 102]]))
    tensor([[101, 103, 103, 102]])

    Args:
        id: the token.
        keep: tokens that stay, such as those that the tokenizer puts around a text.
    """

    id: int
    keep: Sequence[int] = ()

    def __call__(self, value: Tensor) -> Tensor:
        """Token ids with the tokens replaced."""
        if value.is_floating_point():
            raise TypeError(f"Token replaces token ids, which are ints, but got {value.dtype}")
        stays = torch.isin(value, torch.as_tensor(tuple(self.keep), dtype=value.dtype, device=value.device))
        return torch.where(stays, value, self.id)


BASELINES: dict[str, Callable[[Tensor], Tensor]] = {"zeros": zeros, "mean": mean, "blur": blur}
"""The baselines that have a name."""


def require_finite(name: str, given: Baseline, infinite: bool = False) -> None:
    """Require a baseline without masked arrays, NaN and, unless it may be ``infinite``, infinite values.

    What a name or a callable stands for shows only with the input, and is not looked at.

    >>> require_finite("baseline", (0.0, float("nan")))
    Traceback (most recent call last):
    ValueError: baseline must be finite, but holds nan, where no score is; give numbers, such as 0.0
    """
    require_unmasked(f"the values of {name}", given)
    if isinstance(given, (tuple, list)):
        for part in given:
            require_finite(name, part, infinite)
    elif isinstance(given, Mapping):
        require_finite(name, list(given.values()), infinite)
    elif isinstance(given, (float, np.floating, Tensor)) or (isinstance(given, np.ndarray) and given.dtype.kind == "f"):
        values = torch.as_tensor(given, dtype=torch.float64 if isinstance(given, float) else None)
        if values.layout != torch.strided or values.is_meta or not values.is_floating_point():
            return
        wrong = values[values.isnan() if infinite else ~values.isfinite()].reshape(-1)
        if len(wrong):
            must = "not hold nan" if infinite else "be finite"
            raise ValueError(
                f"{name} must {must}, but holds {wrong[0].item()}, where no score is; give numbers, such as 0.0"
            )


def baseline_call(call: Call, baseline: Baseline) -> Call:
    """``call`` with each explained input replaced by its baseline; what goes along stays.

    Raises:
        TypeError, ValueError: the baseline does not fit the inputs.
    """
    if call.is_tuple and isinstance(baseline, (tuple, list)):
        if len(baseline) != len(call.forward):
            raise ValueError(
                f"there are {len(call.forward)} inputs, so as many baselines, but {len(baseline)} were given"
            )
        parts = list(baseline)
    elif isinstance(call.forward, Mapping) and isinstance(baseline, Mapping):
        if unknown := [key for key in baseline if key not in call.forward]:
            raise ValueError(
                f"there is no input {unknown[0]!r} for a baseline; {nearest(str(unknown[0]), call.forward)}"
            )
        parts = [baseline.get(key, 0.0) for key in call.forward]
    else:
        parts = [baseline] * len(call.values)
    return call.with_values([_absent(value, part) for value, part in zip(call.values, parts, strict=True)])


def _absent(value: Any, baseline: Baseline) -> Any:
    if isinstance(baseline, str):
        if baseline not in BASELINES:
            raise ValueError(f"no baseline {baseline!r}; {nearest(baseline, BASELINES)}")
        return map_tensors(BASELINES[baseline], value)
    if callable(baseline):
        found = baseline(value)
        if len(tensors(found)) != len(tensors(value)):
            raise TypeError(f"a baseline function must return a tensor for its input, but returned {found!r}")
        for leaf, original in zip(tensors(found), tensors(value), strict=True):
            _require_shape(leaf, original)
        return found
    require_unmasked("the baselines", baseline)
    if isinstance(baseline, np.ndarray):
        baseline = torch.from_numpy(baseline)
    if not isinstance(baseline, Tensor):
        try:
            # Exactly the number: what precision the input has is another matter.
            whole = isinstance(baseline, (int, np.integer)) and -(2**63) <= baseline < 2**63
            baseline = torch.tensor(int(baseline) if whole else float(baseline), dtype=None if whole else torch.float64)
        except (TypeError, ValueError, OverflowError):
            raise TypeError(
                f"a baseline is a number, a tensor, a name ({', '.join(BASELINES)}), a callable on the input, or one "
                f"for each input, but got {baseline!r}"
            ) from None
    return rebuild(value, [_expanded(baseline, leaf) for leaf in tensors(value)])


def _expanded(baseline: Tensor, value: Tensor) -> Tensor:
    if baseline.is_complex() and not value.is_complex():
        raise TypeError(f"a baseline of {value.dtype} must be real numbers, but is {baseline.dtype}")
    if not value.is_floating_point() and bool((baseline.to(value.dtype) != baseline).any()):
        raise ValueError(
            f"a baseline of {value.dtype} must be whole numbers, such as a token's id, but is "
            f"{baseline.item() if baseline.numel() == 1 else baseline.dtype}"
        )
    given = baseline.to(value)
    if value.is_floating_point() and bool((given.to(baseline.device).isinf() & ~baseline.isinf()).any()):
        largest = torch.finfo(value.dtype).max
        raise ValueError(f"a baseline of {value.dtype} must be within +-{largest:.3g}, but holds a larger number")
    try:
        return given.expand_as(value)
    except RuntimeError:
        raise ValueError(
            f"a baseline must have the shape of the input, {tuple(value.shape)}, or expand to it, but has "
            f"{tuple(baseline.shape)}"
        ) from None


def _require_shape(baseline: Tensor, value: Tensor) -> None:
    if baseline.shape != value.shape:
        raise ValueError(
            f"a baseline function must return the shape of its input, {tuple(value.shape)}, but returned "
            f"{tuple(baseline.shape)}"
        )


def _require_floats(value: Tensor, name: str) -> None:
    if not value.is_floating_point():
        raise TypeError(f"baseline={name!r} needs floating-point inputs, but got {value.dtype}")
