"""From an arbitrary batch to the call of a model: which parts are explained, which only go along.

Only what the extractors take reaches the model. Labels that lie in the batch are therefore no danger.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from pnpx.structure import Structure, is_container, items, map_tensors, tensors
from pnpx.suggest import nearest

LABELS = frozenset(
    {
        "label",
        "labels",
        "label_ids",
        "target",
        "targets",
        "y",
        "start_positions",
        "end_positions",
        "next_sentence_label",
    }
)
"""Keys of a mapping that never reach the model unless an extractor names them."""


def part_of(whole: Any, key: int | str, what: str = "batch") -> Any:
    """The part ``key`` of a tuple, list, mapping or object; ``what`` it is, for errors.

    Raises:
        LookupError: there is no such part.
        TypeError: ``whole`` has no parts by number.
    """
    if isinstance(whole, Mapping):
        if key in whole:
            return whole[key]
        raise LookupError(f"the {what} has no part {key!r}; {nearest(str(key), whole)}")
    if isinstance(key, str):
        try:
            if type(whole) in (tuple, list):  # they have methods, such as count, but no parts with names
                raise AttributeError(key)
            return getattr(whole, key)
        except AttributeError:
            known = [str(name) for name, _ in items(whole)] if is_container(whole) else []
            hint = nearest(key, getattr(whole, "_fields", known))
            raise LookupError(f"a {type(whole).__name__} as {what} has no part {key!r}; {hint}") from None
    if not isinstance(whole, (tuple, list)):
        raise TypeError(
            f"an int as extractor takes a part of a tuple or list, but the {what} is a {type(whole).__name__}; "
            f"leave the extractor out to pass the {what} itself, or give a callable"
        )
    try:
        return whole[key]
    except IndexError:
        raise LookupError(f"the {what} has {len(whole)} parts, counted from 0: there is no part {key}") from None


@dataclass(frozen=True)
class Item:
    """Takes one part of a batch: by position of a tuple or list, by key of a mapping, by name of an attribute.

    >>> Item(1)(("first", "second"))
    'second'
    >>> Item("ids")({"ids": 7, "mask": 1})
    7
    """

    key: int | str

    def __call__(self, batch: Any) -> Any:
        return part_of(batch, self.key)


@dataclass(frozen=True)
class Items:
    """Takes several parts of a batch, as a tuple.

    >>> Items((0, 2))("abc".split() + ["b", "c"])
    ('abc', 'c')
    """

    keys: tuple[int | str, ...]

    def __call__(self, batch: Any) -> tuple[Any, ...]:
        return tuple(Item(key)(batch) for key in self.keys)


@dataclass(frozen=True)
class Keywords:
    """Takes parts of a batch under the names of the forward arguments that they are for.

    >>> Keywords({"input_ids": "ids", "attention_mask": 1})
    Keywords({'input_ids': 'ids', 'attention_mask': 1})
    >>> Keywords({"x": 0})((5, 6))
    {'x': 5}
    """

    parts: Mapping[str, int | str]

    def __call__(self, batch: Any) -> dict[str, Any]:
        return {name: Item(key)(batch) for name, key in self.parts.items()}

    def __repr__(self) -> str:
        return f"Keywords({dict(self.parts)!r})"


Extractor: TypeAlias = int | str | Sequence[Any] | Callable[[Any], Any] | None
"""What `Explainer` accepts as extractor: a position, a key, several of them, or any callable on the batch."""


@dataclass(frozen=True)
class Call:
    """What a model is called with.

    ``forward`` is what was extracted to be explained: one value, a tuple of values, or a mapping passed by keyword;
    ``keywords`` says under which name each of its values goes, or None for those that go by position. ``steps``, if it
    is known, (batch, length), says which steps of the sequences are no padding.
    """

    forward: Structure
    keywords: tuple[str | None, ...]
    additional_args: tuple[Any, ...] = ()
    additional_kwargs: Mapping[str, Any] = field(default_factory=dict)
    steps: Tensor | None = None

    @property
    def values(self) -> list[Any]:
        """The values of ``forward``, one a forward argument."""
        if self.is_mapping:
            return list(self.forward.values())
        return list(self.forward) if self.is_tuple else [self.forward]

    @property
    def is_tuple(self) -> bool:
        """Whether ``forward`` is a tuple of values; a ``PackedSequence``, or a state (h, c), may be one value."""
        several = isinstance(self.forward, tuple) and not isinstance(self.forward, PackedSequence)
        return several and len(self.forward) == len(self.keywords)

    @property
    def is_mapping(self) -> bool:
        """Whether ``forward`` is a mapping of values, and not one value that is a mapping."""
        return isinstance(self.forward, Mapping) and tuple(self.forward) == self.keywords

    def with_values(self, values: Sequence[Any]) -> "Call":
        """The call with other ``values`` of the forward arguments that are explained."""
        forward: Structure = tuple(values)
        if self.is_mapping:
            forward = dict(zip(self.forward, values, strict=True))
        elif not self.is_tuple:
            (forward,) = values
        return replace(self, forward=forward)

    @property
    def args(self) -> tuple[Any, ...]:
        """The positional arguments."""
        positional = [value for value, name in zip(self.values, self.keywords, strict=True) if name is None]
        return (*positional, *self.additional_args)

    @property
    def kwargs(self) -> dict[str, Any]:
        """The keyword arguments."""
        named = {name: value for value, name in zip(self.values, self.keywords, strict=True) if name is not None}
        return {**named, **self.additional_kwargs}

    def map(self, function: Callable[[Tensor], Tensor]) -> "Call":
        """The call with ``function`` applied to each tensor of each argument."""
        return replace(
            self,
            forward=map_tensors(function, self.forward),
            additional_args=map_tensors(function, self.additional_args),
            additional_kwargs=map_tensors(function, dict(self.additional_kwargs)),
            steps=None if self.steps is None else function(self.steps),
        )

    @property
    def batch_size(self) -> int:
        """The number of samples: the first axis of what is extracted to be explained."""
        sizes = {leaf.shape[0] if leaf.ndim else None for leaf in tensors(self.forward)}
        if not sizes:
            raise TypeError(f"the forward arguments must hold a tensor, but are {_describe(self.forward)}")
        if None in sizes:
            raise ValueError("inputs need a batch axis, but a tensor of no axes was given; did you mean x[None]?")
        if len(sizes) > 1:
            shapes = ", ".join(str(tuple(leaf.shape)) for leaf in tensors(self.forward))
            raise ValueError(
                f"several inputs must have the same batch size, their first axis, but their shapes are {shapes}; "
                "let what has no batch axis go along: additional_forward_arg_extractor"
            )
        (size,) = sizes
        if not size:
            raise ValueError("the batch is empty: its first axis has size 0; give at least one sample")
        return int(size)


class Signature:
    """The forward arguments of a model, by name."""

    def __init__(self, model: nn.Module) -> None:
        self.open_ended = False  # takes any keyword
        self.positional_open_ended = False
        self.names: list[str] = []
        self.positional: list[str] = []
        self.required: set[str] = set()
        try:
            parameters = list(inspect.signature(model.forward).parameters.values())
        except (TypeError, ValueError):  # compiled code has no signature to read; then anything may be passed
            self.open_ended = self.positional_open_ended = True
            return
        for parameter in parameters:
            if parameter.kind is parameter.VAR_KEYWORD:
                self.open_ended = True
            elif parameter.kind is parameter.VAR_POSITIONAL:
                self.positional_open_ended = True
            else:
                if parameter.default is parameter.empty:
                    self.required.add(parameter.name)
                if parameter.kind is not parameter.POSITIONAL_ONLY:
                    self.names.append(parameter.name)
                if parameter.kind is not parameter.KEYWORD_ONLY:
                    self.positional.append(parameter.name)

    def is_label(self, name: Any) -> bool:
        """Whether a batch's part ``name`` is a label, see `LABELS`. What the model does not run without is none."""
        return name in LABELS and name not in self.required

    def keyword(self, name: str) -> str | None:
        """Under which keyword a batch's part ``name`` is passed; None to pass it by position."""
        by_name = name in self.names or (self.open_ended and not self.positional)
        return name if by_name else None


def extract(
    model: nn.Module,
    batch: Any,
    forward: Extractor = None,
    additional: Extractor = None,
    padding_mask: Extractor = None,
) -> Call:
    """The call of ``model`` for ``batch``.

    Without extractors a tensor is one argument, a tuple or list several, a mapping or dataclass goes by keyword:
    those of its parts that the model's ``forward`` names, without labels (see `Signature.is_label`). Of these,
    masks and positions only go along.

    Args:
        model: what is called; only its signature is read.
        batch: a tensor, NumPy array, tuple, list, mapping, dataclass, or anything that the extractors understand.
        forward: takes what is explained.
        additional: takes what only goes along. If ``forward`` is left out, the rest of the batch is explained.
        padding_mask: takes a mask (batch, length), true for the steps of sequences that are no padding.

    Raises:
        LookupError: an extractor names a part that the batch does not have.
        TypeError: nothing is left to call the model with, or more than it takes.
    """
    signature = Signature(model)
    if forward is None:
        value, names, rest = _whole(signature, batch, _taken(additional))
    else:
        value, names = _take(signature, batch, forward, "forward_arg_extractor")
        rest = {}
    extra, extra_names = (
        ((), ()) if additional is None else _take(signature, batch, additional, "additional_forward_arg_extractor")
    )
    extras = Call(extra, extra_names)
    steps = None if padding_mask is None else _take(signature, batch, padding_mask, "padding_mask_extractor")[0]
    call = Call(value, names, extras.args, {**rest, **extras.kwargs}, _steps(steps))
    return _placed(model, call)


def _steps(mask: Any) -> Tensor | None:
    """``mask`` as booleans (batch, length)."""
    if mask is None:
        return None
    steps = torch.as_tensor(mask)
    if steps.ndim != 2:
        raise ValueError(
            f"padding_mask_extractor must take a mask of shape (batch, length), but took one of {tuple(steps.shape)}"
        )
    return steps > 0


def _take(
    signature: Signature, batch: Any, extractor: Extractor, role: str
) -> tuple[Structure, tuple[str | None, ...]]:
    """What ``extractor`` takes from ``batch``, and under which keyword each value goes."""
    if isinstance(extractor, bool):
        raise TypeError(f"{role} must be an int, a str, a sequence of them, or a callable, but is {extractor!r}")
    if isinstance(extractor, (int, str)):
        return Item(extractor)(batch), (_keyword(signature, extractor),)
    if callable(extractor):
        value = extractor(batch)
        if isinstance(value, Mapping):
            return dict(value), tuple(value)
        if isinstance(value, (tuple, list)) and not isinstance(value, PackedSequence):
            return tuple(value), (None,) * len(value)
        return value, (None,)
    if not isinstance(extractor, Sequence):
        raise TypeError(f"{role} must be an int, a str, a sequence of them, or a callable, but is {extractor!r}")
    taken = [_take(signature, batch, part, role) for part in extractor]
    names = [name for _, (name, *_) in taken]
    return tuple(value for value, _ in taken), tuple(names)


def _keyword(signature: Signature, key: int | str) -> str | None:
    return signature.keyword(key) if isinstance(key, str) else None


def _taken(additional: Extractor) -> set[int | str]:
    """The positions and keys that go along, as far as ``additional`` names them."""
    if isinstance(additional, (Item,)):
        return {additional.key}
    if isinstance(additional, Items):
        return set(additional.keys)
    if isinstance(additional, Keywords):
        return set(additional.parts.values())
    if isinstance(additional, (int, str)):
        return {additional}
    if isinstance(additional, Sequence):
        return {part for part in additional if isinstance(part, (int, str))}
    return set()


def _whole(
    signature: Signature, batch: Any, taken: set[int | str]
) -> tuple[Structure, tuple[str | None, ...], dict[str, Any]]:
    """All of ``batch`` but ``taken``: what is explained, the keywords for it, and what goes along by keyword."""
    if isinstance(batch, (tuple, list)) and not isinstance(batch, PackedSequence):
        left = tuple(part for index, part in enumerate(batch) if index not in taken and index - len(batch) not in taken)
        limit = len(signature.positional)
        if len(left) > limit and not signature.positional_open_ended:
            raise TypeError(
                f"the batch has {len(left)} parts, but the model's forward takes {limit} "
                f"({', '.join(signature.positional)}); say which part is explained: forward_arg_extractor=0"
            )
        names = [*signature.positional[: len(left)], *[""] * (len(left) - limit)]
        kept = [(name, part) for name, part in zip(names, left, strict=True) if not signature.is_label(name)]
        if len(kept) == len(left):
            return left, (None,) * len(left), {}
        return tuple(part for _, part in kept), tuple(name for name, _ in kept), {}
    if not is_container(batch):
        return batch, (None,), {}
    parts = {str(key): part for key, part in items(batch) if key not in taken and not signature.is_label(key)}
    parts = {
        key: part
        for key, part in parts.items()
        if key in signature.names or (signature.open_ended and isinstance(part, (Tensor, np.ndarray)))
    }
    if not parts:
        keys = ", ".join(repr(str(key)) for key, _ in items(batch))
        raise TypeError(
            f"none of the batch's parts ({keys}) is a forward argument of the model ({', '.join(signature.names)}); "
            "say which part is explained: forward_arg_extractor"
        )
    # A mask says what is there, positions where; neither is what a baseline may replace or a gradient explain.
    features = {key: part for key, part in parts.items() if not _goes_along(key)} or parts
    floats = {key: part for key, part in features.items() if _is_float(part)}
    arrays = {key: part for key, part in features.items() if isinstance(part, (Tensor, np.ndarray))}
    explained = floats or arrays or parts
    return explained, tuple(explained), {key: part for key, part in parts.items() if key not in explained}


def _goes_along(key: str) -> bool:
    return "mask" in key or key in ("token_type_ids", "position_ids")


def _is_float(part: Any) -> bool:
    if isinstance(part, np.ndarray):
        return np.issubdtype(part.dtype, np.floating)
    return any(leaf.is_floating_point() for leaf in tensors(part))


def _placed(model: nn.Module, call: Call) -> Call:
    """``call`` with arrays as tensors, floats of them in the model's precision, all on the model's device."""
    parameters = list(model.parameters())
    devices = {parameter.device for parameter in parameters}
    device = devices.pop() if len(devices) == 1 else None  # a model spread over devices moves its inputs itself
    floats = [parameter.dtype for parameter in parameters if parameter.is_floating_point()]

    def tensor(value: Any) -> Any:
        if isinstance(value, np.ndarray) and value.dtype != object:
            array = torch.from_numpy(value.copy())
            return array.to(floats[0]) if array.is_floating_point() and floats else array
        if is_container(value) and not isinstance(value, PackedSequence):
            return type(value)(map(tensor, value)) if type(value) in (tuple, list) else value
        return value

    def place(value: Tensor) -> Tensor:
        moved = value if device is None or value.device == device else value.to(device)
        # What was made under inference_mode cannot take part in gradients; a copy made outside it can.
        return moved.clone() if moved.is_inference() else moved.detach()

    converted = Call(
        {key: tensor(value) for key, value in call.forward.items()}
        if isinstance(call.forward, Mapping)
        else tensor(call.forward),
        call.keywords,
        tuple(map(tensor, call.additional_args)),
        {key: tensor(value) for key, value in call.additional_kwargs.items()},
        call.steps,
    )
    return converted.map(place)


def _describe(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key!r}: {_describe(item)}" for key, item in value.items()) + "}"
    if isinstance(value, (tuple, list)):
        return "(" + ", ".join(map(_describe, value)) + ")"
    return f"{type(value).__name__} {value!r}" if isinstance(value, (str, int, float)) else type(value).__name__
