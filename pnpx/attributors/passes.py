"""Forward passes that look at places of a model, put other values there, and leave out what need not run again.

`Recording` is the first pass: it notes the values at the places and the outputs of what ran before them. `Replay` is
any later one: it puts edited values at the places and, on request, returns the noted outputs instead of running modules
again.
"""

import inspect
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from pnpx.attributors.intercept import Run
from pnpx.attributors.needed import Dropped, Watch, hollow
from pnpx.attributors.places import ModulePlace
from pnpx.structure import Structure, is_packed, map_tensors, rebuild, tensors

Anchor = Callable[[Structure], Structure]
"""Takes the value found at a place and returns the one that the model goes on with."""


class Reached(BaseException):
    """Ends a forward pass once all places are reached; no ``except Exception`` of a model may stop it."""


class Diverged(RuntimeError):
    """A replay met other modules than the recording."""


@dataclass
class Event:
    """One call before the first place: of a module that finished (with its output), or is still running (without)."""

    module: nn.Module
    finished: bool
    output: Structure = None
    unused: frozenset[int] = frozenset()
    """Which of the tensors in ``output``, by number, no later pass reads."""

    def keep(self, used: Collection[int]) -> None:
        """Drop those tensors that are not ``used``, by number; what is no float, or packed, is kept."""
        leaves, packed = tensors(self.output), is_packed(self.output)
        self.unused = frozenset(
            index for index, leaf in enumerate(leaves) if index not in used and _can_be_hollow(leaf, packed[index])
        )
        if self.unused:
            kept = [hollow(leaf, leaf.shape) if index in self.unused else leaf for index, leaf in enumerate(leaves)]
            self.output = rebuild(self.output, kept)


def _can_be_hollow(leaf: Tensor, packed: bool) -> bool:
    return leaf.is_floating_point() and not packed


@dataclass
class _Frame:
    module: nn.Module
    done: list[Event] = field(default_factory=list)


class Arguments:
    """The arguments of a module's call that can be explained, as one value, and put back."""

    def __init__(self, run: Run, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._args, self._kwargs = args, kwargs
        keys: list[int | str] = [*range(len(args)), *kwargs]
        names = dict(zip(keys, [*_positional_names(run, len(args)), *kwargs], strict=True))
        values = [*args, *kwargs.values()]
        # Masks and positions are no features: noise on them, or a gradient of them, has no meaning.
        features = [(key, value) for key, value in zip(keys, values, strict=True) if not _says_where(names[key])]
        self._keys = [key for key, value in features if _has_floats(value)]
        # Without floats it is integers, such as token ids, that can be explained by those who need no gradients.
        self._keys = self._keys or [key for key, value in features if tensors(value)]
        if not self._keys:  # then there is nothing to explain, and the error will say what was found instead
            self._keys = [key for key, _ in features]
        chosen = [value for key, value in zip(keys, values, strict=True) if key in self._keys]
        self.value: Structure
        if len(chosen) == 1:
            self.value = chosen[0]
        elif all(isinstance(key, int) for key in self._keys):
            self.value = tuple(chosen)
        else:
            self.value = {names[key]: value for key, value in zip(self._keys, chosen, strict=True)}

    def put(self, value: Structure) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments with ``value`` in place of theirs."""
        parts = [value] if len(self._keys) == 1 else value.values() if isinstance(value, dict) else value
        new = dict(zip(self._keys, parts, strict=True))
        args = tuple(new.get(index, arg) for index, arg in enumerate(self._args))
        return args, {key: new.get(key, arg) for key, arg in self._kwargs.items()}


def _says_where(name: str) -> bool:
    """Whether an argument of this name says what is there or where it is, as the rotary embeddings of LLaMA's do."""
    return "mask" in name or name in ("position_embeddings", "position_ids", "cache_position")


def _positional_names(run: Run, count: int) -> list[str]:
    try:
        names = [name for name, p in inspect.signature(run).parameters.items() if p.kind is not p.VAR_KEYWORD]
    except (TypeError, ValueError):
        names = []
    return (names + [""] * count)[:count]


def _has_floats(value: Any) -> bool:
    return any(leaf.is_floating_point() for leaf in tensors(value))


class _Pass:
    """What recording and replaying share: counting calls, and noting the output of ``tap``, an output layer."""

    def __init__(self, places: Sequence[ModulePlace], tap: ModulePlace | None) -> None:
        self.places, self.tap = places, tap
        self.counts: Counter[int] = Counter()
        self.tapped: Any = None

    def _here(self, module: nn.Module, side: str) -> Iterator[int]:
        """The places, by number, at this side of the current call of ``module``."""
        for number, place in enumerate(self.places):
            if place.module is module and place.side == side and self.counts[id(module)] == (place.call or 1):
                yield number

    def _note_tap(self, module: nn.Module, output: Any) -> None:
        if self.tap is not None and self.tap.module is module and self.counts[id(module)] == (self.tap.call or 1):
            self.tapped = output


class Recording(_Pass):
    """Runs the model as it is. ``anchors`` see the value at each place once; with ``stop`` the pass ends after the
    last."""

    def __init__(
        self,
        model: nn.Module,
        places: Sequence[ModulePlace],
        anchors: Sequence[Anchor],
        tap: ModulePlace | None = None,
        keep: bool = True,
        stop: bool = False,
    ) -> None:
        super().__init__(places, tap)
        self._anchors, self._keep, self._stop = anchors, keep, stop
        self.values: dict[int, Structure] = {}
        self.counts_at: dict[int, Counter[int]] = {}
        self.prefix: list[Event] | None = None
        """What ran before the first place, in order; None where it cannot be told."""
        self.counts_before: Counter[int] = Counter()
        self._frames: list[_Frame] = []
        self._started = False
        # Only what runs directly under a module that contains the place can be a largest finished module.
        self._ancestors = _enclosing(model, places)

    def __call__(self, module: nn.Module, run: Run, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        self.counts[id(module)] += 1
        inputs, outputs = list(self._here(module, "input")), list(self._here(module, "output"))
        if (inputs or outputs) and not self._started:
            self._start()
        for number in inputs:
            arguments = Arguments(run, args, kwargs)
            args, kwargs = arguments.put(self._anchor(number, arguments.value))
        self._frames.append(_Frame(module))
        try:
            output = run(*args, **kwargs)
        finally:
            self._frames.pop()
        for number in outputs:
            output = self._anchor(number, output)
        self._note_tap(module, output)
        if not self._started and self._frames and self._keep:
            outer = self._frames[-1]
            if id(outer.module) in self._ancestors:
                # A copy: the model may go on to change its own in place.
                outer.done.append(Event(module, True, map_tensors(Tensor.clone, output)))
        return output

    def _start(self) -> None:
        self._started = True
        self.counts_before = self.counts.copy()
        if not self._keep or any(id(frame.module) not in self._ancestors for frame in self._frames):
            return
        self.prefix = []
        for frame in self._frames:
            self.prefix += [Event(frame.module, False), *frame.done]
            frame.done = []

    def _anchor(self, number: int, value: Structure) -> Structure:
        if number in self.values:  # two places are the same
            return value
        self.counts_at[number] = self.counts.copy()
        self.values[number] = value
        anchored = self._anchors[number](value)
        if self._stop and len(self.values) == len(self.places):
            raise Reached
        return anchored

    def check(self) -> None:
        """Require that every place was reached, and by one call only unless a call was chosen.

        Raises:
            RuntimeError: the model ran without it.
            ValueError: it is ambiguous.
        """
        for place in [*self.places, *([self.tap] if self.tap else [])]:
            count = self.counts[id(place.module)]
            if place.call is None and count > 1:
                name, side = place.path or type(place.module).__name__, "" if place.side == "output" else ":input"
                raise ValueError(
                    f"{place.path!r} runs {count} times in a forward pass, which makes it ambiguous as a layer; choose "
                    f"the call: '{name}#1{side}' to '{name}#{count}{side}'"
                )
            if count < (place.call or 1):
                ran = f"it runs {count} times" if count else "the model ran without calling it"
                remedy = "choose one that the forward pass uses"
                if isinstance(place.module, torch.jit.ScriptModule):
                    ran = "TorchScript runs the modules inside it out of sight"
                    remedy = "explain the inputs (layer=None), or the model that was scripted or traced"
                raise RuntimeError(f"the layer {str(place)!r} was not reached: {ran}; {remedy}")


def _enclosing(model: nn.Module, places: Sequence[ModulePlace]) -> set[int]:
    """The ids of the modules that contain a place, the model among them."""
    modules = dict(model.named_modules(remove_duplicate=False))
    found = {id(model)}
    for path, module in modules.items():
        if any(place.module is module for place in places):
            while path:
                path = path.rpartition(".")[0]
                found.add(id(modules[path]))
    return found


class Replay(_Pass):
    """Runs the model with other values at the places.

    Args:
        recording: the first pass.
        edited: for each place its value, in the structure found there.
        repeats: how many copies of the batch are run at once.
        axes: for each tensor in the outputs of the prefix, the axis of the batch, along which it is repeated; None: as
            it is. None for all: nothing is left out, every module runs.
        watch: finds out which outputs of the prefix are used.
    """

    def __init__(
        self,
        recording: Recording,
        edited: Sequence[Structure],
        repeats: int,
        axes: Sequence[Sequence[int | None]] | None,
        watch: Watch | None = None,
    ) -> None:
        super().__init__(recording.places, recording.tap)
        self._recording, self._edited, self._repeats, self._axes = recording, edited, repeats, axes
        self._watch = watch
        self._prefix = recording.prefix if axes is not None and recording.prefix is not None else []
        self._skip = axes is not None
        self._position = 0

    def __call__(self, module: nn.Module, run: Run, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if self._position < len(self._prefix):
            event = self._prefix[self._position]
            if event.module is not module:
                raise Diverged(f"met {type(module).__name__} where {type(event.module).__name__} ran before")
            self._position += 1
            if self._position == len(self._prefix):
                self.counts = self._recording.counts_before.copy()
                self.counts[id(self._first().module)] -= 1  # it is about to be counted
            if event.finished:
                return self._repeated(event)
            return self._noted(module, run(*args, **kwargs))
        self.counts[id(module)] += 1
        for number in self._here(module, "input"):
            args, kwargs = Arguments(run, args, kwargs).put(self._edited[number])
        outputs = list(self._here(module, "output"))
        if outputs and self._skip:
            self.counts = self._recording.counts_at[outputs[0]].copy()
            output = None
        else:
            output = run(*args, **kwargs)
        for number in outputs:
            output = self._edited[number]
        return self._noted(module, output)

    def _first(self) -> ModulePlace:
        return self.places[next(iter(self._recording.values))]

    def _noted(self, module: nn.Module, output: Any) -> Any:
        self._note_tap(module, output)
        return output

    def _repeated(self, event: Event) -> Any:
        axes, packed = (self._axes or [])[self._position - 1], is_packed(event.output)
        parts = []
        for index, (tensor, axis) in enumerate(zip(tensors(event.output), axes, strict=True)):
            part: Tensor
            if index in event.unused:
                part = hollow(tensor, _repeated_shape(tensor, self._repeats, axis)).as_subclass(Dropped)
            else:
                part = repeat(tensor, self._repeats, axis)
                if self._watch is not None and _can_be_hollow(part, packed[index]):
                    part = self._watch.stand_in((self._position - 1, index), part)
            parts.append(part)
        return rebuild(event.output, parts, self._repeats)


def _repeated_shape(tensor: Tensor, repeats: int, axis: int | None) -> list[int]:
    return [size * (repeats if index == axis else 1) for index, size in enumerate(tensor.shape)]


def repeat(tensor: Tensor, repeats: int, axis: int | None) -> Tensor:
    """A fresh copy of ``tensor``, so many times over along ``axis``; once where there is none."""
    if axis is None or repeats == 1:
        return tensor.clone()
    return tensor.repeat(*[repeats if index == axis else 1 for index in range(tensor.ndim)])
