"""From a batch to the call of a model: by extractors, or, without any, by what the model's signature says."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from pnpx.extractors.call import Call, batch_axes, with_entries
from pnpx.extractors.keys import Unknown, placed_keys
from pnpx.extractors.placing import placed
from pnpx.extractors.ready_made import Extractor, Shared, named_by, part_of
from pnpx.extractors.signature import Signature
from pnpx.extractors.whole import whole
from pnpx.masked import require_unmasked
from pnpx.structure import Structure

FORWARD, ADDITIONAL = "forward_arg_extractor", "additional_forward_arg_extractor"


def extract(
    model: nn.Module,
    batch: Any,
    forward: Extractor = None,
    additional: Extractor = None,
    padding_mask: Extractor = None,
) -> Call:
    """The call of ``model`` for ``batch``.

    Without extractors a tensor is one argument, a tuple or list as many as the model's ``forward`` requires. A mapping
    or dataclass goes by keyword: those of its parts that ``forward`` names, without labels (see `Signature.is_label`);
    masks and positions among them only go along. So does a named tuple of which a part is named like an argument, if
    nothing that ``forward`` requires is missing then. Else it is a tuple.

    Args:
        model: what is called; only its signature is read.
        batch: a tensor, NumPy array, tuple, list, mapping, dataclass, or anything that the extractors understand.
        forward: takes what is explained.
        additional: takes what only goes along. If ``forward`` is left out, the rest of the batch is explained.
        padding_mask: takes a mask (batch, length), true for the steps of sequences that are no padding.

    Raises:
        LookupError: an extractor names a part that the batch does not have.
        TypeError: nothing is left to call the model with, or more than it takes, or what may as well be labels.
        ValueError: a forward argument is to be explained and to go along as well, or the mask is none of the batch.
    """
    signature = Signature(model)
    extra, extra_names, shared = ((), (), ()) if additional is None else _take(signature, batch, additional, ADDITIONAL)
    if forward is None:
        value, names, rest = whole(
            signature, batch, named_by(additional), _given(signature, extra_names), named_by(padding_mask)
        )
    else:
        value, names, marked = _take(signature, batch, forward, FORWARD)
        rest = {}
        if any(marked):
            raise TypeError(
                "what is explained has an axis of the batch, so that Shared is for additional_forward_arg_extractor, "
                f"but forward_arg_extractor is {forward!r}"
            )
        if not names:
            raise TypeError("forward_arg_extractor must take what is explained, but takes nothing: it is empty")
    names, extra_names = placed_keys(signature, names, extra_names, rest)
    extras = Call(extra, extra_names)
    if twice := [name for name in extra_names if name is not None and name in (*names, *rest)]:
        raise ValueError(
            f"the forward argument {twice[0]!r} is taken twice, to be explained and to go along; leave it out of "
            "additional_forward_arg_extractor"
        )
    steps = None if padding_mask is None else _take(signature, batch, padding_mask, "padding_mask_extractor")[0]
    call = placed(model, Call(value, names, extras.args, {**rest, **extras.kwargs}, _steps(steps)))
    _require_one_each(signature, call)
    size = call.batch_size
    if call.steps is not None and len(call.steps) != size:
        raise ValueError(
            f"padding_mask_extractor must take a mask with a row for each of the {size} samples, but took one of shape "
            f"{tuple(call.steps.shape)}; its shape is (batch, length)"
        )
    return _with_axes(call, dict(zip(_places(extra_names), shared, strict=True)))


def _given(signature: Signature, extra_names: Sequence[str | None]) -> set[str]:
    """The arguments that what goes along has values for, where all else goes by keyword."""
    named = {str(name) for name in extra_names if name is not None and not isinstance(name, Unknown)}
    return named | set(signature.positional[: len(extra_names) - sum(name in named for name in extra_names)])


def _places(names: Sequence[str | None]) -> list[int | str]:
    """Where each value of these ``names`` goes: its keyword, or its position among those that have none."""
    positions = itertools.count()
    return [next(positions) if name is None else name for name in names]


def _with_axes(call: Call, marks: Mapping[int | str, bool]) -> Call:
    """The call with its lists by sample as such, and with the axes of the batch in what goes along.

    ``marks`` says of what goes along, by position or keyword, whether it is marked as `Shared`.
    """
    size, axes = call.batch_size, []

    def seen(value: Any, mark: bool) -> Any:
        value = value if mark else with_entries(value, size)
        axes.extend(batch_axes(value, size, mark))
        return value

    args = tuple(seen(value, marks[number]) for number, value in enumerate(call.additional_args))
    kwargs = {name: seen(value, marks.get(name, False)) for name, value in call.additional_kwargs.items()}
    call = call.with_values([with_entries(value, size) for value in call.values])
    return replace(call, additional_args=args, additional_kwargs=kwargs, axes=tuple(axes))


def _require_one_each(signature: Signature, call: Call) -> None:
    """Require that no forward argument is given by position and by keyword."""
    by_position = signature.positional[: len(call.args)]
    if twice := [name for name in by_position if name in call.kwargs]:
        raise TypeError(
            f"what the extractors take under no name of a forward argument goes by position, but the first "
            f"{len(call.args)} of them ({', '.join(by_position)}) would get {twice[0]!r}, which is taken by name, too; "
            "say which argument each part is for: pnpx.extractors.Keywords({argument: key})"
        )


def _steps(mask: Any) -> Tensor | None:
    """``mask`` as booleans (batch, length).

    Raises:
        TypeError: it is a masked array.
        ValueError: it is not of that shape, has other values than 0 and 1, or a sample without any step.
    """
    if mask is None:
        return None
    require_unmasked("what padding_mask_extractor takes", mask)
    steps = torch.as_tensor(mask)
    if steps.ndim != 2:
        raise ValueError(
            f"padding_mask_extractor must take a mask of shape (batch, length), but took one of {tuple(steps.shape)}"
        )
    if other := steps[(steps != 0) & (steps != 1)].tolist():
        raise ValueError(
            "padding_mask_extractor must take a mask that is bool, or 1 for the steps that are no padding and 0 for "
            f"padding, but took one that holds {other[0]:g}; an additive mask is turned into one by mask == 0"
        )
    steps = steps == 1
    if empty := (~steps.any(1)).nonzero().flatten().tolist():
        raise ValueError(
            f"padding_mask_extractor must take a mask with a step for every sample that is no padding, but that of "
            f"sample {empty[0]} is padding throughout; leave such samples out of the batch"
        )
    return steps


def _take(
    signature: Signature, batch: Any, extractor: Extractor, role: str
) -> tuple[Structure, tuple[str | None, ...], tuple[bool, ...]]:
    """What ``extractor`` takes from ``batch``; for each value its keyword, and whether it is marked as `Shared`.

    The keyword is None for what goes by position, and `Unknown` for a key that no forward argument has.
    """
    if isinstance(extractor, Shared):
        value, names, _ = _take(signature, batch, extractor.extractor, role)
        return value, names, (True,) * len(names)
    if isinstance(extractor, bool):
        raise TypeError(f"{role} must be an int, a str, a sequence of them, or a callable, but is {extractor!r}")
    if isinstance(extractor, (int, str)):
        name = (signature.keyword(extractor) or Unknown(extractor)) if isinstance(extractor, str) else None
        return part_of(batch, extractor), (name,), (False,)
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
