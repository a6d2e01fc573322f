"""What a model's modules keep in plain attributes and buffers, such as the state of a recurrent net between calls.

A forward pass that leaves something there changes what the next one gives. So each pass of an explanation starts from
what was there, and at the end it is there again.
"""

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from itertools import accumulate, chain, pairwise
from operator import is_
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from pnpx.attributors.wrapping import unwrapped
from pnpx.structure import tensors

_INTERNAL = frozenset([*nn.Module().__dict__, "forward"])  # ``forward`` is wrapped while a model is explained
_LARGEST = 16 * 2**20  # bytes; larger tensors are tables, which no forward pass writes to
_NOTHING = object()


class _Copied(NamedTuple):
    """A tensor, its version, its content, and whether nothing else in sight has the tensor or its memory."""

    tensor: Tensor
    version: int
    copy: Tensor
    alone: bool


class _Change(NamedTuple):
    home: dict[str, Any]
    name: str
    old: Any
    in_place: _Copied | None
    """What ``old`` held, if it was changed in place."""


class Found:
    """The attributes and buffers of the modules of a model, as they are when this is made."""

    def __init__(self, model: nn.Module) -> None:
        modules = [module for module in model.modules() if not isinstance(module, torch.jit.ScriptModule)]
        self._homes = [home for module in modules for home in (module.__dict__, module._buffers)]
        # Copied one by one, as other threads may change them; then flat, and compared as a whole: most models keep
        # nothing, and have hundreds of modules.
        probe = {"": torch.empty(0)}  # a tensor that nothing else has
        copies = [dict(home) for home in [*self._homes, probe]]
        self._names = [*chain.from_iterable(copies)]
        self._values = [*chain.from_iterable(home.values() for home in copies)]
        self._starts = [0, *accumulate(map(len, copies[:-1]))]
        kinds = {kind for kind in set(map(type, self._values)) if issubclass(kind, Tensor)}
        kept = [value for value in self._values if type(value) in kinds]
        del copies
        uses = [_uses(value) for value in kept]
        self._copies = {
            id(value): _Copied(value, value._version, value.detach().clone(), used == uses[-1])
            for value, used in zip(kept[:-1], uses, strict=False)
            if not value.is_inference() and value.numel() * value.element_size() <= _LARGEST
        }
        self._names.pop()
        self._values.pop()
        self._keeping: set[int] = set()  # which modules, by number, were seen to keep a tensor

    def changed(self, buffers: bool = True) -> list[_Change]:
        """What has changed since, in the modules that keep a tensor; without ``buffers``, but for those."""
        if self._is_as_it_was():
            return []
        found, numbers = list[_Change](), list[_Change]()
        spans = enumerate(pairwise(self._starts))
        for (number, of_plain), (_, of_buffers) in zip(spans, spans, strict=True):
            moved = [*self._changes(self._homes[number], *of_plain)]
            replaced = [*self._changes(self._homes[number + 1], *of_buffers)]
            if any(change.in_place is not None or _keeps(change) for change in (*moved, *replaced)):
                self._keeping.add(number)
            if number in self._keeping:
                found += [*moved, *replaced] if buffers else moved
            else:
                numbers += filter(_counts, moved)
        # Where tensors are kept, what another module counts may tell where in them, as a position in caches does.
        return found + numbers if self._keeping else []

    def _is_as_it_was(self) -> bool:
        try:
            return (
                all(copied.tensor._version == copied.version for copied in self._copies.values())
                and [*chain.from_iterable(self._homes)] == self._names
                and all(map(is_, chain.from_iterable(home.values() for home in self._homes), self._values))
            )
        except RuntimeError:  # another thread has changed one meanwhile
            return False

    def _changes(self, home: dict[str, Any], start: int, stop: int) -> Iterator[_Change]:
        before = dict(zip(self._names[start:stop], self._values[start:stop], strict=True))
        now = dict(home)
        for name in before if now.keys() == before.keys() else now.keys() | before.keys():
            old = before.get(name, _NOTHING)
            copied = self._copies.get(id(old))
            in_place = copied if copied is not None and old._version != copied.version else None
            if name not in _INTERNAL and (in_place is not None or now.get(name, _NOTHING) is not old):
                yield _Change(home, name, old, in_place)


class _Explained:
    """A model that is explained: as it was found, and how many explanations go on."""

    def __init__(self, model: nn.Module) -> None:
        self.found, self.explanations = Found(model), 0
        self.passing = threading.RLock()
        self.keeps: bool | None = None  # whether its passes leave something; None: none has been looked at


_lock = threading.Lock()
_explained: dict[int, _Explained] = {}


class Attributes:
    """The attributes and buffers of the modules of a model, as they are when this is made, or its explanation began.

    They are put back where a module keeps tensors between passes: those that were replaced, or changed in place, and
    whatever else that module has set meanwhile, such as a counter of steps; of other modules then numbers. What is in
    lists, mappings and objects of its own is not looked into.
    """

    def __init__(self, model: nn.Module) -> None:
        model = unwrapped(model)
        with _lock:
            explained = _explained.get(id(model))
        self._explained = _Explained(model) if explained is None else explained
        self._looked = False

    @contextmanager
    def as_found(self) -> Iterator[None]:
        """Around a pass: what it finds is what was there first.

        Only the first pass is looked at for whether it leaves something: to look each time would take time. Of a model
        whose passes do, no two run at once, whichever threads they are of.
        """
        explained = self._explained
        with explained.passing if explained.keeps is not False else nullcontext():
            if explained.keeps:
                self._put_back()
            try:
                yield
            except BaseException:
                self._put_back()
                raise
            if not self._looked:
                self._looked = True
                explained.keeps = bool(explained.keeps or explained.found.changed())

    def _put_back(self) -> None:
        explained = self._explained
        if changes := explained.found.changed():
            explained.keeps = True
            _undo(changes, apart=True)


@contextmanager
def explaining(model: nn.Module) -> Iterator[None]:
    """Around an explanation of ``model``; after the last that goes on, the attributes are put back, but for buffers.

    Those `guard` restores.
    """
    model = unwrapped(model)
    key = id(model)
    with _lock:
        if key not in _explained:
            _explained[key] = _Explained(model)
        explained = _explained[key]
        explained.explanations += 1
    try:
        yield
    finally:
        with _lock:
            explained.explanations -= 1
            if not explained.explanations:
                del _explained[key]
                _undo(explained.found.changed(buffers=False))


def _uses(tensor: Tensor) -> tuple[int, int]:
    """How many references there are to a tensor, and how many tensors share its memory."""
    return sys.getrefcount(tensor), torch._C._storage_Use_Count(tensor.untyped_storage()._cdata)


def _keeps(change: _Change) -> bool:
    """Whether a tensor is what was there, or what is there now."""
    return bool(tensors(change.old) or tensors(change.home.get(change.name)))


def _counts(change: _Change) -> bool:
    """Whether a number is what was there, and what is there now."""
    return all(isinstance(value, (int, float)) for value in (change.old, change.home.get(change.name)))


def _undo(changes: list[_Change], apart: bool = False) -> None:
    """Put back what was there.

    With ``apart`` a copy of what was changed in place, since the graph of a pass may hold that; but not of what has
    another name, or shares its memory: the model may write by one name and read by the other.
    """
    for home, name, old, in_place in changes:
        if old is _NOTHING:
            home.pop(name, None)
        elif in_place is not None and apart and in_place.alone:
            home[name] = in_place.copy.clone()
        else:
            home[name] = old
            if in_place is not None:
                with torch.no_grad():
                    old.data.copy_(in_place.copy)
