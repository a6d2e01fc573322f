"""What a model's modules keep in plain attributes and buffers, such as the state of a recurrent net between calls.

A forward pass that leaves something there changes what the next one gives. So each pass of an explanation starts from
what was there, and at the end it is there again. It is put back in the memory where it was, which a model may reach by
several names; so a pass of a model that keeps something is followed by its own backward pass before any other pass.
"""

import threading
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from torch import nn

from pnpx.attributors.copied import memory
from pnpx.attributors.found import Found
from pnpx.attributors.lasting import Lasting
from pnpx.attributors.wrapping import unwrapped
from pnpx.structure import map_tensors, tensors

_FREE = nullcontext()


class _Explained:
    """A model that is explained: as it was found, and how many explanations go on."""

    def __init__(self, model: nn.Module, others: Sequence["_Explained"] = ()) -> None:
        self.found: Found = Found(model, [other.found for other in others])
        self.lasting = Lasting(model, self.found)
        self.explanations = 0
        self.leaves: bool | None = None  # whether its passes leave something; None: none has been looked at
        self.warned = False  # of what is left for good, if there is any
        self.beside = [other for other in others if other.found.shares(self.found)]
        for other in self.beside:
            other.beside = [*other.beside, self]

    def may_keep(self) -> bool:
        """Whether its passes may leave something, or those of a model with the same parts."""
        return self.leaves is not False or any(other.leaves is not False for other in self.beside)

    def keeps(self) -> bool:
        """Whether they do, as far as was seen."""
        return bool(self.leaves) or any(other.leaves for other in self.beside)


_passing = threading.RLock()
"""Held by the passes of models that may keep something: one for all, so that explanations inside of explanations, in
several threads, never wait for each other."""
_lock = threading.Lock()
_explained: dict[int, _Explained] = {}


class Attributes:
    """The attributes and buffers of the modules of a model, as they are when this is made, or its explanation began.

    What is in lists, mappings and objects there is not looked into, only whether it is another one.
    """

    def __init__(self, model: nn.Module) -> None:
        model = unwrapped(model)
        with _lock:
            explained = _explained.get(id(model))
        self._explained = _Explained(model) if explained is None else explained
        self._looked = False

    @property
    def kept(self) -> bool:
        """Whether the model keeps something, as far as was seen, which each pass puts back."""
        return self._explained.keeps()

    @property
    def may_keep(self) -> bool:
        """Whether it does, or that is not known yet."""
        return self._explained.may_keep()

    def alone(self) -> AbstractContextManager[Any]:
        """Around a pass and its backward pass: another thread's pass would put back what they still need.

        Of a model that turns out to keep nothing it need not last longer than the pass.
        """
        return _passing if self.may_keep else _FREE

    def as_found(self) -> AbstractContextManager[None]:
        """Around a pass: what it finds is what was there first.

        Only the first pass is looked at for whether it leaves something: to look each time would take time. Of a model
        whose passes do, no two run at once, whichever threads they are of.
        """
        return _FREE if self._looked and not self.may_keep else self._as_found()

    @contextmanager
    def _as_found(self) -> Iterator[None]:
        with self.alone():
            if self._explained.keeps():
                self._put_back()
            try:
                yield
            except BaseException:
                self._put_back()
                raise
            self._look()

    def apart(self, output: Any) -> Any:
        """What a pass returns, but nothing in it shares memory that the next pass puts back."""
        self._look()
        if not self.kept:
            return output
        shared = self._explained.found.memories
        if not any(memory(leaf) in shared for leaf in tensors(output)):
            return output
        return map_tensors(lambda leaf: leaf.clone() if memory(leaf) in shared else leaf, output)

    def _look(self) -> None:
        if self._looked:
            return
        self._looked = True
        explained = self._explained
        written, moved = explained.found.look()
        if not explained.warned:
            explained.warned = True
            explained.lasting.warn(written)
        explained.leaves = bool(explained.leaves or written or moved)

    def _put_back(self) -> None:
        if self._explained.found.put_back():
            self._explained.leaves = True


@contextmanager
def explaining(model: nn.Module) -> Iterator[None]:
    """Around an explanation of ``model``; after the last that goes on, the attributes and buffers are put back."""
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
        with _passing, _lock:  # no pass of a model with the same parts goes on meanwhile
            explained.explanations -= 1
            if not explained.explanations:
                del _explained[key]
                for other in explained.beside:
                    other.beside = [one for one in other.beside if one is not explained]
                explained.found.restore()
                explained.lasting.warn_of_made()  # last, as a warning may be made an error
