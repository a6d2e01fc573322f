"""Running a model again with other values at places inside it, and, in a replay, nothing that need not run again."""

import itertools
from collections.abc import Collection, Sequence
from contextlib import nullcontext
from functools import cached_property, partial
from typing import Any

from torch import Tensor, nn

from pnpx.attributors.batch import arguments
from pnpx.attributors.intercept import intercepting
from pnpx.attributors.needed import Dropped, Key, Watch, can_be_hollow
from pnpx.attributors.passes import repeat
from pnpx.attributors.places import ArgumentPlace, ModulePlace, Place
from pnpx.attributors.recording import Recording
from pnpx.attributors.replay import Replay, absent, dropped
from pnpx.extractors import Call, Signature
from pnpx.structure import Repeats, Structure

_ARGUMENTS = -1  # stands for the model's arguments where events have their numbers
_UNCHANGEABLE = (Dropped, bool, int, float, str, type(None))


class Again:
    """Later passes of a model, after the one that made ``recording``.

    A replay may keep only what is used of what the recording holds, and of the model's arguments: see `keep_only`.
    """

    def __init__(self, model: nn.Module, call: Call, places: Sequence[Place], recording: Recording) -> None:
        self._model, self._call, self._places, self._recording = model, call, places, recording
        self._stand_ins: dict[tuple[int, int, Repeats], Tensor] = {}
        # Which of the arguments' tensors were watched, and which of these a replay does not read.
        self._watched: set[int] = set()
        self._unread: frozenset[int] = frozenset()
        self._unread_arguments: dict[Repeats, tuple[tuple[Any, ...], dict[str, Any]]] = {}

    def run(
        self,
        structures: Sequence[Structure],
        copies: Repeats,
        axes: Sequence[Sequence[int | None]] | None,
        watch: Watch | None = None,
    ) -> Any:
        """What the model, or its output layer, returns for so many copies of the batch.

        Args:
            structures: what is put at each place. The model is given it as it is, and may change it.
            copies: how many copies of the batch there are in it, or which of its samples.
            axes: those of the batch in the outputs of the recording, for a replay; None: every module runs.
            watch: finds out what a replay uses.
        """
        new = dict(zip(self._places, structures, strict=True))
        args, kwargs = arguments(self._call, copies) if axes is None else self._arguments(copies, watch)
        put = []
        for place in self._places:
            if isinstance(place, ArgumentPlace):
                at = location(self._model, place, args, kwargs)
                args, kwargs = with_argument(at, args, kwargs, new[place])
            else:
                put.append(new[place])
        passing = Replay(self._recording, put, copies, axes, watch, self._stand_ins)
        with intercepting(passing, self._concerned), watch or nullcontext():
            output = self._model(*args, **kwargs)
        return passing.tapped if self._recording.tap else output

    @property
    def drops(self) -> bool:
        """Whether a replay does without some of the recording or the arguments."""
        return bool(self._unread) or any(event.unused for event in self._recording.prefix or [])

    def keep_only(self, used: Collection[Key]) -> None:
        """Drop what is not ``used`` of the recording and the arguments; watched passes have told."""
        for number, event in enumerate(self._recording.prefix or []):
            event.keep({index for at, index in used if at == number})
        self._unread = frozenset(index for index in self._watched if (_ARGUMENTS, index) not in used)

    def forget_stand_ins(self) -> None:
        """Make anew what stands for what was dropped of the recording: its axes of the batch are other ones."""
        self._stand_ins.clear()

    def _arguments(self, copies: Repeats, watch: Watch | None) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments for a replay, which may read none of them: what it leaves out does."""
        if watch is None and copies in self._unread_arguments:
            args, kwargs = self._unread_arguments[copies]
            return args, dict(kwargs)
        numbers = itertools.count()

        def make(leaf: Tensor, copies: Repeats, axis: int | None) -> Tensor:
            index = next(numbers)
            if index in self._unread:
                key = (_ARGUMENTS, index, copies)
                if key not in self._stand_ins:
                    self._stand_ins[key] = dropped(leaf, copies, axis)
                return self._stand_ins[key]
            if watch is not None and can_be_hollow(leaf, False):
                stand_in = absent(leaf, copies, axis)
                self._watched.add(index)
                return watch.stand_in((_ARGUMENTS, index), stand_in, partial(repeat, leaf, copies, axis))
            return repeat(leaf, copies, axis)

        args, kwargs = arguments(self._call, copies, make=make)
        if all(isinstance(value, _UNCHANGEABLE) for value in (*args, *kwargs.values())):
            # There is nothing in them that the model could change: they serve all passes.
            self._unread_arguments[copies] = args, dict(kwargs)
        return args, kwargs

    @cached_property
    def _concerned(self) -> frozenset[int]:
        """The modules that a later pass does something about; the others run as ever."""
        tap = self._recording.tap
        modules = [place.module for place in self._places if isinstance(place, ModulePlace)]
        modules += [tap.module] if tap else []
        modules += [event.module for event in self._recording.prefix or []]
        return frozenset(id(module) for module in modules)


def location(model: nn.Module, place: ArgumentPlace, args: tuple[Any, ...], kwargs: dict[str, Any]) -> int | str:
    """Where an argument is among those that the model is called with.

    Raises:
        LookupError: it is not there.
    """
    positional = Signature(model).positional
    if place.name in kwargs:
        return place.name
    if place.name in positional and positional.index(place.name) < len(args):
        return positional.index(place.name)
    raise LookupError(
        f"the forward argument {place.name!r} is to be explained, but is not among those that the extractors pass "
        f"({', '.join([*positional[: len(args)], *kwargs])}); add it to forward_arg_extractor"
    )


def argument(at: int | str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The argument at a `location`."""
    return args[at] if isinstance(at, int) else kwargs[at]


def with_argument(
    at: int | str, args: tuple[Any, ...], kwargs: dict[str, Any], value: Any
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments with ``value`` at a `location`."""
    if isinstance(at, str):
        return args, {**kwargs, at: value}
    return (*args[:at], value, *args[at + 1 :]), kwargs
