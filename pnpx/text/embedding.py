"""Where a model makes vectors of token ids, seen while it runs."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from pnpx.attributors import left_as_found, unwrapped


def run(model: nn.Module, arguments: dict[str, Tensor]) -> tuple[Any, list[nn.Module]]:
    """What the model returns, and the modules that made vectors of token ids, in order, once for each time."""
    model = unwrapped(model)  # as it was written: inside compiled code no module is seen to run
    with left_as_found(model), torch.no_grad(), _embedding(model, arguments["input_ids"]) as ran:
        return model(**arguments), ran


@contextmanager
def _embedding(model: nn.Module, ids: Tensor) -> Iterator[list[nn.Module]]:
    declared: list[nn.Module] = []
    for module in model.modules():
        told = getattr(module, "get_input_embeddings", None)
        if callable(told):
            try:
                declared.append(told())
            except NotImplementedError:
                continue  # a part of the model that reads no tokens
    thread = threading.get_ident()
    by_name: list[nn.Module] = []
    by_ids: list[nn.Module] = []

    def note(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        if threading.get_ident() != thread:
            return  # another thread uses the model
        if any(module is one for one in declared):
            by_name.append(module)
        elif args and isinstance(args[0], Tensor) and args[0].shape == ids.shape and bool((args[0] == ids).all()):
            by_ids.append(module)

    ran: list[nn.Module] = []
    watched = [module for module in model.modules()
               if isinstance(module, nn.Embedding) or any(module is one for one in declared)]
    handles = [module.register_forward_hook(note) for module in watched]
    try:
        yield ran
    finally:
        for handle in handles:
            handle.remove()
        ran += by_name or by_ids


def places(model: nn.Module, ran: list[nn.Module], most: int) -> tuple[str, ...]:
    """The paths of the first of the modules that `run` found, ``most`` of them; with the number of the call where one
    ran several times."""
    paths = {id(module): path for path, module in unwrapped(model).named_modules()}
    found = []
    for number, module in enumerate(ran[:most]):
        several = sum(one is module for one in ran) > 1
        call = sum(one is module for one in ran[: number + 1])
        found.append(f"{paths[id(module)]}#{call}" if several else paths[id(module)])
    return tuple(found)


def layer_of(where: Sequence[str]) -> str | list[str]:
    """The ``layer`` of an explainer for these places.

    Raises:
        LookupError: there are none.
    """
    if not where:
        raise LookupError(
            "the model does not tell where token ids become vectors: no module that ran is given by "
            "get_input_embeddings, and none is an nn.Embedding of the ids; say where to explain: layer="
        )
    return where[0] if len(where) == 1 else list(where)
