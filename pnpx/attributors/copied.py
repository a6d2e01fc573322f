"""Tensors that a model holds as they were found, to be put back in their own memory."""

from typing import Any

import torch
from torch import Tensor

LARGEST = 16 * 2**20  # bytes; larger tensors are tables, packed weights and the like: copies would take too much


class Copied:
    """What a tensor is when this is made; of one over 16 MiB only whether it is `changed` can be told."""

    def __init__(self, tensor: Tensor) -> None:
        self._tensor = tensor
        self._version = None if tensor.is_inference() else tensor._version
        self._attached, self._needs_gradient = tensor.grad_fn is not None, tensor.requires_grad
        self._alias = self._memory = tensor.detach()  # the same memory, with the shape found, whatever becomes of that
        self._place = _place(tensor)
        if self._place is not None and 0 in self._alias.stride():  # expanded, which cannot be written to
            for axis, (size, stride) in enumerate(zip(tensor.shape, tensor.stride(), strict=True)):
                self._memory = self._memory.narrow(axis, 0, min(size, size if stride else 1))
        small = tensor.numel() * tensor.element_size() <= LARGEST
        self.copy: Tensor | None = self._memory.clone() if small else None

    @property
    def changed(self) -> bool:
        """Whether it was changed in place, as far as autograd knows; tensors of inference mode it does not follow."""
        return self._differs() if self._version is None else self._tensor._version != self._version

    @property
    def stuck(self) -> bool:
        """Whether it is a view that a pass has left attached to its graph, which it stays."""
        return self._tensor._is_view() and self._tensor.grad_fn is not None and not self._attached

    @property
    def tensor(self) -> Tensor:
        """The tensor itself, or, where it is stuck, another one of the same memory."""
        return self._alias.detach() if self.stuck else self._tensor

    def restore(self) -> None:
        """Give the tensor its value back, in its own memory, which other tensors and objects may look at.

        It counts as a change: the backward pass of a pass that has kept what the tensor was must come before.
        """
        tensor = self._tensor
        if self._is_as_found():  # as most are, which a model may have hundreds of
            if self.copy is not None and self._version is not None:
                self._version = tensor._version
            return
        with torch.inference_mode() if self._version is None else torch.no_grad():
            if tensor.grad_fn is not None and not self._attached:
                (tensor._base if tensor._is_view() else tensor).detach_()  # type: ignore[union-attr]
            if self.copy is not None:
                if _place(tensor) != self._place:  # resized, or given other memory by ``.data``
                    tensor.data = self._alias
                if self._differs():
                    (tensor if self._place is None else self._memory).copy_(self.copy)
                if self._version is not None:
                    self._version = tensor._version
            if tensor.is_leaf and tensor.requires_grad != self._needs_gradient:
                tensor.requires_grad_(self._needs_gradient)

    def _is_as_found(self) -> bool:
        tensor = self._tensor
        attached = tensor.grad_fn is not None and not self._attached
        marked = tensor.requires_grad != self._needs_gradient
        moved = self.copy is not None and _place(tensor) != self._place
        return not (attached or marked or moved or self._differs())

    def _differs(self) -> bool:
        if self.copy is None:
            return False
        try:
            return not torch.equal(self._memory, self.copy)
        except Exception:  # sparse and nested tensors, those of some types or without data, cannot be compared
            return self._version is None or self._tensor._version != self._version


def _place(tensor: Tensor) -> tuple[Any, ...] | None:
    """Where a tensor is in memory, and how; None of those whose memory is not one piece, such as sparse ones."""
    try:
        return tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride()
    except RuntimeError:
        return None


def memory(tensor: Tensor) -> int | None:
    """Equal for tensors that share memory; None of those whose memory is not one piece, or none at all."""
    try:
        return tensor.untyped_storage().data_ptr() or None
    except (NotImplementedError, RuntimeError):
        return None
