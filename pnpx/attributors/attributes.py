"""What a model's modules keep in plain attributes and buffers, such as the state of a recurrent net between calls.

A forward pass that leaves something there changes what the next one gives. So each pass of an explanation starts from
what was there, and at the end it is there again. It is put back in the memory where it was, which a model may reach by
several names; so a pass of a model that keeps something is followed by its own backward pass before any other pass.
"""

import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Any

from torch import Tensor, nn

from pnpx.attributors.found import Found
from pnpx.attributors.lasting import Lasting
from pnpx.attributors.wrapping import unwrapped
from pnpx.structure import map_tensors

_FREE = nullcontext()


class _Explained:
    """A model that is explained: as it was found, and how many explanations go on."""

    def __init__(self, model: nn.Module, others: Sequence["_Explained"] = ()) -> None:
        self.found: Found = Found(model, [other.found for other in others])
        self.lasting = Lasting(model, self.found)
        self.explanations = 0
        self.leaves: bool | None = None  # whether its passes leave something; None: none has been looked at
        self.beside = [other for other in others if other.found.shares(self.found)]
        for other in self.beside:
            other.beside = [*other.beside, self]
        # Those of all that it has parts in common with, in one order everywhere; or else one of its own.
        locks = {id(lock): lock for other in self.beside for lock in other._passing}
        self._passing: list[threading.RLock] = [locks[number] for number in sorted(locks)] or [threading.RLock()]

    def may_keep(self) -> bool:
        """Whether its passes may leave something, or those of a model with the same parts."""
        return self.leaves is not False or any(other.leaves is not False for other in self.beside)

    def keeps(self) -> bool:
        """Whether they do, as far as was seen."""
        return bool(self.leaves) or any(other.leaves for other in self.beside)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Meanwhile no other thread runs it, or a model with the same parts, if it may keep something."""
        with ExitStack() as stack:
            for lock in self._passing:
                stack.enter_context(lock)
            yield


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

    def alone(self) -> AbstractContextManager[None]:
        """Around a pass and its backward pass: another thread's pass would put back what they still need."""
        return self._explained.alone() if self._explained.may_keep() else _FREE

    def as_found(self) -> AbstractContextManager[None]:
        """Around a pass: what it finds is what was there first.

        Only the first pass is looked at for whether it leaves something: to look each time would take time. Of a model
        whose passes do, no two run at once, whichever threads they are of.
        """
        return _FREE if self._looked and not self._explained.may_keep() else self._as_found()

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
        """What a pass returns, in memory of its own if the model keeps something: that may be what is returned."""
        self._look()
        return map_tensors(Tensor.clone, output) if self.kept else output

    def _look(self) -> None:
        if self._looked:
            return
        self._looked = True
        explained = self._explained
        written, moved = explained.found.look()
        if explained.leaves is None:
            explained.lasting.warn(written)
        explained.leaves = bool(explained.leaves or written or moved)

    def _put_back(self) -> None:
        if self._explained.found.put_back():
            self._explained.leaves = True


def warn_of_uncut(model: nn.Module, size: int) -> None:
    """For a batch that was cut: the model, which is being explained, may have kept a row for each of its samples."""
    found = _explained[id(unwrapped(model))].found
    if names := found.cut(size):
        kept = " and ".join(map(repr, names))
        warnings.warn(
            f"the model keeps {kept} between its passes, of {size} rows as the batch, but made it anew for parts of "
            f"the batch; to have it as it was found, give batch_size={size}",
            RuntimeWarning,
            stacklevel=2,
        )


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
        with explained.alone(), _lock:  # no pass of a model with the same parts goes on meanwhile
            explained.explanations -= 1
            if not explained.explanations:
                del _explained[key]
                for other in explained.beside:
                    other.beside = [one for one in other.beside if one is not explained]
                explained.found.restore()
