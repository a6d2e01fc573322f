"""How much memory a pass of a model takes: for its backward pass, told from autograd's graph, and beside that.

And how much there is to read for it, however many rows it has.
"""

from collections.abc import Callable, Iterable, Sequence
from math import prod
from typing import Any

from torch import Tensor, nn
from torch.autograd.function import BackwardCFunction
from torch.overrides import TorchFunctionMode

from pnpx.attributors.copied import memory

# Outputs of these are other views of what their input holds.
_VIEWS = (
    *("Alias", "Diagonal", "Expand", "Narrow", "Permute", "ReshapeAlias", "Select", "Slice", "Split", "Squeeze"),
    *("Swap", "TBackward", "Transpose", "Unbind", "Unfold", "UnsafeView", "Unsqueeze", "View"),
)
# A recurrent net is one step of the graph, and holds its gates at all time steps. Measured on the CPU: an LSTM of 128
# units holds 5.7 times its outputs.
_RECURRENT, _GATES = ("Rnn", "RNN", "Lstm", "Gru"), 8


def held_bytes(scores: Sequence[Tensor], most: int) -> int | None:
    """About how many bytes the graph behind ``scores`` holds: what its operations gave out, views left out.

    None where that is over ``most``, or cannot be told, as what an operation written by somebody else keeps, or tensors
    of several sizes in one. What autograd has saved is not read: to do so would run again what is checkpointed.
    """
    total, seen = 0, set()
    waiting = [score.grad_fn for score in scores]
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        kind = type(node).__name__
        # What enters its backward is what its forward gave out. Before PyTorch 2.6 it does not tell.
        given_out = getattr(node, "_input_metadata", None)
        if given_out is None or kind == "CppFunction" or isinstance(node, BackwardCFunction):
            return None
        if any(one is not None and (one.is_nested_tensor or one.is_cpp_nested_tensor) for one in given_out):
            return None
        if kind != "AccumulateGrad" and not kind.startswith(_VIEWS):
            size = sum(prod(one.shape) * one.dtype.itemsize for one in given_out if one is not None)
            total += size * (_GATES if any(name in kind for name in _RECURRENT) else 1)
        if total > most:
            return None
        waiting += [following for following, _ in node.next_functions]
    return total


def weight_bytes(model: nn.Module, left_out: Iterable[nn.Module] = ()) -> int:
    """How many bytes of weights a pass of ``model`` reads that runs every module but what is ``left_out``.

    Those of embeddings are not counted, of which it reads a few rows; nor is what modules read beside their weights.
    """
    idle = {id(module) for whole in left_out for module in whole.modules()}
    read = {
        id(weight): weight.numel() * weight.element_size()
        for module in model.modules()
        if id(module) not in idle and not isinstance(module, (nn.Embedding, nn.EmbeddingBag))
        for weight in module._parameters.values()
        if weight is not None
    }
    return sum(read.values())


class Beside(TorchFunctionMode):
    """Adds up the bytes of all that functions of PyTorch give out meanwhile and no gradient is taken through.

    A part of a model that does not depend on what is explained is run for every row all the same. Views are left out,
    and what is changed in place.
    """

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        found = func(*args, **(kwargs or {}))
        for one in found if isinstance(found, (tuple, list)) else (found,):
            if isinstance(one, Tensor) and not one.requires_grad:
                where = memory(one)
                if where is None or all(memory(given) != where for given in args if isinstance(given, Tensor)):
                    self.total += one.numel() * one.element_size()
        return found
