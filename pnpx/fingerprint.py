"""Fingerprints: short hashes of what an attribution depends on, the same in every process and wherever files lie."""

import hashlib
import json
import re
from argparse import Namespace
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import fields, is_dataclass
from datetime import date, timedelta
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from functools import partial
from pathlib import PurePath
from types import CellType, FunctionType, MethodType, SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from pnpx.usercode import UserCode, instructions, owner

UNIMPORTANT = frozenset({"model", "batch_size", "progress"})
"""Fields of an explainer left out of its fingerprint: the model has its own, the others do not change the result.

``replay`` is none of them: it is turned off for a model that it disagrees with, whose results it then changes.
"""

_ABOUT_FILES = frozenset({"name_or_path", "_name_or_path", "_commit_hash", "transformers_version",
                          "_original_object_hash"})
"""What transformers keeps of where a model came from, and of the process."""

_OF_MODULES = frozenset(vars(nn.Module())) | {"_compiled_call_impl"}
"""What torch keeps in every module: of these only `_HOOKS` may change a result and are not described otherwise."""

_HOOKS = ("_forward_pre_hooks", "_forward_hooks")
_SHOWN_ALIKE = (complex, range, slice, Decimal, Fraction, date, timedelta, torch.dtype, torch.device, torch.layout,
                torch.memory_format, np.dtype, type(Ellipsis), type(NotImplemented))
"""Classes whose ``repr`` says all, and the same in every process."""

_DEEPEST = 100


def digest(*parts: object) -> str:
    """A short hash of ``parts``, however deep: of numbers, text, tensors, sequences, mappings, functions, objects.

    Objects count by their attributes, classes and functions by their names and their code. What has neither, such as
    a lock or a generator of random numbers, counts by its class.

    >>> digest(1, "a") == digest(1, "a"), digest(1, "a") == digest("1a")
    (True, False)
    """
    found = _Description()
    return _hash([[found.of(part) for part in parts], found.code.said()])


def of_model(model: nn.Module, factory: Callable[..., Any] | None = None) -> str:
    """The fingerprint of a model, and of the ``factory`` that made it: its weights, buffers, structure, hooks and plain
    attributes, and the code behind all of them."""
    return digest(model, factory)


def of_text_model(model: nn.Module, tokenizer: Any) -> str:
    """The fingerprint of a model of texts and its tokenizer: with the names of its classes and how it generates."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    words = backend.to_str() if backend is not None else sorted(tokenizer.get_vocab().items())
    owners: list[Any] = [getattr(model, name, None) for name in ("config", "generation_config")]
    settings = [
        {key: value for key, value in owner.to_dict().items() if key not in _ABOUT_FILES}
        for owner in owners
        if owner is not None
    ]
    return digest(of_model(model), words, settings, sorted(tokenizer.special_tokens_map.items(), key=repr))


def of_explainer(explainer: Any) -> str:
    """The fingerprint of an explainer: its name, its parameters and its code, whatever its model."""
    kind = type(explainer)
    names = [item.name for item in fields(explainer) if item.name not in UNIMPORTANT]
    return digest(kind.__name__, kind, {name: getattr(explainer, name) for name in names})


def of_metric(metric: Any) -> str:
    """The fingerprint of a metric: its name, all its parameters and its code."""
    kind = type(metric)
    return digest(kind.__name__, kind, {item.name: getattr(metric, item.name) for item in fields(metric)})


class _Description:
    """Says values in what JSON knows, each compound part by its hash, and collects the code behind them."""

    def __init__(self) -> None:
        self.code = UserCode()
        self._known: dict[int, tuple[object, object]] = {}  # with the value, so that its id stays its own
        self._above: list[int] = []

    def of(self, value: Any) -> object:
        if value is None or type(value) in (bool, int, float, str):
            return value
        if id(value) in self._known:
            return self._known[id(value)][1]
        if id(value) in self._above:  # it holds itself
            return {"above": len(self._above) - self._above.index(id(value))}
        if len(self._above) >= _DEEPEST:
            return _kind(value)
        self._above.append(id(value))
        try:
            found: object = _hash(self._compound(value))
        except Exception:  # of any kind, by code of any origin: what cannot be described counts by its class
            found = _kind(value)
        finally:
            self._above.pop()
        self._known[id(value)] = value, found
        return found

    def _compound(self, value: Any) -> object:
        if not isinstance(value, (type, FunctionType)):
            self.code.add_class(type(value))
        for classes, describe in self._ways():
            if isinstance(value, classes):
                return describe(value)
        if is_dataclass(value):
            return [type(value).__qualname__, [[item.name, self.of(getattr(value, item.name))]
                                               for item in fields(value)]]
        state = _state(value)
        if state is not None:
            return [type(value).__qualname__, self._mapping(state)]
        if callable(value):  # of a compiled module
            bound = getattr(value, "__self__", None)
            return ["callable", _name(value), None if isinstance(bound, type) else self.of(bound)]
        return _kind(value)

    def _ways(self) -> list[tuple[Any, Callable[[Any], object]]]:
        """How values of these classes are described; the first that fits."""
        return [
            (Enum, lambda value: [type(value).__qualname__, value.name]),
            ((bool, int, float, str), lambda value: [type(value).__qualname__, str(value)]),
            (bytes, lambda value: ["bytes", value.hex()]),
            (Tensor, _tensor),
            (np.ndarray, lambda value: ["array", self.of(value.tolist()) if value.dtype == object else _array(value)]),
            (np.generic, lambda value: ["array", _array(np.asarray(value))]),
            (nn.Module, self._module),
            (type, self._class),
            (FunctionType, self._function),
            (MethodType, lambda value: ["method", self.of(value.__func__), self.of(value.__self__)]),
            (partial, lambda value: ["partial", *map(self.of, (value.func, value.args, value.keywords))]),
            (CellType, lambda value: ["cell", self.of(value.cell_contents)]),
            (OrderedDict, lambda value: ["ordered", [[self.of(key), self.of(one)] for key, one in value.items()]]),
            (Mapping, self._mapping),
            (Set, lambda value: ["set", sorted(json.dumps(self.of(one)) for one in value)]),
            (_SHOWN_ALIKE, lambda value: [_name(type(value)), repr(value)]),
            (Sequence, lambda value: ["sequence", [self.of(one) for one in value]]),
            (PurePath, lambda value: ["path", value.name]),  # where it lies does not count
            (re.Pattern, lambda value: ["pattern", self.of(value.pattern), value.flags]),
        ]

    def _mapping(self, value: Mapping[Any, Any]) -> object:
        pairs = [[self.of(key), self.of(one)] for key, one in value.items()]
        return ["mapping", sorted(pairs, key=lambda pair: json.dumps(pair[0]))]

    def _class(self, value: type) -> object:
        self.code.add_class(value)
        # A user's class is known by its code: the same in a module of another name is the same.
        return ["class", value.__qualname__ if owner(value.__module__) == "user" else _name(value)]

    def _function(self, value: FunctionType) -> object:
        self.code.add_function(value)
        if _is_internal(value.__module__ or ""):
            return _name(value)
        # Of several in one module the instructions tell which it is: lambdas have no names.
        own = instructions(value.__code__) if owner(value.__module__ or "") == "user" else ""
        held = [value.__defaults__, value.__kwdefaults__, value.__closure__]
        return ["function", _name(value), own, [self.of(one) for one in held]]

    def _module(self, value: nn.Module) -> object:
        state = value.state_dict()
        rest = dict(value.named_buffers(remove_duplicate=False)) | dict(value.named_parameters(remove_duplicate=False))
        parts = [[name, self._own_of(part)] for name, part in value.named_modules(remove_duplicate=False)]
        shown = re.sub(r"0x[0-9a-f]+", "", repr(value))
        # What is not persistent is not in the state, and counts all the same.
        left = {name: tensor for name, tensor in rest.items() if name not in state}
        return ["module", shown, parts, self._mapping(state), self._mapping(left)]

    def _own_of(self, module: nn.Module) -> object:
        """What a module is, beside its parameters, buffers and parts."""
        self.code.add_class(type(module))
        users, skipped = owner(type(module).__module__) == "user", _skipped(module)
        plain = {name: one for name, one in vars(module).items()
                 if name not in _OF_MODULES and name not in skipped and (users or not name.startswith("_"))}
        hooks = [self.of(list(getattr(module, name, {}).values())) for name in _HOOKS]
        generated = ""
        if isinstance(module, (torch.jit.ScriptModule, torch.fx.GraphModule)):  # its class says nothing of its code
            generated = re.sub(r"___torch_mangle_\d+\.", "", str(getattr(module, "code", "")))
        return [type(module).__qualname__, generated, hooks, self._mapping(plain)]


def _state(value: object) -> dict[str, Any] | None:
    """The attributes of an object that say what it is; None if it has none, or they are of a process's own affairs."""
    kind = type(value)
    if isinstance(value, RemovableHandle) or _is_internal(kind.__module__):
        return None
    if owner(kind.__module__) == "python" and not isinstance(value, (Namespace, SimpleNamespace)):
        return None  # loggers, locks, files
    slots = [name for base in kind.__mro__ for name in _slots(base)]
    found = {name: getattr(value, name) for name in slots if hasattr(value, name)} | getattr(value, "__dict__", {})
    if not found and callable(value):
        return None
    # What transformers' own configurations keep to themselves is of files and processes.
    public = kind.__module__.startswith("transformers.")
    return {name: one for name, one in found.items()
            if name not in _skipped(value) and not (public and name.startswith("_"))}


def _slots(kind: type) -> list[str]:
    given = vars(kind).get("__slots__", ())
    return [name for name in ((given,) if isinstance(given, str) else given) if name not in ("__dict__", "__weakref__")]


def _skipped(value: object) -> frozenset[str]:
    of_transformers = any(base.__module__.startswith("transformers.") for base in type(value).__mro__)
    return _ABOUT_FILES if of_transformers else frozenset()


def _is_internal(module: str) -> bool:
    """Whether what is in that module is torch's own affair, such as what `torch.compile` keeps."""
    return module.startswith("torch._")


def _tensor(value: Tensor) -> object:
    kept = value.detach()
    if kept.is_meta:
        return ["tensor", str(value.dtype), list(value.shape)]
    if kept.is_quantized:
        kept = kept.dequantize()
    if kept.layout != torch.strided:
        kept = kept.to_dense()
    array = kept.cpu().resolve_conj().resolve_neg().contiguous().reshape(-1).view(torch.uint8)
    return ["tensor", str(value.dtype), list(value.shape), hashlib.sha256(array.numpy().tobytes()).hexdigest()]


def _array(value: "np.ndarray[Any, Any]") -> object:
    return [str(value.dtype), list(value.shape), hashlib.sha256(np.ascontiguousarray(value).tobytes()).hexdigest()]


def _kind(value: object) -> object:
    return ["kind", _name(type(value))]


def _name(value: Any) -> str:
    name = getattr(value, "__qualname__", None) or getattr(value, "__name__", None) or type(value).__qualname__
    return f"{getattr(value, '__module__', None) or type(value).__module__}.{name}"


def _hash(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:32]
