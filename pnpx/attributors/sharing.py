"""Passes that several copies of a batch share, where each of them gets what it would get alone, and only there."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeAlias, TypeVar

import torch
from torch import Tensor

from pnpx.attributors.agreement import close, note, rows_of_output
from pnpx.attributors.beside import Point, alone, far, frame, framed, latest
from pnpx.attributors.decisions import Decisions
from pnpx.attributors.value import Value
from pnpx.scores import Aim
from pnpx.structure import Repeats, Structure

_T = TypeVar("_T")

Check: TypeAlias = Callable[[Any, Sequence[Tensor]], None]
"""Given the model's output for several copies of the batch, and the scores in it: raises an error where they are not
those of passes of one copy."""


class AxesDiffer(RuntimeError):
    """At a place the batch has not the axes that sizes suggest: bind once more, with ``probe=True``."""


class Sharing(ABC):
    """Passes for several copies of a batch, each with its own values at a place; `values` is what is explained there.

    What the first pass of so many copies gives is checked against passes of one copy.
    """

    def __init__(self, batch_size: int) -> None:
        self.batch_size = batch_size
        self.values: list[Value] = []
        self._several_work: bool | None = None  # whether several copies can share a pass; None: not tried yet
        self._proven = 1  # how many copies are known to
        self._assumed = False  # whether the axes of the batch are those that sizes suggest, and nothing has shown it
        self._looks, self.decides = False, False

    @abstractmethod
    def run(self, edited: Sequence[Tensor], copies: Repeats) -> Any:
        """What the model returns when the explained tensors are ``edited``, so many copies of the batch in each.

        Or some samples of it.

        The model is given copies of them: it may change them in place.
        """

    @abstractmethod
    def describe(self) -> str:
        """The place in words, for errors."""

    @property
    def several(self) -> bool:
        """Whether several copies of the batch may share a pass, as far as is known."""
        return self._several_work is not False

    def reconsider(self) -> bool:
        """Find another way to repeat the batch, after one has failed; False where there is none.

        Raises:
            AxesDiffer: what is explained has other axes than was thought.
        """
        return False

    def expected(self, points: Sequence[Point], aim: Aim) -> Sequence[Tensor] | None:
        """Scores that the last samples of `beside.latest` must have, for each target.

        As far as they come to light in passes that are needed anyway, before these points share one.
        """
        return None

    def _shared(self, points: Sequence[Point], aim: Aim, compute: Callable[[Check | None], _T]) -> _T | None:
        """What ``compute`` gives in one pass for all ``points``, checked if it is told how; None where it must not."""
        copies = len(points)
        if self._several_work and copies <= self._proven:
            return compute(None)
        while copies > 1 and self._several_work is not False:
            try:
                expected = self.expected(points, aim)
                if self.decides:
                    self._several_work = False
                    break
                found = compute(partial(self._require_agreement, points, aim, expected))
            except torch.cuda.OutOfMemoryError:
                raise
            except Exception as error:
                note("a pass of several copies of the batch for %s", self.describe(), error)
                # Whatever a model does not like about a batch of another size, it gets one copy at a time. An error
                # that has another cause shows up again there, unhidden.
                if not self.reconsider():
                    self._several_work = False
                self._proven = 1
            else:
                self._several_work, self._proven, self._assumed = True, copies, False
                return found
        if self._assumed:
            self._assumed = False
            self.reconsider()
        return compute(None) if copies == 1 else None

    def _joined(self, points: Sequence[Point]) -> list[Tensor]:
        if len(points) == 1:
            return [tensor.detach().clone() for tensor in points[0]]
        return [
            torch.cat([point[index].detach() for point in points], dim=value.axis or 0)
            for index, value in enumerate(self.values)
        ]

    def _require_agreement(
        self,
        points: Sequence[Point],
        aim: Aim,
        expected: Sequence[Tensor] | None,
        output: Any,
        scores: Sequence[Tensor],
    ) -> None:
        """Require that ``scores``, those of ``points`` in one pass, are those of passes of one copy.

        Those of the last samples of `beside.latest` may be ``expected``.
        """
        with torch.no_grad():
            if expected is not None:
                agrees = self._agree(expected, scores, latest(points, self.values, self.batch_size)[1])
            else:
                agrees = self._same_framed(points, aim, output, scores) or self._same_alone(points, aim, scores)
        if not agrees:
            raise RuntimeError("several copies of the batch in a pass do not give what one gives")

    def _agree(self, expected: Sequence[Tensor], scores: Sequence[Tensor], rows: Sequence[int]) -> bool:
        """Whether the last of these ``rows`` have the ``expected`` scores."""
        return all(
            close(together[rows[-len(some) :]].to(some.device), some, together.detach())
            for some, together in zip(expected, scores, strict=True)
        )

    def _same_framed(self, points: Sequence[Point], aim: Aim, output: Any, scores: Sequence[Tensor]) -> bool:
        """Whether the samples of `beside.latest` have their ``scores`` in the pass of `beside.framed`, too."""
        size, copies = self.batch_size, len(points)
        before, behind = frame(size)
        if size == 1 or before + size + behind >= copies * size:
            return False  # a sample had better be alone, and a pass may not take so many rows
        try:
            batch, of_batch = latest(points, self.values, size)
            point, rows = framed(batch, batch, 0, far(points[0], points[-1]), self.values, size)
            with self.looking():
                found = self.run(point, rows)
            window = range(before, before + size)
            found = rows_of_output(found, len(rows.samples), output, copies * size, window)
            return not self.decides and self._agree(aim.scores(found, 1), scores, of_batch)
        except torch.cuda.OutOfMemoryError:
            raise
        except Exception as error:
            # Not every model takes any number of samples, or values that no explainer would give it.
            note("a pass with samples far from those at %s", self.describe(), error)
            return False

    def _same_alone(self, points: Sequence[Point], aim: Aim, scores: Sequence[Tensor]) -> bool:
        """Whether two copies have their ``scores`` in the passes of `beside.alone`, too: of one copy each.

        Every other sample is far from them there: not even what else is in a batch of the model's own may matter.
        """
        # Of three or more not the first: it has the rows that it has alone.
        copies = {0: points[0], 1: points[-1]} if len(points) == 2 else {1: points[1], len(points) - 1: points[-1]}
        try:
            return self._same_beside(copies, far(points[0], points[-1]), aim, scores)
        except torch.cuda.OutOfMemoryError:
            raise
        except Exception as error:
            # A model may refuse values that no explainer would give it.
            note("a pass with values far from those at %s", self.describe(), error)
            return self._same_beside(copies, None, aim, scores)

    def _same_beside(
        self, copies: dict[int, Point], others: tuple[Point, Point] | None, aim: Aim, scores: Sequence[Tensor]
    ) -> bool:
        for point, met in alone(copies, others, self.values, self.batch_size):
            with self.looking():
                output = self.run(self._joined([point]), 1)
            if self.decides:
                return False
            for single, together in zip(aim.scores(output, 1), scores, strict=True):
                for chosen, copy in met:
                    chosen = chosen.to(single.device)
                    if not close(single[chosen], together[copy][chosen], together.detach()):
                        return False
        return True

    @contextmanager
    def looking(self) -> Iterator[None]:
        """See in the passes run meanwhile whether the model `decides` by numbers what to run."""
        self._looks = True
        try:
            yield
        finally:
            self._looks = False

    @contextmanager
    def followed(self, given: Structure) -> Iterator[None]:
        """Around the model's call with ``given`` at the place; see `looking`."""
        if not self._looks:
            yield
            return
        with Decisions(given) as decisions:
            yield
        self.decides = self.decides or decisions.made
