"""The first pass of a model: it notes the values at the places and the outputs of what ran before them."""

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from pnpx.attributors.arguments import Arguments
from pnpx.attributors.intercept import Run
from pnpx.attributors.needed import can_be_hollow, hollow
from pnpx.attributors.passes import Pass
from pnpx.attributors.places import ModulePlace
from pnpx.structure import Structure, is_packed, map_tensors, rebuild, tensors

Anchor = Callable[[Structure], Structure]
"""Takes the value found at a place and returns the one that the model goes on with."""


class Reached(BaseException):
    """Ends a forward pass once all places are reached; no ``except Exception`` of a model may stop it."""


@dataclass
class Event:
    """One call before the first place: of a module that finished (with its output), or is still running (without)."""

    module: nn.Module
    finished: bool
    output: Structure = None
    versions: tuple[int | None, ...] = ()
    """Those of the tensors in ``output`` when the module returned it; None for what was copied then."""
    unused: frozenset[int] = frozenset()
    """Which of the tensors in ``output``, by number, no later pass reads."""

    @classmethod
    def of(cls, module: nn.Module, output: Structure, copied: bool) -> "Event":
        """The end of a call. Without a copy, what the model changes in place afterwards is found by `changed`."""
        if copied or any(is_packed(output)) or any(leaf.is_inference() for leaf in tensors(output)):
            output = map_tensors(Tensor.clone, output)
            return cls(module, True, output, (None,) * len(tensors(output)))
        output = map_tensors(_itself, output)  # its containers are copied: the model may change those as well
        return cls(module, True, output, tuple(leaf._version for leaf in tensors(output)))

    def changed(self) -> set[int]:
        """Which of the tensors in ``output``, by number, were changed in place since the module returned them."""
        pairs = enumerate(zip(tensors(self.output), self.versions, strict=True))
        return {index for index, (leaf, version) in pairs if version is not None and leaf._version != version}

    def keep(self, used: Collection[int]) -> None:
        """Drop those tensors that are not ``used``, by number; what is no float, or packed, is kept."""
        leaves, packed = tensors(self.output), is_packed(self.output)
        self.unused = frozenset(
            index for index, leaf in enumerate(leaves) if index not in used and can_be_hollow(leaf, packed[index])
        )
        if self.unused:
            kept = [hollow(leaf, leaf.shape) if index in self.unused else leaf for index, leaf in enumerate(leaves)]
            self.output = rebuild(self.output, kept)
            self.versions = (None,) * len(kept)


def _itself(tensor: Tensor) -> Tensor:
    return tensor


@dataclass
class _Frame:
    module: nn.Module
    done: list[Event] = field(default_factory=list)


class Recording(Pass):
    """Runs the model as it is.

    ``anchors`` see the value at each place once; with ``stop`` the pass ends after the last. The outputs of what runs
    before the places are noted if ``keep``, as copies if ``copied``: else the model may change them in place. For that
    the ids of the modules ``around`` the places are needed, see `enclosing`.
    """

    def __init__(
        self,
        around: Collection[int],
        places: Sequence[ModulePlace],
        anchors: Sequence[Anchor],
        tap: ModulePlace | None = None,
        keep: bool = True,
        stop: bool = False,
        copied: bool = False,
    ) -> None:
        super().__init__(places, tap)
        # Each is needed once, and then let go: what made it may hold this recording.
        self._anchors = dict(enumerate(anchors))
        self._keep, self._stop, self._copied = keep, stop, copied
        self.values: dict[int, Structure] = {}
        self.counts_at: dict[int, Counter[int]] = {}
        self.prefix: list[Event] | None = None
        """What ran before the first place, in order; None where it cannot be told."""
        self.counts_before: Counter[int] = Counter()
        self._frames: list[_Frame] = []
        self._started = False
        # Only what runs directly under a module that contains the place can be a largest finished module.
        self._ancestors = around

    def __call__(self, module: nn.Module, run: Run, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        self.counts[id(module)] += 1
        inputs, outputs = list(self.here(module, "input")), list(self.here(module, "output"))
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
        self.note_tap(module, output)
        if not self._started and self._frames and self._keep:
            outer = self._frames[-1]
            if id(outer.module) in self._ancestors:
                outer.done.append(Event.of(module, output, self._copied))
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
        anchored = self._anchors.pop(number)(value)
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
                times = "once" if count == 1 else f"{count} times"
                ran = f"it runs {times}" if count else "the model ran without calling it"
                remedy = "choose one that the forward pass uses"
                if isinstance(place.module, torch.jit.ScriptModule):
                    ran = "TorchScript runs the modules inside it out of sight"
                    remedy = "explain the inputs (layer=None), or the model that was scripted or traced"
                raise RuntimeError(f"the layer {str(place)!r} was not reached: {ran}; {remedy}")
