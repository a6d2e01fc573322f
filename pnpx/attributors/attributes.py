"""What a model's modules keep in plain attributes and buffers, such as the state of a recurrent net between calls.

A forward pass that leaves something there changes what the next one gives. So each pass of an explanation starts from
what was there, and at the end it is there again.
"""

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from pnpx.structure import tensors

_INTERNAL = frozenset([*nn.Module().__dict__, "forward"])  # ``forward`` is wrapped while a model is explained
_LARGEST = 16 * 2**20  # bytes; larger tensors are tables, which no forward pass writes to
_NOTHING = object()

_lock = threading.Lock()
_users: dict[int, Counter[int]] = {}
"""The threads that explain a model, by its id, each with how many times over."""


class _Copied(NamedTuple):
    version: int
    copy: Tensor


class _Change(NamedTuple):
    home: dict[str, Any]
    name: str
    old: Any
    copy: Tensor | None


class Attributes:
    """The attributes of the modules of a model, as they are when this is made.

    They are put back where a module keeps tensors between passes: those that were replaced, or changed in place, and
    whatever else that module has set meanwhile, such as a counter of steps. What is in lists, mappings and objects of
    its own is not looked into.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = id(model)
        modules = [module for module in model.modules() if not isinstance(module, torch.jit.ScriptModule)]
        homes = [(module.__dict__, module._buffers) for module in modules]
        self._before = [(plain, dict(plain), buffers, dict(buffers)) for plain, buffers in homes]
        # Buffers changed in place are the business of `guard`.
        kept = (value for module in modules for value in module.__dict__.values() if isinstance(value, Tensor))
        self._copies = {
            id(value): _Copied(value._version, value.detach().clone())
            for value in kept
            if not value.is_inference() and value.numel() * value.element_size() <= _LARGEST
        }
        self._moved: list[_Change] | None = None

    @contextmanager
    def as_found(self) -> Iterator[None]:
        """Around a pass: what it finds is what was there first.

        Only the first pass is looked at for what passes change: to look each time would take time. While others explain
        the model, nothing is put back: what they have made, such as a table, they may be about to use.
        """
        self._put_back(self._moved or [])
        try:
            yield
        except BaseException:
            self._put_back(self._changed())
            raise
        if self._moved is None:
            self._moved = self._changed()

    def put_all_back(self) -> None:
        """Undo whatever has changed, whoever explains the model; but for buffers, which `guard` restores."""
        _undo(self._changed(buffers=False))

    def _put_back(self, changes: list[_Change]) -> None:
        if changes:
            with _lock:  # nobody begins meanwhile
                if len(_users.get(self._model, ())) <= 1:
                    _undo(changes)

    def _changed(self, buffers: bool = True) -> list[_Change]:
        found = []
        for plain, plain_before, buffered, buffers_before in self._before:
            moved = [*self._changes(plain, plain_before)]
            of_buffers = [*self._changes(buffered, buffers_before)]
            if any(change.copy is not None or _keeps(change) for change in (*moved, *of_buffers)):
                found += [*moved, *of_buffers] if buffers else moved
        return found

    def _changes(self, home: dict[str, Any], before: dict[str, Any]) -> Iterator[_Change]:
        for name in before if home.keys() == before.keys() else home.keys() | before.keys():
            old = before.get(name, _NOTHING)
            copied = self._copies.get(id(old))
            copy = copied.copy if copied is not None and old._version != copied.version else None
            if name not in _INTERNAL and (copy is not None or home.get(name, _NOTHING) is not old):
                yield _Change(home, name, old, copy)


@contextmanager
def explaining(model: nn.Module) -> Iterator[None]:
    """Note that this thread explains ``model``."""
    thread = threading.get_ident()
    with _lock:
        _users.setdefault(id(model), Counter())[thread] += 1
    try:
        yield
    finally:
        with _lock:
            threads = _users[id(model)]
            threads[thread] -= 1
            if not threads[thread]:
                del threads[thread]
            if not threads:
                del _users[id(model)]


def _keeps(change: _Change) -> bool:
    """Whether a tensor is what was there, or what is there now."""
    return bool(tensors(change.old) or tensors(change.home.get(change.name)))


def _undo(changes: list[_Change]) -> None:
    for home, name, old, copy in changes:
        if old is _NOTHING:
            home.pop(name, None)
        else:
            home[name] = old
        if copy is not None:
            with torch.no_grad():
                old.data.copy_(copy)
