"""Taking gradients of a model's scores at one place: what the places have in common."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any, TypeAlias, TypeVar

import torch
from torch import Tensor, nn

from pnpx.attributors.agreement import close, note, rows_of_output
from pnpx.attributors.backward import Backward
from pnpx.attributors.beside import Point, alone, far, frame, framed, latest
from pnpx.attributors.decisions import Decisions
from pnpx.attributors.passes import repeat
from pnpx.attributors.value import Value
from pnpx.extractors import Call
from pnpx.scores import Aim
from pnpx.structure import Repeats, Structure, is_packed, mirror, tensors, valid_steps

_T = TypeVar("_T")

Check: TypeAlias = Callable[[Any, Sequence[Tensor]], None]
"""Given the model's output for several copies of the batch, and the scores in it: raises an error where they are not
those of passes of one copy."""


class AxesDiffer(RuntimeError):
    """At a place the batch has not the axes that sizes suggest: bind once more, with ``probe=True``."""


class Attributor(ABC):
    """Takes gradients of scores at one place of a model."""

    @abstractmethod
    def at(
        self, call: Call, *, graph: bool = False, floats: bool = True, probe: bool | None = None
    ) -> "AbstractContextManager[Bound]":
        """Bind to one call of the model.

        With ``graph`` the pass that finds the clean values can be differentiated once, by `Bound.clean_gradients`.
        Without ``floats`` other tensors are explained as well, such as token ids: for scores, which need no gradients.
        ``probe`` says whether a pass of another number of samples finds the axes of the batch. None: where sizes do not
        tell. False: nor where sizes suggest them, since passes of several copies are going to show whether they are
        right; if not, the bound place raises `AxesDiffer`. True: always.
        """


class Bound(ABC):
    """The place in one call of a model, ready to take gradients there.

    ``place`` is what was found there, and ``values`` its tensors that are explained.
    """

    def __init__(self, model: nn.Module, call: Call) -> None:
        self.model, self.call = model, call
        self.batch_size = call.batch_size
        self.place: Structure = None
        self.values: list[Value] = []
        self._chosen: list[int] = []
        self._anchors: list[Tensor] = []
        self._several_work: bool | None = None  # whether several copies can share a pass; None: not tried yet
        self._proven = 1  # how many copies are known to
        self._assumed = False  # whether the axes of the batch are those that sizes suggest, and nothing has shown it
        self._looks, self.decides = False, False
        self._backward = Backward()

    # What the kinds of places differ in.

    @property
    @abstractmethod
    def output(self) -> Any:
        """What the model returns for the call itself; without gradients, unless bound with ``graph``."""

    @abstractmethod
    def run(self, edited: Sequence[Tensor], copies: Repeats) -> Any:
        """What the model returns when the explained tensors are ``edited``, so many copies of the batch in each.

        Or some samples of it.

        The model is given copies of them: it may change them in place.
        """

    @abstractmethod
    def activations(self, call: Call) -> list[Tensor]:
        """The explained tensors, as the model computes them for another call."""

    # What they share.

    def _found(self, place: Structure, chosen: list[int], anchors: list[Tensor], axes: Sequence[int | None]) -> None:
        """Note what was found at the place: its structure, which tensors are explained, and their batch axes."""
        leaves, valid = tensors(place), valid_steps(place)
        steps = self.call.steps
        if steps is not None:
            fits = [axes[index] == 0 and leaf.shape[:2] == steps.shape for index, leaf in enumerate(leaves)]
            valid = [steps if own is None and fit else own for own, fit in zip(valid, fits, strict=True)]
        self.place, self._chosen, self._anchors = place, chosen, anchors
        self.values = [Value(leaves[index].detach(), axes[index], valid[index]) for index in chosen]
        if any(value.axis is None for value in self.values):
            self._several_work = False

    def all_tensors(self, explained: Sequence[Tensor], copies: Repeats, axes: Sequence[int | None]) -> list[Tensor]:
        """Every tensor at the place: those explained as given, the others repeated."""
        given = dict(zip(self._chosen, explained, strict=True))
        return [
            given[index] if index in given else repeat(leaf, copies, axis)
            for index, (leaf, axis) in enumerate(zip(tensors(self.place), axes, strict=True))
        ]

    def mirrored(self, explained: Sequence[Tensor]) -> Structure:
        """``explained`` in the structure of the place; None for what is not explained."""
        given = dict(zip(self._chosen, explained, strict=True))
        return mirror(self.place, [given.get(index) for index in range(len(is_packed(self.place)))])

    def gradients(self, points: Sequence[Point], aim: Aim) -> list[list[Tensor]]:
        """The gradients at ``points``: for each target, for each explained tensor, (points, *its shape).

        All points share one pass, unless the model cannot take several copies of the batch at once. That is found out
        with the first chunk: its rows must be those of a pass of one copy.
        """
        found = self._shared(points, aim, partial(self._gradients, points, aim))
        if found is not None:
            return found
        singles = [self._gradients([point], aim) for point in points]
        return [
            [torch.cat(parts) for parts in zip(*of_one_target, strict=True)]
            for of_one_target in zip(*singles, strict=True)
        ]

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

    def _gradients(self, points: Sequence[Point], aim: Aim, check: Check | None = None) -> list[list[Tensor]]:
        copies = len(points)
        edited = self._joined(points)
        with torch.enable_grad():
            for tensor in edited:
                tensor.requires_grad_()
            output = self.run(edited, copies)
            scores = aim.scores(output, copies)
            if check is not None:
                check(output, scores)
            del output  # what the scores do not need of it may go
            found = self._backward.gradients(scores, edited, self.describe())
        return [
            [self._separated(gradient, value, copies) for gradient, value in zip(gradients, self.values, strict=True)]
            for gradients in found
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

    def clean_gradients(self, aim: Aim) -> list[list[Tensor]]:
        """The gradients at the clean values: for each target, for each explained tensor, (1, *its shape).

        Can be called once, after binding with ``graph``.
        """
        with torch.enable_grad():
            found = self._backward.gradients(aim.scores(self.output, 1), self._anchors, self.describe())
        return [[gradient[None] for gradient in gradients] for gradients in found]

    def scores(self, points: Sequence[Point], aim: Aim) -> Tensor:
        """The scores at ``points``, without gradients: (targets, points, batch); in shared passes as `gradients`."""
        found = self._shared(points, aim, partial(self._scores, points, aim))
        return torch.cat([self._scores([point], aim) for point in points], dim=1) if found is None else found

    def _scores(self, points: Sequence[Point], aim: Aim, check: Check | None = None) -> Tensor:
        copies = len(points)
        with torch.no_grad():
            output = self.run(self._joined(points), copies)
            scores = aim.scores(output, copies)
            if check is not None:
                check(output, scores)
        return torch.stack(scores).reshape(len(scores), copies, -1)

    def expected(self, points: Sequence[Point], aim: Aim) -> Sequence[Tensor] | None:
        """Scores that the last samples of `beside.latest` must have, for each target.

        As far as they come to light in passes that are needed anyway, before these points share one.
        """
        return None

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

    def _joined(self, points: Sequence[Point]) -> list[Tensor]:
        if len(points) == 1:
            return [tensor.detach().clone() for tensor in points[0]]
        return [
            torch.cat([point[index].detach() for point in points], dim=value.axis or 0)
            for index, value in enumerate(self.values)
        ]

    @staticmethod
    def _separated(gradient: Tensor, value: Value, copies: int) -> Tensor:
        if copies == 1:
            return gradient[None]
        axis = value.axis or 0
        split = (*gradient.shape[:axis], copies, value.tensor.shape[axis], *gradient.shape[axis + 1 :])
        return gradient.reshape(split).movedim(axis, 0)

    @abstractmethod
    def describe(self) -> str:
        """The place in words, for errors."""
