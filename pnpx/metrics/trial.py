"""What a metric measures: the attributions of some samples, and copies of these that lack groups of features."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pnpx.attributors import Value
from pnpx.explainers.covers import Cover
from pnpx.explainers.games import Game


@dataclass(frozen=True)
class Trial:
    """The attributions of some samples, and a game of their groups.

    Attributes:
        values: what is explained.
        maps: the attributions to be judged, or to be compared; of each for each of the values (targets, batch,
            *its sample), in float64 on the CPU.
        make: makes the game, and the cover of its groups: this takes a pass of the model.
        progress: whether to show a progress bar.
        name: what it says.
        parts: for each of the values what part of its attribution an element counts for in its group, in the value's
            shape; None: all of it.
    """

    values: Sequence[Value]
    maps: Sequence[Sequence[Tensor]]
    make: Callable[[], tuple[Game, Cover]]
    progress: bool = False
    name: str = ""
    parts: Callable[[], Sequence[Tensor] | None] = lambda: None

    def elements(self) -> tuple[list[Tensor], Tensor]:
        """Of each of the maps all numbers of a sample, (targets, batch, elements), and which are no padding, (batch,
        elements)."""
        valid = []
        for value, part in zip(self.values, self.maps[0], strict=True):
            there = torch.ones(part.shape[1:], dtype=torch.bool)
            if value.valid is not None:
                steps = value.valid.cpu()
                there &= steps.reshape(*steps.shape, *[1] * (there.ndim - 2))
            valid.append(there.flatten(1))
        return [torch.cat([part.flatten(2) for part in parts], dim=2) for parts in self.maps], torch.cat(valid, dim=1)

    def groups(self) -> tuple[Game, Tensor]:
        """The game, and the sum of the attributions of each group's elements, (targets, batch, groups).

        Each element has the part of its attribution that `parts` says. It is zero behind a sample's own number of
        groups.
        """
        game, cover = self.make()
        shares = self.parts() or [torch.ones(())] * len(self.values)
        widest = max(game.counts, default=0)
        # What each element gets, where each group is worth its number, counted from 1, says which group it belongs to.
        numbers = torch.arange(1.0, widest + 1, dtype=torch.float64).expand(1, len(game.counts), -1)
        (places,) = cover.spread(numbers)
        sums = torch.zeros(len(self.maps[0][0]), len(game.counts), widest + 1, dtype=torch.float64)
        for value, place, part, share in zip(self.values, places, self.maps[0], shares, strict=True):
            index = _front(place, value.axis)
            flat = index.cpu().long().reshape(1, len(index), -1).expand(len(sums), len(game.counts), -1)
            own = part * (_front(share, value.axis) if share.ndim else share).cpu()
            sums.scatter_add_(2, flat, own.flatten(2).expand(-1, len(game.counts), -1))
        return game, sums[:, :, 1:]

    def play(self, game: Game, rows: int, kept: Callable[[int, int], Tensor]) -> Tensor:
        """The scores of so many copies of each sample, (targets, rows, batch), in float64 on the CPU.

        Args:
            game: of `groups`.
            rows: how many copies.
            kept: what some of them keep, (stop - start, batch, groups), from ``start`` and ``stop``.
        """
        return game.played(rows, kept, self.name, self.progress)


def _front(tensor: Tensor, axis: int | None) -> Tensor:
    """``tensor``, of the shape of a value, with the axis of the batch first; a new one where there is none."""
    return tensor[None] if axis is None else tensor.movedim(axis, 0)
