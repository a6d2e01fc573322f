"""Later passes of a model: they put edited values at the places and, on request, run nothing again that need not."""

from collections.abc import Sequence
from functools import partial
from typing import Any, NoReturn

from torch import Tensor, nn

from pnpx.attributors.arguments import Arguments
from pnpx.attributors.intercept import Run
from pnpx.attributors.needed import Dropped, Watch, can_be_hollow, hollow
from pnpx.attributors.passes import Pass, repeat
from pnpx.attributors.places import ModulePlace
from pnpx.attributors.recording import Event, Recording
from pnpx.structure import Repeats, Structure, is_packed, rebuild, tensors


class Diverged(RuntimeError):
    """A replay met other modules than the recording."""


class Overwritten(RuntimeError):
    """What a replay needs was changed in place after it had been noted; it must be noted again, as a copy."""


def _overwritten() -> NoReturn:
    raise Overwritten("the model changes in place what is read again")


class Replay(Pass):
    """Runs the model with other values at the places.

    Args:
        recording: the first pass.
        edited: for each place its value, in the structure found there.
        repeats: how many copies of the batch are run at once, or which of its samples.
        axes: for each tensor in the outputs of the prefix, the axis of the batch, along which it is repeated; None: as
            it is. None for all: nothing is left out, every module runs.
        watch: finds out which outputs of the prefix are used.
        stand_ins: where this finds, and keeps for other passes, what stands for outputs that are not used.
    """

    def __init__(
        self,
        recording: Recording,
        edited: Sequence[Structure],
        repeats: Repeats,
        axes: Sequence[Sequence[int | None]] | None,
        watch: Watch | None = None,
        stand_ins: dict[tuple[int, int, Repeats], Tensor] | None = None,
    ) -> None:
        super().__init__(recording.places, recording.tap)
        self._recording, self._edited, self._repeats, self._axes = recording, edited, repeats, axes
        self._watch, self._stand_ins = watch, {} if stand_ins is None else stand_ins
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
        for number in self.here(module, "input"):
            args, kwargs = Arguments(run, args, kwargs).put(self._edited[number])
        outputs = list(self.here(module, "output"))
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
        self.note_tap(module, output)
        return output

    def _repeated(self, event: Event) -> Any:
        if event.unused and isinstance(event.output, Tensor):
            return self._dropped(event.output, 0)
        axes, packed = (self._axes or [])[self._position - 1], is_packed(event.output)
        changed = event.changed() if self._watch is not None else ()
        parts = []
        for index, (tensor, axis) in enumerate(zip(tensors(event.output), axes, strict=True)):
            part: Tensor
            if index in event.unused:
                part = self._dropped(tensor, index)
            elif self._watch is not None and can_be_hollow(tensor, packed[index]):
                make = _overwritten if index in changed else partial(repeat, tensor, self._repeats, axis)
                key = (self._position - 1, index)
                part = self._watch.stand_in(key, absent(tensor, self._repeats, axis), make)
            elif index in changed:
                _overwritten()
            else:
                part = repeat(tensor, self._repeats, axis)
            parts.append(part)
        return rebuild(event.output, parts, self._repeats)


    def _dropped(self, tensor: Tensor, index: int) -> Tensor:
        number = self._position - 1
        key = (number, index, self._repeats)
        if key not in self._stand_ins:
            self._stand_ins[key] = dropped(tensor, self._repeats, (self._axes or [])[number][index])
        return self._stand_ins[key]


def absent(tensor: Tensor, repeats: Repeats, axis: int | None) -> Tensor:
    """Of the shape of so many copies of ``tensor``, hollow."""
    shape = list(tensor.shape)
    if axis is not None:
        shape[axis] = shape[axis] * repeats if isinstance(repeats, int) else repeats.entries(shape[axis])
    return hollow(tensor, shape)


def dropped(tensor: Tensor, repeats: Repeats, axis: int | None) -> Tensor:
    """What stands for so many copies of ``tensor`` where they are not read."""
    return absent(tensor, repeats, axis).as_subclass(Dropped)
