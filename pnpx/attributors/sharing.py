"""Passes that several copies of a batch share, where each of them gets what it would get alone, and only there."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any, TypeAlias, TypeVar

import torch
from torch import Tensor

from pnpx.attributors.agreement import close, note
from pnpx.attributors.beside import Point, alone, far, met
from pnpx.attributors.decisions import Decisions
from pnpx.attributors.value import Value
from pnpx.scores import Aim
from pnpx.structure import Structure

_T = TypeVar("_T")

Check: TypeAlias = Callable[[Sequence[Tensor]], None]
"""Given the scores of several copies of the batch that share a pass, raises an error where they are not those of passes
of one copy."""


Make: TypeAlias = Callable[[], Sequence[Tensor]]
"""Makes the explained tensors of a pass, new ones each time."""


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
        self.most: int | None = None
        """How many copies can share a pass at most, where it has turned out that not any number can."""
        self._assumed = False  # whether the axes of the batch are those that sizes suggest, and nothing has shown it
        self._looks, self.decides = False, False

    @abstractmethod
    def run(self, make: Make, copies: int) -> Any:
        """What the model returns when the explained tensors are made by ``make``, so many copies of the batch in each.

        The model may change them in place; where it has to run once more, they are made anew.
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
        """Scores that the last samples of `beside.met` must have, for each target; None where nothing is known.

        They come from a pass in which these stood elsewhere, and beside others. That pass, or an earlier one of its
        kind, gave what the model gives for the batch itself, too.
        """
        return None

    def expect_otherwise(self) -> bool:
        """Find what is `expected` in another way, after what was has not been met; False where there is none."""
        return False

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
                if self.expect_otherwise():
                    continue
                # Whatever a model does not like about a batch of another size, it gets one copy at a time. An error
                # that has another cause shows up again there, unhidden.
                if self._proven > 1:  # so many can
                    self.most = self._proven
                    return None
                if not self.reconsider():
                    self._several_work = False
            else:
                self._several_work, self._proven, self._assumed = True, copies, False
                return found
        if self._assumed:
            self._assumed = False
            self.reconsider()
        return compute(None) if copies == 1 else None

    def _parts(self, points: Sequence[Point]) -> list[Sequence[Point]]:
        """``points`` in as many as can share a pass: one, unless it has turned out how many can."""
        count = self.most if self.most is not None and self.several else 1
        return [points[start : start + count] for start in range(0, len(points), count)]

    def _joined(self, points: Sequence[Point]) -> list[Tensor]:
        """The explained tensors for all ``points``, new ones; where gradients are enabled, computed from some.

        So the model may change them in place, which it could not if a gradient were asked for at them themselves.
        """
        joined = []
        for index, value in enumerate(self.values):
            parts = [point[index].detach() for point in points]
            if torch.is_grad_enabled():
                if parts[0].is_inference() or not parts[0].is_floating_point():
                    parts[0] = parts[0].to(value.tensor.dtype, copy=True)
                parts[0].requires_grad_()
            joined.append(parts[0].clone() if len(parts) == 1 else torch.cat(parts, dim=value.axis or 0))
        return joined

    def _require_agreement(
        self,
        points: Sequence[Point],
        aim: Aim,
        expected: Sequence[Tensor] | None,
        scores: Sequence[Tensor],
    ) -> None:
        """Require that the ``scores`` of ``points`` in one pass are as ``expected``, or else those in passes of one."""
        with torch.no_grad():
            if expected is None:
                agrees = self._same_alone(points, aim, scores)
            else:
                _, rows = met(points, self.values, self.batch_size)
                agrees = all(
                    close(together[rows[-len(some) :]].to(some.device), some, together.detach())
                    for some, together in zip(expected, scores, strict=True)
                )
        if not agrees:
            raise RuntimeError("several copies of the batch in a pass do not give what one gives")

    def _same_alone(self, points: Sequence[Point], aim: Aim, scores: Sequence[Tensor]) -> bool:
        """Whether samples have their ``scores`` in the passes of `beside.alone`, too.

        Every other sample is far from them there: not even what else is in a batch of the model's own may matter.
        """
        try:
            return self._same_beside(points, far(points[0], points[-1]), aim, scores)
        except torch.cuda.OutOfMemoryError:
            raise
        except Exception as error:
            # A model may refuse values that no explainer would give it.
            note("a pass with values far from those at %s", self.describe(), error)
            return self._same_beside(points, None, aim, scores)

    def _same_beside(
        self, points: Sequence[Point], others: tuple[Point, Point] | None, aim: Aim, scores: Sequence[Tensor]
    ) -> bool:
        for point, chosen, rows in alone(points, others, self.values, self.batch_size):
            with self.looking():
                output = self.run(partial(self._joined, [point]), 1)
            if self.decides:
                return False
            for single, together in zip(aim.scores(output, 1), scores, strict=True):
                found = single[chosen.to(single.device)]
                if not close(found, together[rows.to(together.device)], together.detach()):
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

    def followed(self, given: Structure) -> AbstractContextManager[None]:
        """Around the model's call with ``given`` at the place; see `looking`."""
        return self._following(given) if self._looks else nullcontext()

    @contextmanager
    def _following(self, given: Structure) -> Iterator[None]:
        with Decisions(given) as decisions:
            yield
        self.decides = self.decides or decisions.made
