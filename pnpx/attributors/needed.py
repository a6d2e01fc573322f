"""Finding out which outputs of the modules that a replay leaves out are used at all by what it runs.

Most are not: the output of a block goes into the next block, which is left out as well. Copying them for every chunk
would cost more than all else that a replay does, and keeping them holds memory.
"""

import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

# What asks for these does not read the numbers in a tensor.
_METADATA = frozenset(
    [
        *(
            getattr(Tensor, name).__get__
            for name in ("shape", "dtype", "device", "ndim", "requires_grad", "layout", "is_cuda", "grad_fn")
        ),
        Tensor.size,
        Tensor.dim,
        Tensor.numel,
        Tensor.is_floating_point,
        Tensor.is_complex,
        Tensor.__len__,
        torch.numel,
        torch.is_floating_point,
        torch.is_complex,
    ]
)


def hollow(tensor: Tensor, shape: Sequence[int]) -> Tensor:
    """A tensor like ``tensor``, of ``shape``, that takes no memory; NaN all over, lest its use go unnoticed."""
    return tensor.new_full((), torch.nan).expand(shape)


def can_be_hollow(leaf: Tensor, packed: bool) -> bool:
    """Whether NaN can stand for ``leaf``: it must have floats, which no code looks at but by functions of PyTorch."""
    return leaf.is_floating_point() and not packed


reads = threading.local()
"""``reads.count``: how often this thread has read what was dropped."""


class Dropped(Tensor):
    """What stands where an unused output was. Reading it is an error, so that it cannot go unnoticed.

    A model may take a way for some noise that it did not take for the batch itself.
    """

    @classmethod
    def __torch_function__(
        cls, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Tell shapes and the like; refuse everything else."""
        if func in _METADATA:
            return super().__torch_function__(func, types, tuple(args), kwargs or {})  # type: ignore[no-untyped-call]
        reads.count = getattr(reads, "count", 0) + 1  # noticed also where the model catches the error
        raise RuntimeError("the model reads an output that no pass over the batch itself has read")


Key = tuple[int, int]
"""Which tensor: the number of the event, or -1 for the model's arguments, and its number there."""


class Watch(TorchFunctionMode):
    """Hands out hollow tensors in place of others, and the others as soon as a function of PyTorch reads them.

    What reads them in another way computes NaN.
    """

    def __init__(self) -> None:
        super().__init__()
        self.used: set[Key] = set()
        self._held: dict[int, tuple[Key, Tensor, Callable[[], Tensor]]] = {}
        self._made: dict[int, Tensor] = {}

    def stand_in(self, key: Key, hollow: Tensor, make: Callable[[], Tensor]) -> Tensor:
        """``hollow``, in whose place ``make`` gives a tensor once it is read; then ``key`` is noted.

        The tensor may be changed in place.
        """
        self._held[id(hollow)] = key, hollow, make
        return hollow

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if self._held and func not in _METADATA and (self._stands_in(args) or self._stands_in(kwargs.values())):
            args, kwargs = self._filled(args), self._filled(kwargs)
        return func(*args, **kwargs)

    def _stands_in(self, values: Iterable[Any]) -> bool:
        for value in values:
            if isinstance(value, Tensor):
                if id(value) in self._held:
                    return True
            elif type(value) in (tuple, list):
                if self._stands_in(value):
                    return True
            elif type(value) is dict and self._stands_in(value.values()):
                return True
        return False

    def _filled(self, value: Any) -> Any:
        if isinstance(value, Tensor) and id(value) in self._held:
            key, _, make = self._held[id(value)]
            if id(value) not in self._made:
                self._made[id(value)] = make()
            self.used.add(key)
            return self._made[id(value)]
        if type(value) in (tuple, list):
            return type(value)(self._filled(item) for item in value)
        if type(value) is dict:
            return {key: self._filled(item) for key, item in value.items()}
        return value
