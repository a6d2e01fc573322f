"""Parameters of explainers: those that can be tuned, with their search range; checks of them; how they are written."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
from torch import Tensor, nn


@dataclass(frozen=True)
class Range:
    """An interval to search, both ends included; on a log scale if ``log``.

    >>> Range(0.0, 1.0, log=True)
    Traceback (most recent call last):
    ValueError: `low > 0` must hold for log=True, but got low=0.0
    """

    low: float
    high: float
    log: bool = False

    def __post_init__(self) -> None:
        if not self.low < self.high:
            raise ValueError(f"`low < high` must hold, but got low={self.low}, high={self.high}")
        if self.log and self.low <= 0:
            raise ValueError(f"`low > 0` must hold for log=True, but got low={self.low}")


def tunable(default: Any, search: Range) -> Any:
    """A dataclass field with a search range."""
    return field(default=default, metadata={"search": search})


def search_space(kind: type) -> dict[str, Range]:
    """The ranges of the tunable parameters of ``kind``, by name."""
    return {f.name: f.metadata["search"] for f in fields(kind) if "search" in f.metadata}


def plain_numbers(value: Any) -> Any:
    """``value``, or what a tuple or list holds, with NumPy's numbers as Python's: a search or a config may hold them.

    >>> import numpy as np
    >>> plain_numbers((np.int64(3), np.float32(0.5), True))
    (3, 0.5, True)
    """
    if isinstance(value, (np.integer, np.floating)):
        return value.item()
    if type(value) in (tuple, list) and any(isinstance(item, (np.integer, np.floating)) for item in value):
        return type(value)(map(plain_numbers, value))
    return value


def require_count(name: str, value: Any, least: int) -> None:
    """Require an integer that is not too small."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an int, but got {value!r}")
    if value < least:
        raise ValueError(f"`{name} >= {least}` must hold, but got {name}={value}")


def require_axis(name: str, value: Any) -> None:
    """Require the number of an axis, or None."""
    if value is not None and (isinstance(value, bool) or not isinstance(value, int)):
        raise TypeError(f"{name} must be an int or None, but got {value!r}")


def require_seed(seed: Any) -> None:
    """Require a seed that generators take, with room above it for those of several tensors."""
    require_count("seed", seed, 0)
    if seed >= 2**62:
        raise ValueError(f"`seed < 2**62` must hold, but got seed={seed}")


def as_plain(value: Any, names: Mapping[int, str] | None = None) -> Any:
    """``value`` as JSON knows it, or what it looks like; a module by its name, of those by id, or else its kind."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (list, tuple)):
        return [as_plain(item, names) for item in value]
    if isinstance(value, Mapping):
        return {str(key): as_plain(item, names) for key, item in value.items()}
    if isinstance(value, Tensor):
        return f"tensor of shape {tuple(value.shape)}"
    if isinstance(value, nn.Module):
        return names.get(id(value), type(value).__name__) if names else type(value).__name__
    return getattr(value, "__name__", None) or repr(value)
