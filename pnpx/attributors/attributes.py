"""What a model's modules keep in plain attributes and buffers, such as the state of a recurrent net between calls.

A forward pass that leaves something there changes what the next one gives. So each pass of an explanation starts from
what was there, and at the end it is there again.
"""

import threading
import warnings
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from itertools import accumulate, chain, pairwise
from operator import is_
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from pnpx.attributors.wrapping import unwrapped
from pnpx.structure import tensors

_INTERNAL = frozenset([*nn.Module().__dict__, "forward"])  # ``forward`` is wrapped while a model is explained
_LARGEST = 16 * 2**20  # bytes; larger tensors are tables, packed weights and the like: copies would take too much
_NOTHING = object()
_DEPTH = 4  # how deep in lists, mappings and objects another name of a tensor is looked for


class Copied:
    """What a tensor is when this is made; of one over 16 MiB only whether it is `changed` can be told."""

    def __init__(self, tensor: Tensor) -> None:
        self._tensor, self._version, self._attached = tensor, tensor._version, tensor.grad_fn is not None
        small = tensor.numel() * tensor.element_size() <= _LARGEST
        self.copy: Tensor | None = tensor.detach().clone() if small else None

    @property
    def changed(self) -> bool:
        """Whether it was changed in place, as far as autograd knows."""
        return self._tensor._version != self._version

    def restore(self) -> None:
        """Give the tensor its value back, in its own memory, which other tensors may look at.

        It counts as a change: the graph of a pass that has kept what the tensor was is going to say so.
        """
        tensor, copy = self._tensor, self.copy
        with torch.no_grad():
            if tensor.grad_fn is not None and not self._attached and not tensor._is_view():
                tensor.detach_()
            if copy is None:
                return
            if tensor.layout != torch.strided:
                if self.changed:
                    tensor.copy_(copy)
            elif tensor.shape != copy.shape or tensor.dtype != copy.dtype:
                tensor.data = copy.clone()
            elif not torch.equal(tensor, copy):
                tensor.detach().copy_(copy)


class _Change(NamedTuple):
    home: dict[str, Any]
    name: str
    old: Any
    in_place: Copied | None
    """What ``old`` held, if it was changed in place."""


class Found:
    """The attributes and buffers of the modules of a model, as they are when this is made.

    Of what the model has in common with ``others``, which are explained already, as they were found for those.
    """

    def __init__(self, model: nn.Module, others: Sequence["Found"] = ()) -> None:
        modules = [module for module in model.modules() if not isinstance(module, torch.jit.ScriptModule)]
        self._plain = [module.__dict__ for module in modules]
        self._homes: list[dict[str, Any]] = [home for module in modules for home in (module.__dict__, module._buffers)]
        # Copied one by one, as other threads may change them; then flat, and compared as a whole: most models keep
        # nothing, and have hundreds of modules.
        held = {number: attributes for other in others for number, attributes in other._by_home()}
        copies = [held[id(home)] if id(home) in held else dict(home) for home in self._homes]
        self._names = [*chain.from_iterable(copies)]
        self._values = [*chain.from_iterable(home.values() for home in copies)]
        self._starts = [0, *accumulate(map(len, copies))]
        kinds = {kind for kind in set(map(type, self._values)) if issubclass(kind, Tensor)}
        kept = [value for value in self._values if type(value) in kinds and not value.is_inference()]
        known = {number: copied for other in others for number, copied in other._copies.items()}
        self._copies: dict[int, Copied] = {id(one): known.get(id(one)) or Copied(one) for one in kept}
        self._keeping: set[int] = set()  # which modules, by number, were seen to keep a tensor
        self._memories: Counter[int] | None = None
        self._hooks = self._count_hooks()

    def shares(self, other: "Found") -> bool:
        """Whether two models have a module in common."""
        return not {id(home) for home in self._homes}.isdisjoint(id(home) for home in other._homes)

    def _by_home(self) -> Iterator[tuple[int, dict[str, Any]]]:
        for home, (start, stop) in zip(self._homes, pairwise(self._starts), strict=True):
            yield id(home), dict(zip(self._names[start:stop], self._values[start:stop], strict=True))

    def _count_hooks(self) -> int:
        kinds = "_forward_hooks", "_forward_pre_hooks"
        return sum(len(home[kind]) for home in self._plain for kind in kinds)

    def is_alone(self, tensor: Tensor) -> bool:
        """Whether the model has no other name for ``tensor`` or its memory."""
        if self._memories is None:
            pairs = zip(self._names, self._values, strict=True)
            self._memories = _memories(v for name, v in pairs if name not in _INTERNAL or name == "_parameters")
        return self._memories[_memory(tensor)] == 1

    def changed(self, buffers: bool = True) -> list[_Change]:
        """What has changed since, in the modules that keep a tensor; without ``buffers``, but for those."""
        if self._is_as_it_was():
            return []
        found, numbers, beside = list[_Change](), list[_Change](), list[_Change]()
        spans = enumerate(pairwise(self._starts))
        for (number, of_plain), (_, of_buffers) in zip(spans, spans, strict=True):
            moved = [*self._changes(self._homes[number], *of_plain)]
            replaced = [*self._changes(self._homes[number + 1], *of_buffers)]
            if any(change.in_place is not None or _keeps(change) for change in (*moved, *replaced)):
                self._keeping.add(number)
            if number in self._keeping:
                found += [*moved, *replaced] if buffers else moved
            else:
                counts = [*filter(_counts, moved)]
                numbers += counts
                if counts and any(id(value) in self._copies for value in self._values[of_plain[0] : of_buffers[1]]):
                    beside += [one for one in counts if not isinstance(one.home[one.name], bool)]
        # Where a tensor is kept, what any module counts may tell where in it. Where none is yet, what is counted beside
        # one that is there may tell when to make that anew; flags say what was set up once, such as hooks, and stay.
        found += numbers if self._keeping else beside
        if self._count_hooks() != self._hooks:
            found = [one for one in found if one.old is not _NOTHING or not isinstance(one.home.get(one.name), bool)]
        return found

    def _is_as_it_was(self) -> bool:
        try:
            return (
                not any(copied.changed for copied in self._copies.values())
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
            in_place = copied if copied is not None and copied.changed else None
            if name in _INTERNAL or (in_place is None and now.get(name, _NOTHING) is old):
                continue
            if name not in now and any(name in home.get(kind, ()) for kind in ("_modules", "_parameters")):
                continue  # it has become a part of the module, made by its first call: that stays
            yield _Change(home, name, old, in_place)


class _Explained:
    """A model that is explained: as it was found, and how many explanations go on."""

    def __init__(self, model: nn.Module, others: Sequence["_Explained"] = ()) -> None:
        self.found: Found = Found(model, [other.found for other in others])
        self.explanations = 0
        beside = [other for other in others if other.found.shares(self.found)]
        self.shared = bool(beside)  # another may have changed what its first pass is to find
        for other in beside:
            other.shared = True
        # Those of all that it has parts in common with, in one order everywhere; or else one of its own.
        locks = {id(lock): lock for other in beside for lock in other.passing}
        self.passing: list[threading.RLock] = [locks[number] for number in sorted(locks)] or [threading.RLock()]
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
        with ExitStack() as alone:
            if explained.keeps is not False:
                for lock in explained.passing:
                    alone.enter_context(lock)
            if explained.keeps or (explained.shared and not self._looked):
                self._put_back()
            try:
                yield
            except BaseException:
                self._put_back()
                raise
            if not self._looked:
                self._looked = True
                changes = explained.found.changed()
                explained.keeps = bool(explained.keeps or changes)
                _warn_of_large(changes)

    def _put_back(self) -> None:
        explained = self._explained
        if changes := explained.found.changed():
            explained.keeps = True
            _undo(changes, explained.found)


@contextmanager
def explaining(model: nn.Module) -> Iterator[None]:
    """Around an explanation of ``model``; after the last that goes on, the attributes are put back, but for buffers.

    Those `guard` restores.
    """
    model = unwrapped(model)
    key = id(model)
    with _lock:
        if key not in _explained:
            _explained[key] = _Explained(model, [*_explained.values()])
        explained = _explained[key]
        explained.explanations += 1
    try:
        yield
    finally:
        with ExitStack() as alone:
            for lock in explained.passing:  # no pass of a model with the same parts goes on meanwhile
                alone.enter_context(lock)
            with _lock:
                explained.explanations -= 1
                if not explained.explanations:
                    del _explained[key]
                    _undo(explained.found.changed(buffers=False))


def _memory(tensor: Tensor) -> int:
    """Equal for tensors that share memory."""
    try:
        address = tensor.untyped_storage().data_ptr()
    except (NotImplementedError, RuntimeError):  # sparse tensors have several, others none of their own
        address = 0
    return address or id(tensor)


def _memories(values: Iterable[Any]) -> Counter[int]:
    """How many names there are for the memory of each tensor: in ``values``, and in containers and objects in them."""
    found, seen = Counter[int](), set[int]()
    waiting = [*values]
    for _ in range(_DEPTH):
        inside: list[Any] = []
        for value in waiting:
            if isinstance(value, Tensor):
                found[_memory(value)] += 1
            elif id(value) not in seen and not isinstance(value, (nn.Module, type)):
                seen.add(id(value))
                if isinstance(value, Mapping):
                    inside += value.values()
                elif isinstance(value, (list, tuple, set, frozenset, deque)):
                    inside += value
                else:
                    inside += getattr(value, "__dict__", {}).values()
        waiting = inside
    return found


def _warn_of_large(changes: list[_Change]) -> None:
    names = [change.name for change in changes if change.in_place is not None and change.in_place.copy is None]
    if names:
        warnings.warn(
            f"the model changes {' and '.join(map(repr, names))} in place, which takes over {_LARGEST >> 20} MiB, and "
            "so is not put back: the attributions may depend on how many passes there were, and it stays changed; turn "
            "that off in the model, or explain a copy of it",
            RuntimeWarning,
            stacklevel=2,
        )


def _keeps(change: _Change) -> bool:
    """Whether a tensor is what was there, or what is there now."""
    return bool(tensors(change.old) or tensors(change.home.get(change.name)))


def _counts(change: _Change) -> bool:
    """Whether a number is what was there, and what is there now."""
    return all(isinstance(value, (int, float)) for value in (change.old, change.home.get(change.name)))


def _undo(changes: list[_Change], found: Found | None = None) -> None:
    """Put back what was there.

    Given what was ``found``, a copy of what was changed in place, since the graph of a pass may hold that; but not of
    what the model has another name for: it may write by one name and read by the other.
    """
    for home, name, old, in_place in changes:
        if old is _NOTHING:
            home.pop(name, None)
        elif found is not None and in_place is not None and in_place.copy is not None and found.is_alone(old):
            home[name] = in_place.copy.clone()
        else:
            home[name] = old
            if in_place is not None:
                in_place.restore()
