"""Readings put together for a pass of the model: which of them, and how short ones are filled up."""

from collections.abc import Hashable, Iterator, Sequence

import torch
from torch import Tensor

from pnpx.text.unpadded import Reading


def padded(readings: Sequence[Reading], pad: int) -> dict[str, Tensor]:
    """What the model is called with: (batch, length) each, short texts filled up on the right with ``pad``."""
    length = max(len(reading) for reading in readings)

    def stack(rows: list[Tensor], filling: int) -> Tensor:
        return torch.stack([torch.nn.functional.pad(row, (0, length - len(row)), value=filling) for row in rows])

    batch = {
        "input_ids": stack([reading.ids for reading in readings], pad),
        "attention_mask": stack([torch.ones_like(reading.ids) for reading in readings], 0),
    }
    for name in readings[0].extras:
        batch[name] = stack([reading.extras[name] for reading in readings], 0)
    return batch


def together(lengths: Sequence[int], kinds: Sequence[Hashable], sizes: Sequence[int]) -> Iterator[list[int]]:
    """Which texts share a pass: of one kind, of like length, lest padding cost much, and no more than a size.

    >>> list(together([9, 40, 8, 41], ["a", "a", "a", "a"], [2, 2, 2, 2]))
    [[2, 0], [1, 3]]

    Args:
        lengths: of each text.
        kinds: of each; texts of different kinds do not go together.
        sizes: for each, the most texts that may be with it.
    """
    groups: dict[Hashable, list[int]] = {}
    for index, kind in enumerate(kinds):
        groups.setdefault(kind, []).append(index)
    for group in groups.values():
        group.sort(key=lambda index: lengths[index])
        while group:
            longest = 1.5 * lengths[group[0]] + 8
            fitting = [index for index in group[: sizes[group[0]]] if lengths[index] <= longest]
            yield fitting
            group[:] = group[len(fitting) :]
