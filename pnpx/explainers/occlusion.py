"""What the score loses where one group of features, or one window, is replaced."""

from dataclasses import KW_ONLY, dataclass
from typing import Any

import torch
from torch import Tensor

from pnpx.attributors import Bound
from pnpx.explainers.covers import Cover, Windows
from pnpx.explainers.games import Design
from pnpx.explainers.perturbation import PerturbationExplainer
from pnpx.extractors import Call


class _OneOff(Design):
    """One group after the other is off."""

    def __init__(self, groups: int) -> None:
        self.rows = groups

    def kept(self, start: int, stop: int) -> Tensor:
        kept = torch.ones(stop - start, self.rows, dtype=torch.bool)
        kept[torch.arange(stop - start), torch.arange(start, stop)] = False
        return kept

    def worth(self, scores: Tensor, clean: Tensor) -> Tensor:
        return clean[:, None] - scores


class FeatureAblation(PerturbationExplainer):
    """The score less that with a group of features replaced, for one group at a time (Covert, Lundberg and Lee, 2021,
    arXiv:2011.14878).

    ``groups``, ``baseline`` and ``replacement`` are those of `PerturbationExplainer`, the rest those of `Explainer`.

    >>> model = torch.nn.Linear(2, 1, bias=False)
    >>> _ = model.weight.data.copy_(torch.tensor([[3.0, -1.0]]))
    >>> FeatureAblation(model).attribute(torch.tensor([[2.0, 5.0]]))
    tensor([[ 6., -5.]])
    """

    def design(self, groups: int) -> Design:
        return _OneOff(groups)


@dataclass(frozen=True)
class Occlusion(FeatureAblation):
    """The score less that with a part hidden (Zeiler and Fergus, 2014, arXiv:1311.2901).

    The part is a group of features, or a window that slides over the positions of an image, a series or a sequence of
    tokens, with all their channels. An element under several windows gets the mean of what they are worth.

    Args:
        window: how long the window is: an int, or one for each axis of positions, such as (height, width); None:
            groups are hidden.
        stride: how far it moves, likewise; None: as far as it is long.

    ``groups``, ``baseline`` and ``replacement`` are those of `PerturbationExplainer`, the rest those of `Explainer`.
    """

    _: KW_ONLY
    window: int | tuple[int, ...] | None = None
    stride: int | tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.window is not None and self.groups is not None:
            raise ValueError("Occlusion hides either groups or windows, but both were given; leave one out")
        if self.stride is not None and self.window is None:
            raise ValueError(f"a stride is that of a window, but stride={self.stride!r} was given without window")
        for name in ("window", "stride"):
            given = getattr(self, name)
            sizes = given if isinstance(given, (tuple, list)) else [1 if given is None else given]
            if not sizes or any(isinstance(size, bool) or not isinstance(size, int) for size in sizes):
                raise TypeError(f"{name} must be an int or a tuple of them, but got {given!r}")
            if min(sizes) < 1:
                raise ValueError(f"`{name} >= 1` must hold, but got {name}={given!r}")

    def cover(self, bound: Bound, reference: Call | None) -> Cover:
        """The windows, or the groups, at the place."""
        if self.window is None:
            return super().cover(bound, reference)
        return Windows(bound.values, _tuple(self.window), _tuple(self.stride), self._channels)


def _tuple(given: Any) -> Any:
    """A list, as configurations have it, as a tuple."""
    return tuple(given) if isinstance(given, list) else given
