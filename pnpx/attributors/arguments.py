"""What of the arguments of a module's call can be explained, as one value."""

import inspect
from types import FunctionType, MethodType
from typing import Any
from weakref import WeakKeyDictionary

from pnpx.attributors.intercept import Run
from pnpx.structure import Structure, tensors


class Arguments:
    """The arguments of a module's call that can be explained, as one value, and put back."""

    def __init__(self, run: Run, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._args, self._kwargs = args, kwargs
        keys: list[int | str] = [*range(len(args)), *kwargs]
        names = dict(zip(keys, [*_positional_names(run, len(args)), *kwargs], strict=True))
        values = [*args, *kwargs.values()]
        # Masks and positions are no features: noise on them, or a gradient of them, has no meaning.
        features = [(key, value) for key, value in zip(keys, values, strict=True) if not _says_where(names[key])]
        self._keys = [key for key, value in features if _has_floats(value)]
        # Without floats it is integers, such as token ids, that can be explained by those who need no gradients.
        self._keys = self._keys or [key for key, value in features if tensors(value)]
        if not self._keys:  # then there is nothing to explain, and the error will say what was found instead
            self._keys = [key for key, _ in features]
        chosen = [value for key, value in zip(keys, values, strict=True) if key in self._keys]
        self.value: Structure
        if len(chosen) == 1:
            self.value = chosen[0]
        elif all(isinstance(key, int) for key in self._keys):
            self.value = tuple(chosen)
        else:
            self.value = {names[key]: value for key, value in zip(self._keys, chosen, strict=True)}

    def put(self, value: Structure) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments with ``value`` in place of theirs."""
        parts = [value] if len(self._keys) == 1 else value.values() if isinstance(value, dict) else value
        new = dict(zip(self._keys, parts, strict=True))
        args = tuple(new.get(index, arg) for index, arg in enumerate(self._args))
        return args, {key: new.get(key, arg) for key, arg in self._kwargs.items()}


def _says_where(name: str) -> bool:
    """Whether an argument of this name says what is there or where it is, as the rotary embeddings of LLaMA's do."""
    return "mask" in name or name in ("position_embeddings", "position_ids", "cache_position")


_names_of_methods: WeakKeyDictionary[FunctionType, list[str]] = WeakKeyDictionary()


def _positional_names(run: Run, count: int) -> list[str]:
    return (_names(run) + [""] * count)[:count]


def _names(run: Run) -> list[str]:
    """Those of the parameters. Of methods they are kept: to read a signature takes as long as a small module runs."""
    function = run.__func__ if isinstance(run, MethodType) and isinstance(run.__func__, FunctionType) else None
    if function is not None and function in _names_of_methods:
        return _names_of_methods[function]
    try:
        names = [name for name, p in inspect.signature(run).parameters.items() if p.kind is not p.VAR_KEYWORD]
    except (TypeError, ValueError):
        names = []
    if function is not None:
        _names_of_methods[function] = names
    return names


def _has_floats(value: Any) -> bool:
    return any(leaf.is_floating_point() for leaf in tensors(value))
