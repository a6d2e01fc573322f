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

from pnpx.structure import Structure, is_container, items, map_leaves, map_tensors, tensors
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


@dataclass(frozen=True)
class Shared:
    """Marks that what ``extractor`` takes has no axis of the batch: all samples share it, whole.

    What goes along and has the batch's size as its first axis is else taken to hold a value for each sample: so are
    class weights where there happen to be as many classes as samples, or a causal mask where sequences are as long as
    the batch is large.

    >>> Shared("weights")({"x": 1, "weights": 2})
    2
    """

    extractor: "Extractor"

    def __call__(self, batch: Any) -> Any:
        inner = self.extractor
        if isinstance(inner, (int, str)):
            return part_of(batch, inner)
        return inner(batch) if callable(inner) else tuple(Shared(part)(batch) for part in inner or ())


Extractor: TypeAlias = int | str | Sequence[Any] | Callable[[Any], Any] | None
"""What `Explainer` accepts as extractor: a position, a key, several of them, or any callable on the batch."""


@dataclass(frozen=True)
class Call:
    """What a model is called with.

    ``forward`` is what was extracted to be explained: one value, a tuple of values, or a mapping passed by keyword;
    ``keywords`` says under which name each of its values goes, or None for those that go by position. ``steps``, if it
    is known, (batch, length), says which steps of the sequences are no padding. ``axes`` are those of the batch in each
    tensor and array that goes along, in their order; None where one has none; no ``axes`` where only shapes can tell.
    """

    forward: Structure
    keywords: tuple[str | None, ...]
    additional_args: tuple[Any, ...] = ()
    additional_kwargs: Mapping[str, Any] = field(default_factory=dict)
    steps: Tensor | None = None
    axes: tuple[int | None, ...] | None = None

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
                if parameter.kind is not parameter.POSITIONAL_ONLY:
                    self.names.append(parameter.name)
                if parameter.kind is not parameter.KEYWORD_ONLY:
                    self.positional.append(parameter.name)

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
    those of its parts that the model's ``forward`` names, without labels (see `LABELS`). Of these, masks and positions
    only go along.

    Args:
        model: what is called; only its signature is read.
        batch: a tensor, NumPy array, tuple, list, mapping, dataclass, or anything that the extractors understand.
        forward: takes what is explained.
        additional: takes what only goes along. If ``forward`` is left out, the rest of the batch is explained.
        padding_mask: takes a mask (batch, length), true for the steps of sequences that are no padding.

    Raises:
        LookupError: an extractor names a part that the batch does not have.
        TypeError: nothing is left to call the model with, or more than it takes.
        ValueError: a forward argument is to be explained and to go along as well.
    """
    signature = Signature(model)
    if forward is None:
        value, names, rest = _whole(signature, batch, named_by(additional))
    else:
        value, names, shared = _take(signature, batch, forward, "forward_arg_extractor")
        rest = {}
        if any(shared):
            raise TypeError(
                "what is explained has an axis of the batch, so that Shared is for additional_forward_arg_extractor, "
                f"but forward_arg_extractor is {forward!r}"
            )
        if not names:
            raise TypeError("forward_arg_extractor must take what is explained, but takes nothing: it is empty")
    extra, extra_names, shared = (
        ((), (), ()) if additional is None else _take(signature, batch, additional, "additional_forward_arg_extractor")
    )
    extras = Call(extra, extra_names)
    if twice := [name for name in extra_names if name is not None and name in (*names, *rest)]:
        raise ValueError(
            f"the forward argument {twice[0]!r} is taken twice, to be explained and to go along; leave it out of "
            "additional_forward_arg_extractor"
        )
    steps = None if padding_mask is None else _take(signature, batch, padding_mask, "padding_mask_extractor")[0]
    call = _placed(model, Call(value, names, extras.args, {**rest, **extras.kwargs}, _steps(steps)))
    positional = [mark for mark, name in zip(shared, extra_names, strict=True) if name is None]
    marks = {name: mark for mark, name in zip(shared, extra_names, strict=True) if name is not None}
    of_values = [*zip(call.additional_args, positional, strict=True)]
    of_values += [(value, marks.get(name, False)) for name, value in call.additional_kwargs.items()]
    size = call.batch_size
    return replace(call, axes=tuple(axis for value, mark in of_values for axis in batch_axes(value, size, mark)))


def batch_axes(value: Any, batch_size: int, shared: bool = False) -> list[int | None]:
    """The axis of the batch in each tensor and array of an argument; None where there is none.

    It is the first one if it has the batch's size, or else, as in the (layers, batch, features) of a recurrent net's
    state, the only one that has it. A first axis of size 1 in front of just another is there for all samples, as that
    of position ids (1, length). With ``shared`` nothing has one.
    """
    axes: list[int | None] = []

    def note(leaf: Tensor | PackedSequence | np.ndarray[Any, Any]) -> Any:
        fitting = [] if isinstance(leaf, PackedSequence) else [i for i, n in enumerate(leaf.shape) if n == batch_size]
        axis = None
        if isinstance(leaf, PackedSequence) or 0 in fitting:
            axis = 0
        elif len(fitting) == 1 and batch_size > 1 and tuple(leaf.shape) != (1, batch_size):
            # An axis of size 1 tells nothing.
            axis = fitting[0]
        axes.append(None if shared else axis)
        return leaf

    map_leaves(note, value)
    return axes


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
) -> tuple[Structure, tuple[str | None, ...], tuple[bool, ...]]:
    """What ``extractor`` takes from ``batch``; for each value its keyword, and whether it is marked as `Shared`."""
    if isinstance(extractor, Shared):
        value, names, _ = _take(signature, batch, extractor.extractor, role)
        return value, names, (True,) * len(names)
    if isinstance(extractor, bool):
        raise TypeError(f"{role} must be an int, a str, a sequence of them, or a callable, but is {extractor!r}")
    if isinstance(extractor, (int, str)):
        return part_of(batch, extractor), (_keyword(signature, extractor),), (False,)
    if callable(extractor):
        value = extractor(batch)
        if isinstance(value, Mapping):
            return dict(value), tuple(value), (False,) * len(value)
        if isinstance(value, (tuple, list)) and not isinstance(value, PackedSequence):
            return tuple(value), (None,) * len(value), (False,) * len(value)
        return value, (None,), (False,)
    if not isinstance(extractor, Sequence):
        raise TypeError(f"{role} must be an int, a str, a sequence of them, or a callable, but is {extractor!r}")
    values: list[Any] = []
    keywords: list[str | None] = []
    marks: list[bool] = []
    for part in extractor:
        value, names, shared = _take(signature, batch, part, role)
        # What a callable returns by keyword goes by keyword here too; a tuple, such as a state (h, c), is one argument.
        by_keyword = isinstance(value, Mapping) and tuple(value) == names
        values += value.values() if by_keyword else [value]
        keywords += names if by_keyword else names[:1] or (None,)
        marks += shared if by_keyword else [any(shared)]
    return tuple(values), tuple(keywords), tuple(marks)


def _keyword(signature: Signature, key: int | str) -> str | None:
    return signature.keyword(key) if isinstance(key, str) else None


def named_by(extractor: Extractor, shared: bool = False) -> set[int | str]:
    """The positions and keys that ``extractor`` names, as far as it does; with ``shared`` those of `Shared` alone."""
    if isinstance(extractor, Shared):
        return named_by(extractor.extractor)
    if isinstance(extractor, (str, int, Item, Items, Keywords)):
        if shared:
            return set()
        if isinstance(extractor, Item):
            return {extractor.key}
        if isinstance(extractor, Items):
            return set(extractor.keys)
        return set(extractor.parts.values()) if isinstance(extractor, Keywords) else {extractor}
    if isinstance(extractor, Sequence):
        return {key for part in extractor for key in named_by(part, shared)}
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
        kept = [(name, part) for name, part in zip(names, left, strict=True) if name not in LABELS]
        if len(kept) == len(left):
            return left, (None,) * len(left), {}
        return tuple(part for _, part in kept), tuple(name for name, _ in kept), {}
    if not is_container(batch):
        return batch, (None,), {}
    parts = {str(key): part for key, part in items(batch) if key not in taken and key not in LABELS}
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
        if isinstance(value, np.ndarray) and value.dtype.kind in "biufc":  # texts and objects stay what they are
            native = value.astype(value.dtype.newbyteorder("="))  # a copy; bytes may be the other way round in files
            array = torch.from_numpy(native.astype(np.float64) if native.dtype == np.longdouble else native)
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
    if isinstance(value, np.ndarray):
        return f"ndarray of {value.dtype}"
    return f"{type(value).__name__} {value!r}" if isinstance(value, (str, int, float)) else type(value).__name__
