"""Values as JSON, without loss: as JSON has them where it does, and marked with a "$" where it does not."""

import math
import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

_PAIR = re.compile("[\ud800-\udbff][\udc00-\udfff]")


def pack(value: Any, place: str) -> Any:
    """``value`` as JSON; ``place`` is its path in the record, which is named in errors.

    A tuple becomes {"$tuple": [...]}, a tensor {"$tensor": {"dtype", "shape", "values"}}, NaN and the infinities
    {"$float": "nan"}; text in which JSON would take two halves of a character for one becomes
    {"$utf8": "..."}. Numbers are written with as many digits as bring every bit back.
    """
    if isinstance(value, Tensor):
        return {"$tensor": _tensor(value, place)}
    if hasattr(value, "tolist"):  # arrays and numbers of numpy
        value = value.tolist()
    if isinstance(value, str) and _PAIR.search(value):
        return {"$utf8": value.encode("utf-8", "surrogatepass").hex()}
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else {"$float": repr(value)}
    if isinstance(value, Mapping):
        if all(isinstance(key, str) and not key.startswith("$") and not _PAIR.search(key) for key in value):
            return {key: pack(item, f"{place}.{key}".strip(".")) for key, item in value.items()}
        return {"$dict": [[pack(key, place), pack(item, f"{place}.{key}")] for key, item in value.items()]}
    if isinstance(value, (list, tuple)):
        items = [pack(item, f"{place}.{index}") for index, item in enumerate(value)]
        return {"$tuple": items} if isinstance(value, tuple) else items
    raise TypeError(f"to be saved, {place} must be made of tensors, numbers, strings, None, lists, tuples and mappings"
                    f", but got {type(value).__name__}; put its name there instead, by dataclasses.replace")


def unpack(value: Any) -> Any:
    """What `pack` was given."""
    if isinstance(value, list):
        return [unpack(item) for item in value]
    if not isinstance(value, dict):
        return value
    kind = next(iter(value), "")
    content: Any = value.get(kind)
    if kind == "$tensor":
        values = [unpack(item) for item in content["values"]]
        return torch.tensor(values, dtype=getattr(torch, content["dtype"])).reshape(content["shape"])
    if kind == "$float":
        return float(content)
    if kind == "$utf8":
        return bytes.fromhex(content).decode("utf-8", "surrogatepass")
    if kind == "$tuple":
        return tuple(unpack(item) for item in content)
    if kind == "$dict":
        return {unpack(key): unpack(item) for key, item in content}
    return {key: unpack(item) for key, item in value.items()}


def _tensor(value: Tensor, place: str) -> dict[str, Any]:
    if value.is_complex() or value.is_quantized:
        raise TypeError(f"to be saved, {place} must hold real numbers, but is of {value.dtype}")
    # A Python float holds each value of every real dtype exactly, and its repr brings it back.
    values = value.detach().cpu().reshape(-1)
    numbers = values.double() if value.is_floating_point() else values
    return {"dtype": str(value.dtype).removeprefix("torch."), "shape": list(value.shape),
            "values": [pack(number, place) for number in numbers.tolist()]}
