"""Gradients inside a model: at inputs or outputs of its modules, or at some of its forward arguments."""

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from math import isnan
from typing import Any

import torch
from torch import Tensor, nn

from pnpx.attributors.again import Again, argument, location
from pnpx.attributors.agreement import note, rows_of_output, same, warn_unsteady
from pnpx.attributors.base import Attributor, Bound
from pnpx.attributors.batch import copies_of, rows_of_call
from pnpx.attributors.beside import Frames, Point
from pnpx.attributors.first import FirstPass, remedy
from pnpx.attributors.guard import unchecked, uncompiled
from pnpx.attributors.held import weight_bytes
from pnpx.attributors.intercept import wrapped
from pnpx.attributors.needed import Watch, reads
from pnpx.attributors.passes import concerned, enclosing
from pnpx.attributors.places import ArgumentPlace, ModulePlace, Place
from pnpx.attributors.recording import Recording
from pnpx.attributors.repeating import Axes, Sizes, axes_of, axes_seen
from pnpx.attributors.replay import Overwritten
from pnpx.attributors.sharing import AxesDiffer, Make
from pnpx.attributors.value import explainable
from pnpx.extractors import Call
from pnpx.scores import Aim
from pnpx.structure import Repeats, Structure, rebuild, tensors


@dataclass(frozen=True)
class LayerAttributor(Attributor):
    """Takes gradients at one or several places of a model at once.

    Args:
        model: what is explained.
        places: where.
        output_layer: where the scores are read, if not at the model's end.
        several: whether the places were given as a sequence, so that what is found there is a tuple.
        replay: leave out what need not run again; False to run the whole model for every sample.
    """

    model: nn.Module
    places: tuple[Place, ...]
    output_layer: ModulePlace | None = None
    several: bool = False
    replay: bool = True

    @contextmanager
    def at(
        self, call: Call, *, graph: bool = False, floats: bool = True, probe: bool | None = None
    ) -> Iterator["LayerBound"]:
        places = [place for place in self.places if isinstance(place, ModulePlace)]
        around = enclosing(self.model, places)
        modules_seen = concerned(self.model, around, places, self.output_layer)
        with uncompiled(), unchecked(), wrapped(modules_seen) as modules:
            yield LayerBound(self, call, modules, around, graph, floats, probe)


class LayerBound(Bound):
    """Places in one call of a model.

    ``dependent`` tells whether one place is computed from another: then they cannot be moved independently.
    """

    def __init__(
        self,
        attributor: LayerAttributor,
        call: Call,
        modules: frozenset[int],
        around: Collection[int],
        graph: bool,
        floats: bool = True,
        probe: bool | None = None,
    ) -> None:
        super().__init__(attributor.model, call)
        self._attributor = attributor
        self._module_places = [place for place in attributor.places if isinstance(place, ModulePlace)]
        places, tap = attributor.places, attributor.output_layer
        # Whether one place depends on another is seen by autograd.
        follow = graph or len(places) > 1
        self._first = FirstPass(self.model, places, tap, around, modules, follow, floats)
        # Gradients at the clean values alone need no later pass, so nothing is kept for one.
        self._recording, self._output, place = self._run_first(keep=attributor.replay and not graph)
        self.dependent = self._first.dependent
        self._replay: bool | None = None if self._recording.prefix else False
        self._again = Again(self.model, call, attributor.places, self._recording)
        self._probed, self._frames = False, Frames()
        self._axes, self._prefix_axes = self._find_axes(place, probe)
        chosen: list[int] = []
        before, rescue = 0, partial(remedy, self.model)
        for where, value in zip(places, place, strict=True):
            chosen += [before + index for index in explainable(value, str(where), rescue, floats)]
            before += len(tensors(value))
        self._found(place, chosen, self._first.all_anchors, self._axes)

    @property
    def output(self) -> Any:
        return self._output

    @property
    def weights_read(self) -> int:
        if not self._recording.prefix:  # every module runs again
            return super().weights_read
        before = [event.module for event in self._recording.prefix if event.finished]
        given = [place.module for place in self._module_places if place.side == "output"]
        return weight_bytes(self.model, [*before, *given])

    def differentiable(self) -> Any:
        _, output, _ = self._run_first(keep=False)
        self._anchors = self._first.all_anchors
        return output

    def mirrored(self, explained: Sequence[Tensor]) -> Structure:
        found: tuple[Structure, ...] = super().mirrored(explained)
        return found if self._attributor.several else found[0]

    def describe(self) -> str:
        return " and ".join(repr(str(place)) for place in self._attributor.places)

    def run(self, make: Make, copies: int) -> Any:
        if self._replay is None:
            self._replay = self._replay_agrees(self._gives_clean)
            if not self._replay and not same(self._run_clean(replay=False), self._output):
                warn_unsteady()
        if self._replay and self._again.drops:
            before = getattr(reads, "count", 0)
            try:
                output = self._run(make(), copies, replay=True)
                read = getattr(reads, "count", 0) != before
                if not read and (self._looks or not _holds_nan(output)):
                    return output
            except torch.cuda.OutOfMemoryError:
                raise
            except Exception as error:
                note("a replay at %s", self.describe(), error)
            if self._looks:
                raise RuntimeError("a check's own values, which may be far from all others, do not get through")
            # Here the model may take a way that it did not take for the batch itself, and ask for what was dropped. If
            # that is not why, the same shows up again without a replay; what it was given may be changed by now.
            self._replay, self.held = False, None
        return self._run(make(), copies, replay=self._replay)

    def expected(self, points: Sequence[Point], aim: Aim) -> Sequence[Tensor] | None:
        # The first replay shows at once that a replay is right, and what `Frames` tells.
        found = None
        trial = self._frames.trial(points, self.values, self.batch_size)
        if trial is None:
            return None

        def agrees(watch: Watch | None) -> bool:
            nonlocal found
            with self.looking():
                output = self._passed(trial.point, trial.rows, self._replay is not False, watch)
            rows = partial(rows_of_output, output, len(trial.rows.samples), self._output, self.batch_size)
            if trial.unmoved is not None and not same(rows(trial.unmoved), self._output):
                return False
            found = [scores[-trial.count :] for scores in aim.scores(rows(trial.window), 1)]
            return True

        with torch.no_grad():
            if self._replay is None:
                self._frames.works = self._replay_agrees(agrees)
                self._replay = True if self._frames.works else None
            else:
                works = self._works(agrees, None)
                if not works and self._frames.otherwise():
                    return self.expected(points, aim)
                self._frames.works = works
        return found if self._frames.works else None

    def expect_otherwise(self) -> bool:
        return self._frames.otherwise()

    def activations(self, call: Call) -> list[Tensor]:
        found: dict[Place, Structure] = {}
        args, kwargs = call.args, call.kwargs
        for place in self._attributor.places:
            if isinstance(place, ArgumentPlace):
                found[place] = argument(location(self.model, place, args, kwargs), args, kwargs)
        if self._module_places:
            recording = self._look(call, keep=False)
            found.update({place: recording.values[index] for index, place in enumerate(self._module_places)})
        leaves = tensors(tuple(found[place] for place in self._attributor.places))
        return [leaves[index].detach().clone() for index in self._chosen]  # the model may write to them again

    def reconsider(self) -> bool:
        # The axes were taken from sizes: one more pass, of another number of samples, shows them.
        if self._probed:
            return False
        axes, prefix_axes = self._find_axes(self.place, probe=True)
        if (axes, prefix_axes) == (self._axes, self._prefix_axes):
            return False
        if axes != self._axes and self.batch_size > 1:
            raise AxesDiffer(f"the axes of the batch at {self.describe()} are not those that sizes suggest")
        self._axes, self._prefix_axes = axes, prefix_axes
        self._frames.forget()
        self._again.forget_stand_ins()
        self._found(self.place, self._chosen, self._anchors, self._axes)
        return self._several_work is None

    # The axes of the batch

    def _find_axes(self, place: Structure, probe: bool | None) -> Axes:
        """The batch axes of the tensors at the places, and of those in the outputs of what runs before them.

        A pass of another number of samples shows which axes follow the batch; failing that, sizes tell. ``probe`` is
        that of `Attributor.at`.
        """
        sizes = Sizes(self.model, self.call, place, [event.output for event in self._recording.prefix or []])
        self._assumed = probe is False and self._replay is None and sizes.suggest
        if self._assumed:
            return sizes.axes
        # Of one sample several axes may have the size, as in the (layers, batch, features) of a recurrent net's state.
        unclear = any(tuple(leaf.shape).count(1) > 1 for leaf in tensors(place))
        several = self.batch_size > 1 and not sizes.tell
        if self._module_places and (several or probe or unclear):
            self._probed = True
            try:
                return self._see_axes(place, sizes.outputs)
            except Exception as error:
                # A model may refuse to run on another number of samples.
                note("a pass of another number of samples up to %s", self.describe(), error)
        return sizes.axes

    def _see_axes(self, place: Structure, outputs: Sequence[Structure]) -> Axes:
        size = self.batch_size
        other = self._look(rows_of_call(self.call, slice(0, 1)) if size > 1 else copies_of(self.call, 2))
        numbers = {where: number for number, where in enumerate(self._module_places)}
        of_place: list[int | None] = []
        for where, value in zip(self._attributor.places, place, strict=True):
            if isinstance(where, ArgumentPlace):
                of_place += axes_of(value, size)
                continue
            seen = axes_seen(value, other.values[numbers[where]], size)
            for axis, leaf in zip(seen, tensors(value), strict=True):
                # One that counts more than samples, such as windows of them, is not the axis of the batch.
                of_place.append(axis if axis is not None and leaf.shape[axis] == size else None)
        twins = [event.output for event in other.prefix or []] if outputs else []
        return of_place, [axes_seen(one, two, size) for one, two in zip(outputs, twins, strict=True)]

    # Passes

    def _run_first(self, keep: bool) -> tuple[Recording, Any, tuple[Structure, ...]]:
        with self.attributes.as_found():
            recording, output, place = self._first.run(self.call, keep)
            return recording, self.attributes.apart(output), place

    def _look(self, call: Call, keep: bool = True) -> Recording:
        with self.attributes.as_found():
            return self._first.look(call, keep)

    def _run(self, made: Sequence[Tensor], copies: Repeats, replay: bool, watch: Watch | None = None) -> Any:
        supply = iter(self.all_tensors(made, copies, self._axes))
        structures = [rebuild(value, [next(supply) for _ in tensors(value)], copies) for value in self.place]
        with self.attributes.as_found(), self.followed(structures):
            output = self._again.run(structures, copies, self._prefix_axes if replay else None, watch)
            return self.attributes.apart(output)

    def _replay_agrees(self, agrees: Callable[[Watch | None], bool]) -> bool:
        """Whether a replay, done and looked at by ``agrees``, gives what the first pass gave.

        On the way it finds which arguments, and which outputs of what it leaves out, are used; others are dropped.
        """
        watch = Watch()
        if self._works(agrees, watch):
            self._again.keep_only(watch.used)
            return True
        return self._works(agrees, None)

    def _works(self, agrees: Callable[[Watch | None], bool], watch: Watch | None) -> bool:
        try:
            return agrees(watch)
        except torch.cuda.OutOfMemoryError:
            raise
        except Exception as error:
            # A model whose modules hand each other values behind the scenes cannot be replayed in part; not every
            # model takes any number of samples, or values that no explainer would give it.
            note("the first replay, or a batch in a frame, at %s", self.describe(), error)
            return False

    def _gives_clean(self, watch: Watch | None) -> bool:
        return same(self._run_clean(replay=True, watch=watch), self._output)

    def _run_clean(self, replay: bool, watch: Watch | None = None) -> Any:
        with torch.no_grad():
            return self._passed([value.tensor for value in self.values], 1, replay, watch)

    def _passed(self, point: Point, copies: Repeats, replay: bool, watch: Watch | None) -> Any:
        """What the model returns for a ``point`` that has so many copies of the batch, or some of its samples."""
        def run() -> Any:
            return self._run([tensor.clone() for tensor in point], copies, replay, watch)

        try:
            return run()
        except Overwritten:
            # Noted once more, with a copy of everything: this is what most models do not need.
            self._recording.prefix = self._look(self.call).prefix
            return run()


def _holds_nan(output: Any) -> bool:
    # A sum, which a NaN makes NaN, takes less time than to look at each number; but so does infinity less infinity.
    return any(
        leaf.is_floating_point() and isnan(float(leaf.detach().sum())) and bool(leaf.isnan().any())
        for leaf in tensors(output)
    )
