"""Parameters that can be tuned: a field's default and its search range, declared in one line."""

from dataclasses import dataclass, field, fields
from typing import Any


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
