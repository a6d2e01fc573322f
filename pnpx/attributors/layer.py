"""Gradients inside a model: at inputs or outputs of its modules, or at some of its forward arguments."""

import itertools
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor, nn

from pnpx.attributors.base import Attributor, Bound, explainable, same, warn_unsteady
from pnpx.attributors.batch import arguments, rows_of_call
from pnpx.attributors.guard import unchecked
from pnpx.attributors.intercept import intercepting, wrapped
from pnpx.attributors.needed import Watch, reads
from pnpx.attributors.passes import Reached, Recording, Replay
from pnpx.attributors.places import ArgumentPlace, ModulePlace, Place
from pnpx.attributors.repeating import axes_of, axes_seen
from pnpx.extractors import Call, Signature
from pnpx.structure import Structure, rebuild, tensors

_REMEDY = "choose a layer that computes floats, such as an embedding's output: layer='path.to.embedding'"


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
    def at(self, call: Call, *, graph: bool = False, floats: bool = True) -> Iterator["LayerBound"]:
        with _uncompiled(), unchecked(), wrapped(self.model.modules()) as modules:
            yield LayerBound(self, call, modules, graph, floats)


class LayerBound(Bound):
    """Places in one call of a model.

    ``dependent`` tells whether one place is computed from another: then they cannot be moved independently.
    """

    def __init__(
        self, attributor: LayerAttributor, call: Call, modules: frozenset[int], graph: bool, floats: bool = True
    ) -> None:
        super().__init__(attributor.model, call)
        self._attributor, self._modules, self._floats = attributor, modules, floats
        self._module_places = [place for place in attributor.places if isinstance(place, ModulePlace)]
        # Whether one place depends on another is seen by autograd.
        self._graph = graph or len(attributor.places) > 1
        # Gradients at the clean values alone need no later pass, so nothing is kept for one.
        self._keep = attributor.replay and not graph
        self.dependent = False
        self._anchors_at: dict[Place, list[Tensor]] = {}
        self._recording, self._output, place = self._record()
        self._probed = False
        self._axes, self._prefix_axes = self._find_axes(place)
        chosen: list[int] = []
        before = 0
        for where, value in zip(attributor.places, place, strict=True):
            chosen += [before + index for index in explainable(value, str(where), _REMEDY, floats)]
            before += len(tensors(value))
        anchors = [anchor for where in attributor.places for anchor in self._anchors_at[where]]
        self._found(place, chosen, anchors, self._axes)
        self._replay: bool | None = None if self._recording.prefix else False

    @property
    def output(self) -> Any:
        return self._output

    def mirrored(self, explained: Sequence[Tensor]) -> Structure:
        found: tuple[Structure, ...] = super().mirrored(explained)
        return found if self._attributor.several else found[0]

    def describe(self) -> str:
        return " and ".join(repr(str(place)) for place in self._attributor.places)

    def run(self, edited: Sequence[Tensor], copies: int) -> Any:
        if self._replay is None:
            self._replay = self._replay_agrees()
        if self._replay and any(event.unused for event in self._recording.prefix or []):
            before = getattr(reads, "count", 0)
            try:
                output = self._run(edited, copies, replay=True)
                if getattr(reads, "count", 0) == before and not _holds_nan(output):
                    return output
            except torch.cuda.OutOfMemoryError:
                raise
            except Exception:
                pass
            # Here the model may take a way that it did not take for the batch itself, and ask for what was dropped. If
            # that is not why, the same shows up again without a replay.
            self._replay = False
        return self._run(edited, copies, replay=self._replay)

    def activations(self, call: Call) -> list[Tensor]:
        found: dict[Place, Structure] = {}
        args, kwargs = call.args, call.kwargs
        for place in self._attributor.places:
            if isinstance(place, ArgumentPlace):
                found[place] = _get(self._location(place, args, kwargs), args, kwargs)
        if self._module_places:
            recording = self._look(call, keep=False)
            found.update({place: recording.values[index] for index, place in enumerate(self._module_places)})
        leaves = tensors(tuple(found[place] for place in self._attributor.places))
        return [leaves[index].detach() for index in self._chosen]

    def reconsider(self) -> bool:
        # The axes were taken from sizes: one more pass, of another number of samples, shows them.
        if self._probed:
            return False
        axes, prefix_axes = self._find_axes(self.place, probe=True)
        if (axes, prefix_axes) == (self._axes, self._prefix_axes):
            return False
        if axes != self._axes and self.batch_size > 1:
            return False  # the points were made for the axes as they are
        self._axes, self._prefix_axes = axes, prefix_axes
        self._found(self.place, self._chosen, self._anchors, self._axes)
        return self._several_work is None

    # The first pass

    def _record(self) -> tuple[Recording, Any, tuple[Structure, ...]]:
        """Run the model once: the outputs of what runs before the places, the output, and what is at the places."""
        args, kwargs = arguments(self.call, 1)
        clean: dict[Place, Structure] = {}
        with torch.set_grad_enabled(self._graph):
            for place in self._attributor.places:
                if isinstance(place, ArgumentPlace):
                    location = self._location(place, args, kwargs)
                    anchored = self._anchor(clean, place, _get(location, args, kwargs))
                    args, kwargs = _put(location, args, kwargs, anchored)
            anchors = [partial(self._anchor, clean, place) for place in self._module_places]
            tap, keep = self._attributor.output_layer, not clean and self._keep
            recording = Recording(self.model, self._module_places, anchors, tap, keep)
            with intercepting(recording, self._modules):
                output = self.model(*args, **kwargs)
        recording.check()
        return recording, recording.tapped if tap else output, tuple(clean[place] for place in self._attributor.places)

    def _anchor(self, clean: dict[Place, Structure], place: Place, value: Structure) -> Structure:
        """Note the clean value at a place, and let autograd follow it from there if that is wanted."""
        chosen = explainable(value, str(place), _REMEDY, self._floats)
        leaves = tensors(value)
        clean[place] = rebuild(value, [leaf.detach().clone() for leaf in leaves])
        self._anchors_at[place] = []
        if not self._graph:
            return value
        for index in chosen:
            if not leaves[index].is_floating_point():
                # Autograd does not see what is computed from integers, so that this place is explained by itself.
                self.dependent = True
                self._anchors_at[place].append(leaves[index])
                continue
            if leaves[index].requires_grad:
                self.dependent = True
                anchor = leaves[index].clone()
            else:
                anchor = leaves[index].detach().clone().requires_grad_()
            self._anchors_at[place].append(anchor)
            # The model goes on with a copy: it may change it in place.
            leaves[index] = anchor.clone()
        return rebuild(value, leaves)

    def _look(self, call: Call, keep: bool = True) -> Recording:
        """See what is at the modules' places, and before them, in another call; nothing after them runs."""
        anchors = [lambda value: value] * len(self._module_places)
        recording = Recording(self.model, self._module_places, anchors, keep=keep, stop=True)
        try:
            with torch.no_grad(), intercepting(recording, self._modules):
                args, kwargs = arguments(call, 1)
                self.model(*args, **kwargs)
        except Reached:
            return recording
        raise RuntimeError(f"{self.describe()} was reached for the batch itself, but not for another input")

    # The axes of the batch

    def _find_axes(self, place: Structure, probe: bool = False) -> tuple[list[int | None], list[list[int | None]]]:
        """The batch axes of the tensors at the places, and of those in the outputs of what runs before them.

        A pass of another number of samples shows which axes follow the batch; failing that, sizes tell.
        """
        outputs = [event.output for event in self._recording.prefix or []]
        # Of one sample several axes may have the size, as in the (layers, batch, features) of a recurrent net's state.
        unclear = any(tuple(leaf.shape).count(1) > 1 for leaf in tensors(place))
        several = self.batch_size > 1 and not self._sizes_tell(place, outputs)
        if self._module_places and (several or probe or unclear):
            self._probed = True
            try:
                return self._see_axes(place, outputs)
            except Exception:
                # A model may refuse to run on another number of samples.
                pass
        return axes_of(place, self.batch_size), [axes_of(output, self.batch_size) for output in outputs]

    def _sizes_tell(self, place: Structure, outputs: Sequence[Structure]) -> bool:
        """Whether the size of an axis tells that it is that of the batch.

        It does where nothing else has that size: no weight or buffer, which a table of positions would be cut from, and
        no other axis of the arguments, such as the length of the sequences.
        """
        size = self.batch_size
        own = [axis for leaf in tensors((self._call_values(), place, outputs)) for axis in leaf.shape[1:]]
        tables = itertools.chain(self.model.parameters(), self.model.buffers())
        return (
            size not in own
            and all(leaf.ndim > 0 and leaf.shape[0] == size for leaf in tensors(place))
            and not any(size in table.shape for table in tables)
        )

    def _call_values(self) -> list[Any]:
        return [self.call.forward, self.call.additional_args, dict(self.call.additional_kwargs)]

    def _see_axes(
        self, place: Structure, outputs: Sequence[Structure]
    ) -> tuple[list[int | None], list[list[int | None]]]:
        size = self.batch_size
        other = self._look(rows_of_call(self.call, slice(0, 1)) if size > 1 else self._doubled())
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

    def _doubled(self) -> Call:
        args, kwargs = arguments(self.call, 2)
        return Call(args, (None,) * len(args), (), kwargs)

    # Later passes

    def _run(self, edited: Sequence[Tensor], copies: int, replay: bool, watch: Watch | None = None) -> Any:
        supply = iter(self.all_tensors([tensor.clone() for tensor in edited], copies, self._axes))
        structures = [rebuild(value, [next(supply) for _ in tensors(value)], copies) for value in self.place]
        new = dict(zip(self._attributor.places, structures, strict=True))
        args, kwargs = arguments(self.call, copies)
        for place in self._attributor.places:
            if isinstance(place, ArgumentPlace):
                args, kwargs = _put(self._location(place, args, kwargs), args, kwargs, new[place])
        axes = self._prefix_axes if replay else None
        passing = Replay(self._recording, [new[place] for place in self._module_places], copies, axes, watch)
        with intercepting(passing, self._concerned), watch or nullcontext():
            output = self.model(*args, **kwargs)
        return passing.tapped if self._attributor.output_layer else output

    @cached_property
    def _concerned(self) -> frozenset[int]:
        """The modules that a later pass does something about; the others run as ever."""
        tap = self._attributor.output_layer
        modules = [place.module for place in self._module_places] + ([tap.module] if tap else [])
        modules += [event.module for event in self._recording.prefix or []]
        return frozenset(id(module) for module in modules)

    def _replay_agrees(self) -> bool:
        """Whether a replay at the clean values gives the output of the first pass.

        On the way it finds which outputs of what it leaves out are used; the others are dropped.
        """
        for watch in (Watch(), None):
            try:
                agrees = same(self._run_clean(replay=True, watch=watch), self._output)
            except torch.cuda.OutOfMemoryError:
                raise
            except Exception:
                # A model whose modules hand each other values behind the scenes cannot be replayed in part.
                agrees = False
            if agrees:
                if watch is not None:
                    for number, event in enumerate(self._recording.prefix or []):
                        event.keep({index for at, index in watch.used if at == number})
                return True
        if not same(self._run_clean(replay=False), self._output):
            warn_unsteady()
        return False

    def _run_clean(self, replay: bool, watch: Watch | None = None) -> Any:
        with torch.no_grad():
            return self._run([value.tensor for value in self.values], 1, replay, watch)

    def _location(self, place: ArgumentPlace, args: tuple[Any, ...], kwargs: dict[str, Any]) -> int | str:
        """Where an argument is among those that the model is called with."""
        positional = Signature(self.model).positional
        if place.name in kwargs:
            return place.name
        if place.name in positional and positional.index(place.name) < len(args):
            return positional.index(place.name)
        raise LookupError(
            f"the forward argument {place.name!r} is to be explained, but is not among those that the extractors pass "
            f"({', '.join([*positional[: len(args)], *kwargs])}); add it to forward_arg_extractor"
        )


@contextmanager
def _uncompiled() -> Iterator[None]:
    """Run compiled modules as they were written: inside compiled code there is no module to stand at."""
    set_stance = getattr(torch.compiler, "set_stance", None)  # since PyTorch 2.6
    if set_stance is None or "torch._dynamo" not in sys.modules:
        yield
    else:
        with set_stance("force_eager"):
            yield


def _holds_nan(output: Any) -> bool:
    return any(leaf.is_floating_point() and bool(leaf.isnan().any()) for leaf in tensors(output))


def _get(location: int | str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return args[location] if isinstance(location, int) else kwargs[location]


def _put(
    location: int | str, args: tuple[Any, ...], kwargs: dict[str, Any], value: Any
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if isinstance(location, str):
        return args, {**kwargs, location: value}
    return (*args[:location], value, *args[location + 1 :]), kwargs
