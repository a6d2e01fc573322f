"""Taking gradients of a model's scores at one place: what the places have in common."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from pnpx.attributors.agreement import close, note
from pnpx.attributors.backward import Backward
from pnpx.attributors.beside import Point, alone, far
from pnpx.attributors.decisions import Decisions
from pnpx.attributors.passes import repeat
from pnpx.attributors.value import Value
from pnpx.extractors import Call
from pnpx.scores import Aim
from pnpx.structure import Structure, is_packed, mirror, tensors, valid_steps

_T = TypeVar("_T")


class Attributor(ABC):
    """Takes gradients of scores at one place of a model."""

    @abstractmethod
    def at(
        self, call: Call, *, graph: bool = False, floats: bool = True, rows: int = 1
    ) -> "AbstractContextManager[Bound]":
        """Bind to one call of the model.

        With ``graph`` the pass that finds the clean values can be differentiated once, by `Bound.clean_gradients`.
        Without ``floats`` other tensors are explained as well, such as token ids: for scores, which need no gradients.
        ``rows`` is how many samples a pass may take, for passes that find out about the model.
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
        self._looks, self.decides = False, False
        self._backward = Backward()

    # What the kinds of places differ in.

    @property
    @abstractmethod
    def output(self) -> Any:
        """What the model returns for the call itself; without gradients, unless bound with ``graph``."""

    @abstractmethod
    def run(self, edited: Sequence[Tensor], copies: int) -> Any:
        """What the model returns when the explained tensors are ``edited``, so many copies of the batch in each.

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

    def all_tensors(self, explained: Sequence[Tensor], copies: int, axes: Sequence[int | None]) -> list[Tensor]:
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
        found = self._shared(points, lambda check: self._gradients(points, aim, check))
        if found is not None:
            return found
        singles = [self._gradients([point], aim) for point in points]
        return [
            [torch.cat(parts) for parts in zip(*of_one_target, strict=True)]
            for of_one_target in zip(*singles, strict=True)
        ]

    def _shared(self, points: Sequence[Point], compute: Callable[[bool], _T]) -> _T | None:
        """What ``compute`` gives in one pass for all ``points``, checked if it is told so; None where it must not."""
        copies = len(points)
        if copies == 1 or (self._several_work and copies <= self._proven):
            return compute(False)
        if self._several_work is None and self.several_agree(points[0]):
            self._several_work, self._proven = True, 2
        while self._several_work is not False:
            try:
                found = compute(copies > self._proven)
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
                self._several_work, self._proven = True, copies
                return found
        return None

    def _gradients(self, points: Sequence[Point], aim: Aim, check: bool = False) -> list[list[Tensor]]:
        copies = len(points)
        edited = self._joined(points)
        with torch.enable_grad():
            for tensor in edited:
                tensor.requires_grad_()
            scores = aim.scores(self.run(edited, copies), copies)
            if check:
                self._require_agreement(scores, points, aim)
            found = self._backward.gradients(scores, edited, self.describe())
        return [
            [self._separated(gradient, value, copies) for gradient, value in zip(gradients, self.values, strict=True)]
            for gradients in found
        ]

    def _require_agreement(self, scores: Sequence[Tensor], points: Sequence[Point], aim: Aim) -> None:
        """Require that ``scores``, those of ``points`` in one pass, are those of passes of one copy.

        Every other sample is far from them there: not even what else is in a batch of the model's own may matter.
        Where that is known already of fewer copies, the others may be near.
        """
        # Of three or more not the first: it has the rows that it has alone.
        copies = {0: points[0], 1: points[-1]} if len(points) == 2 else {1: points[1], len(points) - 1: points[-1]}
        with torch.no_grad():
            try:
                if self._proven > 1:
                    agrees = self._same_alone(scores, copies, None, aim)
                else:
                    agrees = self._same_alone(scores, copies, far(points[0], points[-1]), aim)
            except torch.cuda.OutOfMemoryError:
                raise
            except Exception as error:
                # A model may refuse values that no explainer would give it.
                note("a pass with values far from those at %s", self.describe(), error)
                agrees = self._same_alone(scores, copies, None, aim)
        if not agrees:
            raise RuntimeError("several copies of the batch in a pass do not give what one gives")

    def _same_alone(
        self, scores: Sequence[Tensor], copies: dict[int, Point], others: tuple[Point, Point] | None, aim: Aim
    ) -> bool:
        """Whether the samples of two of the ``copies`` have those ``scores`` in the passes of `beside.alone`."""
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
        found = self._shared(points, lambda check: self._scores(points, aim, check))
        return torch.cat([self._scores([point], aim) for point in points], dim=1) if found is None else found

    def _scores(self, points: Sequence[Point], aim: Aim, check: bool = False) -> Tensor:
        copies = len(points)
        with torch.no_grad():
            scores = aim.scores(self.run(self._joined(points), copies), copies)
            if check:
                self._require_agreement(scores, points, aim)
        return torch.stack(scores).reshape(len(scores), copies, -1)

    def several_agree(self, point: Point) -> bool:
        """Whether it is known, or can be found at less than the cost of a check, that copies may share a pass.

        ``point`` is one that the place is going to be moved to.
        """
        return False

    @property
    def several(self) -> bool:
        """Whether several copies of the batch may share a pass, as far as is known."""
        return self._several_work is not False

    def reconsider(self) -> bool:
        """Find another way to repeat the batch, after one has failed; False where there is none."""
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
