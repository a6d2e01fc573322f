"""Scores by a function of the user's own."""

from typing import Any

import torch
from torch import Tensor

from pnpx.scores.aim import Aim
from pnpx.scores.outputs import OutputReader, ScoreFunction, check_rows, split_copies
from pnpx.structure import tensors


class Custom(Aim):
    """Scores by the user's own function, which always sees the batch as the user gave it."""

    def __init__(self, reader: OutputReader, function: ScoreFunction, companion: Any, batch_size: int) -> None:
        self._reader, self._function = reader, function
        self._companion, self._batch_size = companion, batch_size

    def scores(self, output: Any, copies: int) -> list[Tensor]:
        read = self._reader.read(output)
        for tensor in tensors(read)[:1] if not isinstance(read, list) else ():
            check_rows(tensor, copies * self._batch_size)
        return [torch.cat([self._score(part) for part in split_copies(read, copies, self._batch_size)])]

    def _score(self, output: Any) -> Tensor:
        score = self._function(output, self._companion)
        if not isinstance(score, Tensor) or score.shape != (self._batch_size,) or not score.is_floating_point():
            what = (
                f"a tensor of shape {tuple(score.shape)} and {score.dtype}"
                if isinstance(score, Tensor)
                else repr(score)
            )
            raise TypeError(
                f"a callable score must return one float a sample, a tensor of shape ({self._batch_size},), "
                f"but returned {what}"
            )
        return score
