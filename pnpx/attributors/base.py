"""Taking gradients of a model's scores at one place: what the places have in common."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge

from pnpx.attributors.attributes import Attributes
from pnpx.attributors.backward import Backward
from pnpx.attributors.beside import Point
from pnpx.attributors.held import Beside, held_bytes, weight_bytes
from pnpx.attributors.passes import repeat
from pnpx.attributors.sharing import Check, Sharing
from pnpx.attributors.value import Value
from pnpx.extractors import Call
from pnpx.scores import Aim
from pnpx.structure import Repeats, Structure, is_packed, mirror, tensors, valid_steps


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
        right; if not, the bound place raises `sharing.AxesDiffer`. True: always.
        """


class Bound(Sharing):
    """The place in one call of a model, ready to take gradients there.

    ``place`` is what was found there, and ``values`` its tensors that are explained.
    """

    def __init__(self, model: nn.Module, call: Call) -> None:
        super().__init__(call.batch_size)
        self.model, self.call = model, call
        self.attributes = Attributes(model)
        self.place: Structure = None
        self._chosen: list[int] = []
        self._anchors: list[Tensor] = []
        self._backward = Backward()
        self.held: int | None = None
        """About how many bytes a pass takes for each point; None where `measure` was not asked for, or cannot tell."""
        self._measures: int | None = None

    # What the kinds of places differ in.

    @property
    @abstractmethod
    def output(self) -> Any:
        """What the model returns for the call itself; without gradients, unless bound with ``graph``."""

    @abstractmethod
    def differentiable(self) -> Any:
        """That once more, to be differentiated by the anchors."""

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

    @property
    def weights_read(self) -> int:
        """About how many bytes of weights a pass reads, however many rows it has; see `held.weight_bytes`."""
        return weight_bytes(self.model)

    def measure(self, most: int) -> None:
        """Find out in the next pass that is differentiated what is `held`, up to ``most`` bytes for each point."""
        self._measures = most

    def gradients(self, points: Sequence[Point], aim: Aim) -> list[list[Tensor]]:
        """The gradients at ``points``: for each target, for each explained tensor, (points, *its shape).

        All points share one pass, unless the model cannot take several copies of the batch at once. That is found out
        with the first chunk: see `Sharing`.
        """
        found = self._shared(points, aim, partial(self._gradients, points, aim))
        if found is not None:
            return found
        parts = [self._gradients(some, aim) for some in self._parts(points)]
        return [
            [torch.cat(some) for some in zip(*of_one_target, strict=True)] for of_one_target in zip(*parts, strict=True)
        ]

    def _gradients(self, points: Sequence[Point], aim: Aim, check: Check | None = None) -> list[list[Tensor]]:
        copies = len(points)
        edges: list[GradientEdge] = []

        def make() -> list[Tensor]:
            joined = self._joined(points)
            edges[:] = map(get_gradient_edge, joined)  # what they are now, whatever the model makes of them in place
            return joined

        with ExitStack() as alone, torch.enable_grad():
            alone.enter_context(self.attributes.alone())
            with Beside() if self._measures else nullcontext() as beside:
                output = self.run(make, copies)
            if not self.attributes.may_keep:
                alone.close()  # a user's own score may wait for another thread that explains
            scores = aim.scores(output, copies)
            if beside is not None:
                self._note_held(scores, copies, beside)
            found = self._backward.gradients(scores, edges, self.describe())
            if check is not None:  # in other passes, so that this one is over first
                check([score.detach() for score in scores])
        return [
            [self._separated(gradient, value, copies) for gradient, value in zip(gradients, self.values, strict=True)]
            for gradients in found
        ]

    def _note_held(self, scores: Sequence[Tensor], copies: int, beside: Beside) -> None:
        held = held_bytes(scores, copies * (self._measures or 0))
        self.held = None if held is None else (held + beside.total) // copies
        self._measures = None

    def clean_gradients(self, aim: Aim) -> list[list[Tensor]]:
        """The gradients at the clean values: for each target, for each explained tensor, (1, *its shape).

        Can be called once, after binding with ``graph``.
        """
        with ExitStack() as alone, torch.enable_grad():
            alone.enter_context(self.attributes.alone())
            output = self.output
            if self.attributes.kept:  # passes meanwhile have put back what the first has noted
                output = self.differentiable()
            if not self.attributes.may_keep:
                alone.close()  # see `_gradients`
            found = self._backward.gradients(aim.scores(output, 1), self._anchors, self.describe())
        return [
            [self._separated(gradient, value, 1) for gradient, value in zip(gradients, self.values, strict=True)]
            for gradients in found
        ]

    def scores(self, points: Sequence[Point], aim: Aim) -> Tensor:
        """The scores at ``points``, without gradients: (targets, points, batch); in shared passes as `gradients`."""
        found = self._shared(points, aim, partial(self._scores, points, aim))
        return torch.cat([self._scores(some, aim) for some in self._parts(points)], 1) if found is None else found

    def _scores(self, points: Sequence[Point], aim: Aim, check: Check | None = None) -> Tensor:
        copies = len(points)
        with torch.no_grad():
            scores = aim.scores(self.run(partial(self._joined, points), copies), copies)
            if check is not None:
                check(scores)
        return torch.stack(scores).reshape(len(scores), copies, -1)

    @staticmethod
    def _separated(gradient: Tensor | None, value: Value, copies: int) -> Tensor:
        """The gradient of each copy, (copies, *shape of the value): zeros where there is none."""
        if gradient is None:
            return value.tensor.new_zeros(copies, *value.tensor.shape)
        if copies == 1:
            return gradient[None]
        axis = value.axis or 0
        split = (*gradient.shape[:axis], copies, value.tensor.shape[axis], *gradient.shape[axis + 1 :])
        return gradient.reshape(split).movedim(axis, 0)
