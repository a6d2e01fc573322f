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


def _called(*names: str) -> frozenset[Any]:
    """What PyTorch has under these ``names``: functions, and methods of tensors."""
    homes = (torch, Tensor)
    return frozenset(getattr(home, name) for name in names for home in homes if hasattr(home, name))


# What gives Python the numbers in a tensor.
_READS = _called(
    *("__array__", "__bool__", "__complex__", "__contains__", "__dlpack__", "__float__", "__index__", "__int__"),
    *("allclose", "equal", "is_nonzero", "item", "numpy", "tolist"),
)
# What gives tensors as large as the numbers in others say, such as the places where something holds.
_REPEATS = _called("repeat_interleave")
_SELECTS = _REPEATS | _called("argwhere", "bincount", "masked_select", "nonzero", "unique", "unique_consecutive")
# What tells how large a tensor is.
_SIZES = _called("__iter__", "__len__", "numel", "size", "unbind") | {Tensor.shape.__get__}  # type: ignore[attr-defined]
# What makes a tensor as large as a number says: such a number may be in a tensor.
_MAKES = _called("arange", "empty", "eye", "full", "linspace", "ones", "rand", "randn", "zeros")
_MAKES_LIKE = _called(
    *("broadcast_to", "chunk", "expand", "narrow", "new_empty", "new_full", "new_ones", "new_zeros", "repeat"),
    *("reshape", "split", "tensor_split", "tile", "unflatten", "view"),
)
_PACKS = frozenset(["_pack_padded_sequence", "_pad_packed_sequence"])
# Only these may decide something, or select; most functions of a pass are others.
_TELLING = _READS | _SELECTS | _SIZES | _MAKES | _MAKES_LIKE | {Tensor.__getitem__, torch.where}
_PLAIN = frozenset([int, float, bool, str, type(None), torch.dtype, torch.device])


class Decisions(TorchFunctionMode):
    """Follows what is computed from the tensors in ``given``; ``made``: whether Python has looked at numbers in it.

    The size of a tensor is such a number where it depends on others, as that of those that exceed a threshold does.
    """

    def __init__(self, given: Structure) -> None:
        super().__init__()
        self.made = False
        # Held, so that none goes and another one takes its id.
        self._followed = {id(tensor): tensor for tensor in _tensors(given)}
        self._selected: dict[int, set[int]] = {}  # of those whose size depends on numbers, how long they are

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if self.made:
            return func(*args, **kwargs)
        given = _given(args, kwargs)
        if not any(id(tensor) in self._followed for tensor in given):
            return func(*args, **kwargs)
        telling = func in _TELLING
        self.made = telling and self._decides(func, args, kwargs)
        found = func(*args, **kwargs)
        if type(found) is Tensor and not telling and not self._selected:
            self._followed[id(found)] = found
            return found
        packs = getattr(func, "__name__", "") in _PACKS and not self._any(self._followed, args[1:])
        new = found[:1] if packs else found  # what is beside the data goes by the lengths given, not by the data
        changed = args[0] if func is Tensor.__setitem__ else kwargs.get("out")
        self._followed.update({id(tensor): tensor for tensor in _tensors((new, changed))})
        if telling or self._selected:
            for tensor in _tensors(new):
                if lengths := self._selection(func, args, kwargs, given, tensor):
                    self._selected[id(tensor)] = lengths
        return found

    def _decides(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        if func in _READS:
            return True
        if func in _SIZES:
            return self._any(self._selected, args)
        if func in _MAKES:
            return self._any(self._followed, (args, {key: kwargs[key] for key in kwargs if key != "out"}))
        if func in _MAKES_LIKE:
            return self._any(self._followed, (args[1:], {key: kwargs[key] for key in kwargs if key != "input"}))
        if func is Tensor.__getitem__:
            return any(self._any(self._followed, (one.start, one.stop, one.step)) for one in _slices(args[1]))
        return False

    def _selection(
        self,
        func: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        given: list[Tensor],
        found: Tensor,
    ) -> set[int]:
        """The lengths of axes of ``found``, which ``func`` makes of the tensors ``given``, that depend on numbers."""
        if func in _SELECTS or (func is torch.where and len(args) + len(kwargs) == 1):
            return set(found.shape[:1] if func not in _REPEATS else found.shape)
        if func is Tensor.__getitem__:
            masks = [index for index in _tensors(args[1]) if index.dtype in (torch.bool, torch.uint8)]
            if self._any(self._followed, masks):
                return set(found.shape[:1] if masks[0] is args[1] else found.shape)
        # What is computed from a selection is as long, but not where it is summed up, or put back among the others,
        # which come first then.
        if given and id(given[0]) not in self._selected and given[0].shape == found.shape:
            return set()
        return set().union(*(self._selected.get(id(tensor), set()) for tensor in given)) & set(found.shape)

    @staticmethod
    def _any(known: dict[int, Any], value: Any) -> bool:
        return any(id(tensor) in known for tensor in _tensors(value))


def _given(args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Tensor]:
    """The tensors among the arguments of a function. Every one of the pass comes by here, so it is not to take time."""
    given = []
    for value in (*args, *kwargs.values()) if kwargs else args:
        if isinstance(value, Tensor):
            given.append(value)
        elif type(value) not in _PLAIN:
            given += _tensors(value)
    return given


def _slices(index: Any) -> list[slice]:
    return [one for one in (index if isinstance(index, tuple) else (index,)) if isinstance(one, slice)]


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif type(value) in _PLAIN:
        return
    elif type(value) is slice:
        yield from _tensors((value.start, value.stop, value.step))
    elif isinstance(value, PackedSequence):
        yield value.data
    elif is_container(value):
        for _, item in items(value):
            yield from _tensors(item)
