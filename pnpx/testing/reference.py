"""Gradients by plain autograd and plain hooks, without what explainers are made of: what these must agree with."""

import inspect
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from pnpx.attributors.places import Layer
from pnpx.testing.case import Case

_PLACE = re.compile(r"(?P<path>[^:#]*)(#(?P<call>\d+))?(:(?P<side>input|output|argument))?")


def leaves(value: Any) -> list[Tensor]:
    """The tensors of floats in ``value``, depth first; packed sequences padded, (batch, time, features)."""
    if isinstance(value, PackedSequence):
        return [pad_packed_sequence(value, batch_first=True)[0]]
    if isinstance(value, Tensor):
        return [value] if value.is_floating_point() else []
    if isinstance(value, Mapping):
        return [leaf for part in value.values() for leaf in leaves(part)]
    return [leaf for part in value for leaf in leaves(part)] if isinstance(value, (tuple, list)) else []


def with_leaves(value: Any, new: Iterator[Tensor]) -> Any:
    """``value`` with the tensors that `leaves` finds replaced, in the same order."""
    if isinstance(value, PackedSequence):
        lengths = pad_packed_sequence(value, batch_first=True)[1]
        return pack_padded_sequence(next(new), lengths, batch_first=True, enforce_sorted=False)
    if isinstance(value, Tensor):
        return next(new) if value.is_floating_point() else value
    if isinstance(value, Mapping):
        return {key: with_leaves(part, new) for key, part in value.items()}
    return type(value)(with_leaves(part, new) for part in value) if isinstance(value, (tuple, list)) else value


def _are_packed(value: Any) -> list[Tensor | None]:
    """For each of the `leaves` of ``value`` the lengths of its sequences if they are packed, else None."""
    if isinstance(value, PackedSequence):
        return [pad_packed_sequence(value, batch_first=True)[1]]
    if isinstance(value, Mapping):
        return [one for part in value.values() for one in _are_packed(part)]
    if isinstance(value, (tuple, list)):
        return [one for part in value for one in _are_packed(part)]
    return [None for _ in leaves(value)]


class Reference:
    """One place of a case's model, its clean value there, and gradients at any other values.

    Args:
        case: the model and its batch.
        layer: as an explainer takes it; places of a sequence must not depend on one another.
    """

    def __init__(self, case: Case, layer: Layer = None) -> None:
        self.case = case
        given: Sequence[Any] = [layer] if layer is None or isinstance(layer, (str, nn.Module)) else layer
        self._places = [self._parse(place) for place in given]
        self._found: dict[int, Any] = {}
        with torch.no_grad():
            self._run(None)
        found = tuple(self._found[number] for number in range(len(self._places)))
        self.value: Any = found[0] if layer is None or isinstance(layer, (str, nn.Module)) else found
        """What is at the place for the batch itself."""
        self.tensors: list[Tensor] = leaves(self.value)
        """The tensors of floats in it."""

    @property
    def axes(self) -> list[int]:
        """For each tensor the axis of the batch: the one that has its size."""
        return [list(tensor.shape).index(self.case.size) for tensor in self.tensors]

    @property
    def steps(self) -> list[Tensor | None]:
        """For each tensor, which of its (batch, time) steps are no padding; None where it is no padded sequence."""
        masks: list[Tensor | None] = []
        for packed, tensor, axis in zip(_are_packed(self.value), self.tensors, self.axes, strict=True):
            known = self.case.steps
            if packed is not None:
                masks.append(torch.arange(tensor.shape[1]) < packed[:, None])
            else:
                fits = known is not None and axis == 0 and tensor.shape[:2] == known.shape
                masks.append(known if fits else None)
        return masks

    def gradients(self, points: Sequence[Tensor], targets: Tensor | None = None) -> list[Tensor]:
        """The gradients of the targets' scores where the tensors at the place are ``points``; zeros where none is."""
        points = [point.detach().clone().requires_grad_() for point in points]
        with torch.enable_grad():
            output = self._run([point * 1 for point in points])
            chosen = self.case.targets if targets is None else targets
            score = output[torch.arange(len(chosen)), chosen].sum()
            found = torch.autograd.grad(score, points, allow_unused=True)
        return [torch.zeros_like(p) if g is None else g for g, p in zip(found, points, strict=True)]

    def scores(self, points: Sequence[Tensor]) -> Tensor:
        """The targets' scores where the tensors at the place are ``points``, (batch,)."""
        with torch.no_grad():
            output = self._run([point.clone() for point in points])
            return output[torch.arange(self.case.size), self.case.targets]

    def _parse(self, layer: Any) -> tuple[Any, str, int]:
        """The module (None for the inputs, a str for an argument), the side, and the number of the call."""
        if layer is None:
            return None, "argument", 1
        if isinstance(layer, nn.Module):
            return layer, "output", 1
        match = _PLACE.fullmatch(layer)
        if match is None:
            raise ValueError(f"not a place: {layer!r}")
        if match["side"] == "argument" or layer in inspect.signature(self.case.model.forward).parameters:
            return match["path"], "argument", 1
        return self.case.model.get_submodule(match["path"]), match["side"] or "output", int(match["call"] or 1)

    def _run(self, new: Sequence[Tensor] | None) -> Tensor:
        """The scores with ``new`` at the places; without it, the clean values are noted."""
        args, kwargs = list(self.case.args), dict(self.case.kwargs)
        rest = iter(new or ())
        with ExitStack() as stack:
            # PyTorch's fused encoder layers run without their modules.
            stack.callback(torch.backends.mha.set_fastpath_enabled, torch.backends.mha.get_fastpath_enabled())
            torch.backends.mha.set_fastpath_enabled(False)
            for number, (place, side, call) in enumerate(self._places):
                # Each place gets its own: they need not run in the order in which they were asked for.
                own = None if new is None else list(islice(rest, len(leaves(self._found[number]))))
                supply = None if own is None else iter(own)
                if side == "argument":
                    self._exchange_arguments(number, place, args, kwargs, supply)
                else:
                    stack.enter_context(self._exchanging(number, place, side, call, supply))
            return self.case.read(self.case.model(*args, **kwargs))

    def _exchange(self, number: int, value: Any, supply: Iterator[Tensor] | None) -> Any:
        if supply is None:
            # A copy: the model may go on to change its own in place.
            self._found[number] = with_leaves(value, iter([leaf.clone() for leaf in leaves(value)]))
            return value
        return with_leaves(value, supply)

    def _exchange_arguments(
        self, number: int, name: str | None, args: list[Any], kwargs: dict[str, Any], supply: Iterator[Tensor] | None
    ) -> None:
        keys = self.case.keys
        if name is not None:
            position = list(inspect.signature(self.case.model.forward).parameters).index(name)
            keys = (name,) if name in kwargs else (position,)
        values = {key: args[key] if isinstance(key, int) else kwargs[key] for key in keys}
        as_mapping = name is None and isinstance(self.case.inputs, Mapping)
        whole = values if as_mapping else tuple(values.values()) if len(values) > 1 else next(iter(values.values()))
        new = self._exchange(number, whole, supply)
        parts = [new] if len(values) == 1 and not as_mapping else new.values() if as_mapping else new
        for key, part in zip(keys, parts, strict=True):
            if isinstance(key, int):
                args[key] = part
            else:
                kwargs[key] = part

    @contextmanager
    def _exchanging(
        self, number: int, module: nn.Module, side: str, call: int, supply: Iterator[Tensor] | None
    ) -> Iterator[None]:
        count = 0

        def before(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            nonlocal count
            count += 1
            if count != call or side != "input":
                return None
            names = [*list(inspect.signature(module.forward).parameters)[: len(args)], *kwargs]
            values = [*args, *kwargs.values()]
            chosen = {
                name: value
                for name, value in zip(names, values, strict=True)
                if leaves(value) and "mask" not in name  # a mask is no feature
            }
            by_keyword = any(name in kwargs for name in chosen)
            whole = chosen if by_keyword else tuple(chosen.values())
            if len(chosen) == 1:
                (whole,) = chosen.values()
            new = self._exchange(number, whole, supply)
            parts = [new] if len(chosen) == 1 else new.values() if by_keyword else new
            put = dict(zip(chosen, parts, strict=True))
            edited = [put.get(name, value) for name, value in zip(names, values, strict=True)]
            return tuple(edited[: len(args)]), dict(zip(kwargs, edited[len(args) :], strict=True))

        def after(module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
            return self._exchange(number, output, supply) if count == call and side == "output" else None

        hooks = [
            module.register_forward_pre_hook(before, with_kwargs=True),
            module.register_forward_hook(after),
        ]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()
