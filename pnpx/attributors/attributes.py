"""What a model's modules keep in plain attributes and buffers, such as the state of a recurrent net between calls.

A forward pass that leaves something there changes what the next one gives. So each pass of an explanation starts from
what was there, and at the end it is there again.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from pnpx.structure import tensors

_INTERNAL = frozenset([*nn.Module().__dict__, "forward"])  # ``forward`` is wrapped while a model is explained
_NOTHING = object()


class Attributes:
    """The attributes of the modules of a model, by reference, as they are when this is made.

    Only those are put back that hold tensors, or held some: others, such as counters, are no matter of a pass's result.
    With ``buffers`` these as well.
    """

    def __init__(self, model: nn.Module, buffers: bool = True) -> None:
        modules = [module for module in model.modules() if not isinstance(module, torch.jit.ScriptModule)]
        homes = [module.__dict__ for module in modules] + [module._buffers for module in modules if buffers]
        self._before = [(home, dict(home)) for home in homes]
        self._moved: list[tuple[dict[str, Any], str, Any]] | None = None

    @contextmanager
    def as_found(self) -> Iterator[None]:
        """Around a pass: what it finds is what was there first.

        Only the first pass is looked at for what passes change: to look each time would take time.
        """
        _put_back(self._moved or [])
        try:
            yield
        except BaseException:
            self.put_all_back()
            raise
        if self._moved is None:
            self._moved = self._changed()

    def put_all_back(self) -> None:
        """Undo whatever has changed."""
        _put_back(self._changed())

    def _changed(self) -> list[tuple[dict[str, Any], str, Any]]:
        found = []
        for home, before in self._before:
            for name in before if home.keys() == before.keys() else home.keys() | before.keys():
                old, new = before.get(name, _NOTHING), home.get(name, _NOTHING)
                if old is not new and name not in _INTERNAL and (tensors(old) or tensors(new)):
                    found.append((home, name, old))
        return found


def _put_back(changes: list[tuple[dict[str, Any], str, Any]]) -> None:
    for home, name, old in changes:
        if old is _NOTHING:
            home.pop(name, None)
        else:
            home[name] = old
