"""Whether a model decides by numbers that it computes what it runs: an early exit, say, or as many steps as it takes.

What is decided for several copies of a batch at once is not what each would decide. A pass shows it only where the
copies differ in that, so that the decisions themselves are looked for.
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence
from torch.overrides import TorchFunctionMode

from pnpx.structure import Structure, is_container, items

# What gives Python the numbers in a tensor.
_READS: frozenset[Any] = frozenset(
    [
        Tensor.__bool__,
        Tensor.__complex__,
        Tensor.__contains__,
        Tensor.__float__,
        Tensor.__index__,
        Tensor.__int__,
        Tensor.allclose,
        Tensor.equal,
        Tensor.is_nonzero,
        Tensor.item,
        Tensor.numpy,
        Tensor.tolist,
        torch.allclose,
        torch.equal,
        torch.is_nonzero,
    ]
)


class Decisions(TorchFunctionMode):
    """Follows what is computed from the tensors in ``given``; ``made``: whether Python has looked at numbers in it."""

    def __init__(self, given: Structure) -> None:
        super().__init__()
        self.made = False
        # Held, so that none goes and another one takes its id.
        self._followed = {id(tensor): tensor for tensor in _tensors(given)}

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if self.made or not any(id(tensor) in self._followed for tensor in _tensors((args, kwargs))):
            return func(*args, **kwargs)
        self.made = func in _READS
        found = func(*args, **kwargs)
        changed = args[0] if func is Tensor.__setitem__ else kwargs.get("out")
        self._followed.update({id(tensor): tensor for tensor in _tensors((found, changed))})
        return found


_PLAIN = frozenset([int, float, bool, str, type(None), slice, torch.dtype, torch.device])


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif type(value) in _PLAIN:  # most arguments are: asked first, since every function of the pass comes by here
        return
    elif isinstance(value, PackedSequence):
        yield value.data
    elif is_container(value):
        for _, item in items(value):
            yield from _tensors(item)
