"""A batch without an extractor for what is explained: which of its parts reach the model, and as which arguments."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from pnpx.extractors.ready_made import Keywords
from pnpx.extractors.signature import LABELS, Signature
from pnpx.structure import Structure, is_container, items, tensors

Taken = tuple[Structure, tuple[str | None, ...], dict[str, Any]]
"""What is explained, the keywords for it, and what goes along by keyword."""


def whole(
    signature: Signature, batch: Any, taken: set[int | str], given: Collection[str], masks: Collection[int | str]
) -> Taken:
    """All of ``batch`` but ``taken``, where the arguments ``given`` have values already, and ``masks`` are for padding.

    A named tuple goes by its fields where one is named like an argument, and nothing that is required is missing then.

    Raises:
        TypeError: it has more parts than the model takes, or none of them, or what may as well be labels.
    """
    if _goes_by_name(signature, batch, taken, given, masks):
        batch = batch._asdict()
    if isinstance(batch, (tuple, list)) and not isinstance(batch, PackedSequence):
        return _by_position(signature, batch, taken)
    if is_container(batch):
        return _by_name(signature, batch, taken)
    if parts := _parts(batch):
        part = next((name for name in parts if name not in LABELS), parts[0])
        raise TypeError(
            "a batch must be a tensor, an array, a tuple, a list, a mapping or a dataclass, but is "
            f"{type(batch).__name__}, whose {part!r} holds tensors; say which part is explained: "
            f"forward_arg_extractor={part!r}"
        )
    return batch, (None,), {}


def _parts(batch: Any) -> list[str]:
    """The attributes that hold tensors or arrays, of an object that is no tensor itself."""
    if isinstance(batch, (Tensor, np.ndarray, PackedSequence)):
        return []
    held = getattr(batch, "__dict__", {})
    return [name for name, part in held.items() if isinstance(part, np.ndarray) or tensors(part)]


def _goes_by_name(
    signature: Signature, batch: Any, taken: set[int | str], given: Collection[str], masks: Collection[int | str]
) -> bool:
    """Whether ``batch`` is a named tuple that goes by its fields, see `whole`, and none of them is numbered.

    Raises:
        TypeError: a field is named like no argument, but an argument for which there is nothing could take it.
    """
    if not isinstance(batch, tuple) or isinstance(batch, PackedSequence) or any(isinstance(key, int) for key in taken):
        return False
    left = [name for name in getattr(batch, "_fields", ()) if name not in taken and not signature.is_label(name)]
    if signature.open_ended and not signature.positional and not signature.positional_open_ended:
        return bool(left)
    named = [name for name in left if name in signature.names]
    if not named or signature.required - {*named, *given}:
        return False
    others = [name for name in left if name not in (*named, *masks)]
    free = [name for name in signature.positional if name not in (*named, *given) and not signature.is_label(name)]
    if others and free:
        alone = named[0] if len(named) == 1 else tuple(named)
        every = Keywords({**dict(zip(free, others, strict=False)), **dict(zip(named, named, strict=True))})
        raise TypeError(
            f"the {type(batch).__name__} as batch has no part for the argument {free[0]!r} of {signature.called}; "
            f"whether its part {others[0]!r} is that argument or a label must be said: "
            f"forward_arg_extractor={alone!r}, or forward_arg_extractor={every}"
        )
    return True


def _by_position(signature: Signature, batch: Sequence[Any], taken: set[int | str]) -> Taken:
    fields: Sequence[Any] = getattr(batch, "_fields", range(len(batch)))
    left = [n for n in range(len(batch)) if not taken & {n, n - len(batch), fields[n]}]
    limit = len(signature.positional) or min(1, len(signature.names))
    if len(left) > limit and not signature.positional_open_ended:
        known = "" if signature.positional else "by keyword: "
        raise TypeError(
            f"the batch has {len(left)} parts, but the model's forward takes {limit} "
            f"({known}{', '.join(signature.positional or signature.names)}); say which part is explained: "
            "forward_arg_extractor=0"
        )
    names = [*signature.positional, *[""] * len(left)][: len(left)]
    kept = {place: name for place, name in zip(left, names, strict=True) if not signature.is_label(name)}
    gaps = len(kept) < len(left)
    _require_clear(signature, len(batch), kept, Keywords({n: p for p, n in kept.items()}) if gaps else tuple(kept))
    return tuple(batch[place] for place in kept), tuple(kept.values()) if gaps else (None,) * len(left), {}


def _require_clear(signature: Signature, size: int, kept: Mapping[int, str], every: object) -> None:
    """Require that the parts of a batch by position, ``kept``, are those without which the model does not run.

    Any other may be a label, as the second part of most data loaders' batches is. ``every`` extracts all of them.
    """
    required = [name for name in signature.positional if name in signature.required]
    places, n_sure = list(kept), max(1, len(required))
    if len(places) <= n_sure:
        return
    unsure = places[n_sure]
    named = f" ({', '.join(map(repr, required))})" if required else ""
    raise TypeError(
        f"the batch has {size} parts, and {signature.called} requires {len(required) or 'no'} "
        f"argument{'' if len(required) == 1 else 's'}{named}; whether its part {unsure}, counted from 0, is "
        f"{f'the argument {kept[unsure]!r}' if kept[unsure] else 'one more argument'} or a label must be said: "
        f"forward_arg_extractor={places[0] if n_sure == 1 else tuple(places[:n_sure])}, or "
        f"forward_arg_extractor={every}"
    )


def _by_name(signature: Signature, batch: Any, taken: set[int | str]) -> Taken:
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
