"""Where a model makes vectors of the token ids that are explained: the places at which their gradients can be taken."""

import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from pnpx.attributors import left_as_found, unwrapped
from pnpx.extractors import Call
from pnpx.structure import tensors

_KINDS = (nn.Embedding, nn.EmbeddingBag)


@dataclass(frozen=True)
class Embedded:
    """A place where ids become vectors.

    Args:
        layer: for an explainer: a path, or, where several ids are explained, a tuple of paths.
        padding: the id of padding there, if it is known; else None.
    """

    layer: str | tuple[str, ...]
    padding: int | None


@dataclass(frozen=True)
class _Ran:
    """One call of a module, counted from 1: with which of the ids, and whether these are just them, or what is computed
    from them."""

    module: nn.Module
    call: int
    number: int
    exact: bool


def embeddings_of(model: nn.Module, call: Call) -> list[Embedded]:
    """Where the ids of a call become vectors, the best place first; none where no module tells.

    A module that makes vectors of tokens and their positions together, such as ``bert.embeddings``, comes before the
    table of tokens in it, ``bert.embeddings.word_embeddings``. The model is run once, without gradients.

    >>> from pnpx.extractors import extract
    >>> model = nn.Sequential(nn.Embedding(10, 4), nn.Flatten(), nn.Linear(12, 2))
    >>> embeddings_of(model, extract(model, torch.tensor([[1, 2, 3]])))
    [Embedded(layer='0', padding=None)]
    """
    model = unwrapped(model)  # as it was written: inside compiled code no module is seen to run
    ids = [leaf for leaf in tensors(call.forward) if not leaf.is_floating_point()]
    with left_as_found(model), torch.no_grad(), _watched(model, ids) as (ran, calls):
        model(*call.args, **call.kwargs)
    paths = {id(module): path for path, module in model.named_modules() if path}
    wholes: list[str] = []
    tables: list[str] = []
    padding: int | None = None
    for number in range(len(ids)):
        own = [one for one in ran if one.number == number and id(one.module) in paths]
        own = [one for one in own if one.exact] or own
        table = next((one for one in own if isinstance(one.module, _KINDS)), None)
        whole = next((one for one in own if not isinstance(one.module, _KINDS)), table)
        if table is None or whole is None:
            continue
        tables.append(_place(table, calls, paths))
        wholes.append(_place(whole, calls, paths))
        padding = _padding(table.module, model) if padding is None else padding
    found = [tuple(dict.fromkeys(wholes)), tuple(dict.fromkeys(tables))]
    layers = [one for one in dict.fromkeys(found) if one]
    return [Embedded(one[0] if len(one) == 1 else one, padding) for one in layers]


@contextmanager
def _watched(model: nn.Module, ids: Sequence[Tensor]) -> Iterator[tuple[list[_Ran], Counter[int]]]:
    """What reads ids while the model runs, in the order in which it begins, so that outer modules come first; and how
    often each module ran."""
    ran: list[_Ran] = []
    calls: Counter[int] = Counter()
    thread = threading.get_ident()

    def note(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if threading.get_ident() != thread:
            return  # another thread uses the model
        calls[id(module)] += 1
        given = [leaf for leaf in tensors((args, kwargs)) if not leaf.is_floating_point() and leaf.dtype != torch.bool]
        for number, own in enumerate(ids):
            exact = any(leaf.shape == own.shape and bool((leaf == own).all()) for leaf in given)
            # The ids may be turned round, or counted from another number, before they are looked up.
            if exact or (isinstance(module, _KINDS) and any(leaf.numel() == own.numel() for leaf in given)):
                ran.append(_Ran(module, calls[id(module)], number, exact))

    handles = [
        module.register_forward_pre_hook(note, with_kwargs=True)
        for module in model.modules()
        if isinstance(module, _KINDS) or "embedding" in type(module).__name__.casefold()
    ]
    try:
        yield ran, calls
    finally:
        for handle in handles:
            handle.remove()


def _place(one: _Ran, calls: Counter[int], paths: dict[int, str]) -> str:
    """The path of a module, with the number of the call where it ran several times."""
    path = paths[id(one.module)]
    return f"{path}#{one.call}" if calls[id(one.module)] > 1 else path


def _padding(table: nn.Module, model: nn.Module) -> int | None:
    """The id of padding: that of the table, or of the model's configuration."""
    config = getattr(model, "config", None)
    for known in (getattr(table, "padding_idx", None), getattr(config, "pad_token_id", None)):
        if isinstance(known, int) and 0 <= known < getattr(table, "num_embeddings", 0):
            return known
    return None
