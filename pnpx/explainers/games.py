"""What explainers and metrics play that change groups of features: designs of edited copies, and games that score."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from pnpx.attributors import Bound
from pnpx.explainers.covers import Cover
from pnpx.scores import Aim


class Design(ABC):
    """Edited copies of a sample with so many groups, and what their scores say of each group."""

    rows: int
    """How many copies."""

    @abstractmethod
    def kept(self, start: int, stop: int) -> Tensor:
        """What these copies keep of each group, (stop - start, groups): bools, or floats from 0, nothing, to 1, all."""

    @abstractmethod
    def worth(self, scores: Tensor, clean: Tensor) -> Tensor:
        """What each group is worth, (n, groups), from the ``scores`` of the copies, (n, rows), and of the sample
        itself, (n,), all in float64 on the CPU."""


class Game(ABC):
    """The scores of copies of samples of which only some groups are kept.

    Attributes:
        counts: how many groups each sample has.
        clean: the scores of the samples themselves, (targets, batch).
    """

    counts: Sequence[int]
    clean: Tensor

    @property
    @abstractmethod
    def copies(self) -> int:
        """How many copies of each sample may share a pass."""

    @abstractmethod
    def play(self, kept: Tensor) -> Tensor:
        """The scores, (targets, copies, batch), of copies that keep ``kept`` of the groups, (copies, batch, groups).

        ``kept`` is of bools or floats, on the CPU; what lies behind the number of groups of a sample is kept.
        """

    def played(self, rows: int, kept: Callable[[int, int], Tensor], name: str, progress: bool) -> Tensor:
        """The scores of so many copies, (targets, rows, batch), in float64 on the CPU, in as many passes as it takes.

        Args:
            rows: how many copies.
            kept: from ``start`` and ``stop`` to what these copies keep, (stop - start, batch, groups).
            name: whose they are, for the progress bar.
            progress: whether there is one.
        """
        from tqdm.auto import tqdm

        scores = [torch.zeros(len(self.clean), 0, len(self.counts), dtype=torch.float64)]
        start, limit = 0, rows
        with tqdm(total=rows, desc=name, unit="copy", leave=False, disable=not progress) as bar:
            while start < rows:
                stop = min(start + min(self.copies, limit), rows)
                try:
                    scores.append(self.play(kept(start, stop)).to("cpu", torch.float64))
                except torch.cuda.OutOfMemoryError:
                    if stop - start == 1:
                        raise
                    torch.cuda.empty_cache()
                    limit = (stop - start) // 2
                    continue
                bar.update(stop - start)
                start = stop
        return torch.cat(scores, dim=1)


class PlaceGame(Game):
    """The game at a place: what is not kept is replaced.

    Args:
        bound: the place.
        aim: the scores.
        cover: the groups.
        absent: what replaces each tensor, of its shape. Between all and nothing, floats are blended, and what is not
            float is kept from a half on.
        batch_size: the most rows in a pass.
    """

    def __init__(self, bound: Bound, aim: Aim, cover: Cover, absent: Sequence[Tensor], batch_size: int) -> None:
        self._bound, self._aim, self._cover, self._absent = bound, aim, cover, absent
        self._rows = batch_size
        self.counts = cover.counts
        self.clean = torch.stack(aim.scores(bound.output, 1)).detach()

    @property
    def copies(self) -> int:
        return max(1, self._rows // self._bound.batch_size) if self._bound.several else 1

    def play(self, kept: Tensor) -> Tensor:
        parts = []
        for value, keep, absent in zip(self._bound.values, self._cover.keeps(kept), self._absent, strict=True):
            if keep.dtype == torch.bool or not value.tensor.is_floating_point():
                edited = torch.where(keep >= 0.5 if keep.dtype != torch.bool else keep, value.tensor, absent)
            else:
                # Where all is kept there must be the value itself, also where it is infinite.
                blend = absent + keep.to(absent.dtype) * (value.tensor - absent)
                edited = torch.where(keep == 1, value.tensor, blend)
            parts.append(edited.unbind(0))
        return self._bound.scores(list(zip(*parts, strict=True)), self._aim)
