"""What a text model does, found by what it returns, and where its embeddings are."""

import threading
import weakref
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from pnpx.text.embedding import places, run
from pnpx.text.returned import is_span, logits_of

Kind = Literal["sequence", "tokens", "span", "masked", "causal", "encoder_decoder"]


@dataclass(frozen=True)
class Task:
    """A task, the places of the embeddings, and how many classes there are.

    The places are one, or those of encoder and decoder; none where the model tells none. A model whose decoder reads
    the text that its encoder reads, as BART's classifier does, has two places and generates nothing.
    """

    kind: Kind
    embeddings: tuple[str, ...]
    classes: int | None = None


def configuration(model: nn.Module) -> Any:
    """The configuration of the model, or of the first module in it that has one; None if there is none."""
    return next((module.config for module in model.modules() if getattr(module, "config", None) is not None), None)


def length_limit(model: nn.Module, tokenizer: Any) -> int | None:
    """The most tokens that the model reads, as far as its configuration and its tokenizer tell."""
    config = configuration(model)
    limits = [getattr(tokenizer, "model_max_length", None)]
    positions = getattr(config, "max_position_embeddings", None) or getattr(config, "n_positions", None)
    if positions and getattr(config, "model_type", "") in ("roberta", "xlm-roberta", "camembert", "longformer"):
        positions -= (getattr(config, "pad_token_id", None) or 0) + 1  # their positions begin after that of padding
    limits.append(positions)
    # A tokenizer that knows of no limit gives a huge number.
    found = [int(limit) for limit in limits if limit is not None and 0 < limit < 10**9]
    return min(found, default=None)


def known_tokens(model: nn.Module) -> int | None:
    """How many tokens the model knows, as far as it tells; a tokenizer may have more, or fewer."""
    for module in model.modules():
        table = getattr(module, "get_input_embeddings", None)
        if callable(table):
            count = getattr(table(), "num_embeddings", None)
            return None if count is None else int(count)
    return None


_lock = threading.Lock()
_known: dict[int, tuple["weakref.ref[nn.Module]", Any, Task]] = {}


def detect(model: nn.Module, arguments: dict[str, Tensor]) -> Task:
    """What the model does, tried out on one input the first time, and remembered while its modules stay the same.

    Args:
        model: any module that takes token ids.
        arguments: what it is called with, (1, length) each.

    Raises:
        TypeError: it returns nothing that is known here.
    """
    key, state = id(model), _state(model)
    with _lock:
        owner, before, task = _known.get(key) or (None, None, None)
    if task is not None and owner is not None and owner() is model and before == state:
        return task
    task = _tried(model, arguments)

    def forget(_: object) -> None:
        _known.pop(key, None)

    with _lock:
        _known[key] = (weakref.ref(model, forget), state, task)
    return task


def _state(model: nn.Module) -> Any:
    """What the task depends on: a head that is exchanged, or a decoder's flag, may make it another."""
    config = configuration(model)
    flags = (getattr(config, "is_decoder", None), getattr(config, "is_encoder_decoder", None))
    return flags, [id(module) for module in model.modules()]


def _tried(model: nn.Module, arguments: dict[str, Tensor]) -> Task:
    two = bool(getattr(configuration(model), "is_encoder_decoder", False))
    try:
        output, ran = run(model, arguments)
    except (ValueError, TypeError):
        if not two:
            raise
        # It wants to be given what the decoder reads.
        output, ran = run(model, {**arguments, "decoder_input_ids": arguments["input_ids"][:, :1]})
    where = places(model, ran, 2 if two else 1)
    if is_span(output, arguments["input_ids"]):
        return Task("span", where)
    logits = logits_of(output)
    if logits.ndim == 2:
        return Task("sequence", where, logits.shape[1])
    if logits.shape[2] not in _vocabulary(model, ran):
        return Task("tokens", where, logits.shape[2])
    if len(where) == 2:
        return Task("encoder_decoder", where, logits.shape[2])
    return Task("causal" if _is_causal(model, arguments, logits) else "masked", where, logits.shape[2])


def _vocabulary(model: nn.Module, ran: list[nn.Module]) -> set[int]:
    """The numbers of tokens that a head for them may give."""
    for module in model.modules():
        head = getattr(module, "get_output_embeddings", None)
        if callable(head) and head() is not None:
            return {int(head().weight.shape[0])}
    # No module tells its head; a head that gives as many scores as there are tokens is one for them.
    return {module.num_embeddings for module in ran[:1] if isinstance(module, nn.Embedding)}


def _is_causal(model: nn.Module, arguments: dict[str, Tensor], logits: Tensor) -> bool:
    """Whether what comes later leaves the logits before it as they are."""
    ids = arguments["input_ids"]
    if ids.shape[1] < 2:
        arguments = {
            name: value.repeat(1, 2) if value.shape == ids.shape else value for name, value in arguments.items()
        }
        ids = arguments["input_ids"]
        logits = logits_of(run(model, arguments)[0])
    other = ids.clone()
    other[:, -1] = torch.where(ids[:, -1] == 0, 1, 0)
    changed = logits_of(run(model, {**arguments, "input_ids": other})[0])
    # To rounding: in a net with random weights one token of many changes little. In half precision that may be less
    # than rounding is, but then it changes many logits, where rounding changes few if any.
    before, after = logits[:, :-1], changed[:, :-1]
    if torch.finfo(logits.dtype).eps > 1e-4:
        return bool((before != after).float().mean() < 0.01)
    return bool((before - after).abs().max() <= 16 * torch.finfo(logits.dtype).eps * logits.abs().max())
