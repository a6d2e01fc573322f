"""What the modules of a model hold in plain attributes and buffers, as it was found.

Put back is, where passes of the model leave a tensor or a number there, all that they have set, also flags and objects
that go with it. But where they have set up something once, such as hooks or further modules, only tensors and numbers
are put back: flags and handles say that it is there.
"""

from collections.abc import Iterator, Sequence
from dataclasses import is_dataclass
from itertools import chain
from operator import is_
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from pnpx.attributors.copied import Copied, memory

_INTERNAL = frozenset([*nn.Module().__dict__, "forward"])  # ``forward`` is wrapped while a model is explained
_PARTS = "_forward_hooks", "_forward_pre_hooks", "_modules", "_parameters"
_PLAIN = (bool, int, float, complex, str, bytes, np.generic)
_NOTHING = object()
_DEPTH = 3  # of containers in which a tensor is looked for


class _Change(NamedTuple):
    home: dict[str, Any]
    name: str
    old: Any
    new: Any

    @property
    def of_state(self) -> bool:
        """Whether a tensor or a number is what was there, or what is there now."""
        return any(_holds_tensor(value) or _is_number(value) for value in (self.old, self.new))


class Found:
    """The attributes and buffers of the ``modules`` of a model, as they are when this is made.

    Of what the model has in common with ``others``, which are explained already, as they were found for those.
    """

    def __init__(self, model: nn.Module, others: Sequence["Found"] = ()) -> None:
        self.modules = [module for module in model.modules() if not isinstance(module, torch.jit.ScriptModule)]
        self._homes: list[dict[str, Any]] = [
            home for module in self.modules for home in (module.__dict__, module._buffers)
        ]
        known = {id(home): before for other in others for home, before in other._all()}
        # Copied in one go each, as other threads may change them.
        self._before: list[dict[str, Any]] = [
            known[id(home)] if id(home) in known else dict(home) for home in self._homes
        ]
        self._unsaved = [frozenset(module._non_persistent_buffers_set) for module in self.modules]
        self._parts = self._count_parts()
        values = [*chain.from_iterable(before.values() for before in self._before)]
        kinds = {kind for kind in set(map(type, values)) if issubclass(kind, Tensor)}
        copies = {number: copied for other in others for number, copied in other._copies.items()}
        kept = [value for value in values if type(value) in kinds]
        self._copies: dict[int, Copied] = {id(one): copies.get(id(one)) or Copied(one) for one in kept}

    def shares(self, other: "Found") -> bool:
        """Whether two models have a module or a tensor in common."""
        homes = {id(home) for home in self._homes}
        return not (homes.isdisjoint(map(id, other._homes)) and self._copies.keys().isdisjoint(other._copies))

    @property
    def grew(self) -> bool:
        """Whether there are other hooks, modules or weights now."""
        return self._count_parts() != self._parts

    def look(self) -> tuple[list[Copied], list[_Change]]:
        """Which tensors passes have changed in place, and which attributes are to be put back; see above."""
        written = [copied for copied in self._copies.values() if copied.changed]
        moved = [change for home, before in self._differing() for change in _changes(home, before)]
        if stuck := {id(copied) for copied in written if copied.stuck}:
            held = [(home, name, old) for home, before in self._all() for name, old in before.items()]
            moved += [_Change(*one, one[-1]) for one in held if id(self._copies.get(id(one[-1]))) in stuck]
        if not written and not any(change.of_state for change in moved):
            return [], []
        if self.grew:
            moved = [change for change in moved if change.of_state]
        return written, moved

    def put_back(self) -> bool:
        """Put back what passes have left; whether that was anything."""
        written, moved = self.look()
        for copied in written:
            copied.restore()
        for home, name, old, _ in moved:
            if old is _NOTHING:
                home.pop(name, None)
            else:
                home[name] = self._as_it_was(old)
        return bool(written or moved)

    def restore(self) -> None:
        """Put everything back at the end: buffers also where they were changed unseen, or others were registered."""
        self.put_back()
        for copied in self._copies.values():
            copied.restore()
        for home, before in self._differing():
            if "_buffers" not in home:  # they are buffers themselves
                home.clear()
                home.update({name: self._as_it_was(old) for name, old in before.items()})
        for module, unsaved in zip(self.modules, self._unsaved, strict=True):
            if module._non_persistent_buffers_set != unsaved:
                module._non_persistent_buffers_set.clear()
                module._non_persistent_buffers_set.update(unsaved)

    @property
    def memories(self) -> set[int]:
        """Those of the tensors found, see `copied.memory`."""
        return {where for copied in self._copies.values() if (where := memory(copied.tensor)) is not None}

    def names_of(self, copied: Copied) -> list[str]:
        """The attributes and buffers that hold a tensor."""
        return [name for before in self._before for name, old in before.items() if self._copies.get(id(old)) is copied]

    def _as_it_was(self, value: Any) -> Any:
        return self._copies[id(value)].tensor if id(value) in self._copies else value

    def _all(self) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
        return zip(self._homes, self._before, strict=True)

    def _differing(self) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
        """The homes of attributes and buffers that hold others now, with what they held; fast, as most never change."""
        for home, before in self._all():
            try:
                as_many = len(home) - ("forward" in home) == len(before) - ("forward" in before)
                if as_many and all(map(is_, before.values(), home.values())):
                    continue
            except RuntimeError:  # another thread has wrapped the module meanwhile
                pass
            yield home, before

    def _count_parts(self) -> int:
        return sum(len(module.__dict__[kind]) for module in self.modules for kind in _PARTS)


def _changes(home: dict[str, Any], before: dict[str, Any]) -> Iterator[_Change]:
    now = dict(home)
    for name in {**before, **now}:
        old, new = before.get(name, _NOTHING), now.get(name, _NOTHING)
        equal = type(old) is type(new) and isinstance(old, _PLAIN) and old == new
        if name in _INTERNAL or new is old or equal:
            continue
        if new is _NOTHING and any(name in home.get(kind, ()) for kind in ("_modules", "_parameters")):
            continue  # it has become a part of the module, made by its first call: that stays
        yield _Change(home, name, old, new)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float, complex, np.number)) and not isinstance(value, bool)


def _holds_tensor(value: Any, depth: int = _DEPTH) -> bool:
    if isinstance(value, Tensor) or not depth:
        return isinstance(value, Tensor)
    inside: list[Any] = []
    if isinstance(value, (tuple, list)):
        inside = [*value]
    elif isinstance(value, dict) or is_dataclass(value):
        inside = [*(value if isinstance(value, dict) else getattr(value, "__dict__", {})).values()]
    return any(_holds_tensor(item, depth - 1) for item in inside)
