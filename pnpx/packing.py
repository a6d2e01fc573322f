"""Values as JSON, with their tensors apart, and back again."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor


class Packer:
    """Says values as JSON, and keeps their tensors apart under names."""

    def __init__(self) -> None:
        self.leaves: dict[str, Tensor] = {}
        self._names: dict[object, str] = {}

    def pack(self, value: Any, place: str) -> Any:
        """``value`` as JSON; ``place`` is its path in the record, which names its tensors and is named in errors."""
        if isinstance(value, Tensor):
            return {"tensor": self._name(value, place)}
        if hasattr(value, "tolist"):  # arrays and numbers of numpy
            value = value.tolist()
        if isinstance(value, float) and not math.isfinite(value):  # which JSON has no words for
            return {"float": repr(float(value))}
        if value is None or isinstance(value, (bool, int, float, str)):
            return value
        if isinstance(value, Mapping):
            return {"dict": [[self._key(key, place), self.pack(item, f"{place}.{key}")] for key, item in value.items()]}
        if isinstance(value, Sequence) and not isinstance(value, (bytes, bytearray)):
            kind = "tuple" if isinstance(value, tuple) else "list"
            return {kind: [self.pack(item, f"{place}.{index}") for index, item in enumerate(value)]}
        raise TypeError(
            f"to be saved, {place} must be made of tensors, numbers, strings, None, sequences and mappings"
            f", but got {type(value).__name__}; put its name there instead, by dataclasses.replace"
        )

    def _key(self, key: Any, place: str) -> Any:
        if isinstance(key, Tensor):
            raise TypeError(f"to be saved, the keys of {place} must be strings, numbers or tuples, but one is a Tensor")
        return self.pack(key, f"a key of {place}")

    def _name(self, leaf: Tensor, place: str) -> str:
        if leaf.layout != torch.strided or leaf.is_meta:
            kept = "its values" if leaf.is_meta else "it by to_dense()"
            raise TypeError(
                f"to be saved, {place} must be a dense tensor with values, but is {leaf.layout} on {leaf.device}; "
                f"put {kept} there instead, by dataclasses.replace"
            )
        # What is explained is often the input itself: one tensor under two names is written once.
        identity = (leaf.data_ptr(), leaf.device, leaf.dtype, leaf.shape, leaf.stride(), leaf.is_conj(), leaf.is_neg())
        if identity not in self._names:
            name = place
            while name in self.leaves:  # the paths of {"a.b": ...} and {"a": {"b": ...}} are the same
                name += "'"
            self._names[identity] = name
            self.leaves[name] = leaf.detach().cpu().clone(memory_format=torch.contiguous_format)
        return self._names[identity]


def unpack(value: Any, leaves: Mapping[str, Tensor]) -> Any:
    """What `Packer.pack` was given, from what it returned and the tensors that it kept apart."""
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind == "tensor":
        return leaves[content]
    if kind == "float":
        return float(content)
    if kind == "dict":
        return {unpack(key, leaves): unpack(item, leaves) for key, item in content}
    return {"tuple": tuple, "list": list}[kind](unpack(item, leaves) for item in content)
