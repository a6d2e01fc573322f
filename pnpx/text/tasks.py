"""What a text model does, found by what it returns, and where its embeddings are."""

import threading
import weakref
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from pnpx.text.embedding import places, run

Kind = Literal["sequence", "tokens", "span", "masked", "causal", "encoder_decoder"]


@dataclass(frozen=True)
class Task:
    """A task, and the places of the embeddings: one, or those of encoder and decoder; none where the model tells none.

    A model whose decoder reads the text that its encoder reads, as BART's classifier, has two places and generates
    nothing.
    """

    kind: Kind
    embeddings: tuple[str, ...]

    @property
    def layer(self) -> str | list[str]:
        """The places, as ``layer`` of an explainer.

        Raises:
            LookupError: the model does not tell them.
        """
        if not self.embeddings:
            raise LookupError(
                "the model does not tell where token ids become vectors: no module that ran is given by "
                "get_input_embeddings, and none is an nn.Embedding of the ids; say where to explain: layer="
            )
        return self.embeddings[0] if len(self.embeddings) == 1 else list(self.embeddings)


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
    if _is_span(output, arguments["input_ids"]):
        return Task("span", where)
    logits = logits_of(output)
    if logits is None or logits.ndim not in (2, 3):
        raise TypeError(
            f"the model must return logits (batch, classes) or (batch, length, classes), but returned a "
            f"{type(output).__name__}; a model without a head scores nothing"
        )
    if logits.ndim == 2:
        return Task("sequence", where)
    if logits.shape[2] not in _vocabulary(model, ran):
        return Task("tokens", where)
    if len(where) == 2:
        return Task("encoder_decoder", where)
    return Task("causal" if _is_causal(model, arguments, logits) else "masked", where)


def _part(output: Any, name: str) -> Tensor | None:
    part = output.get(name) if isinstance(output, dict) else getattr(output, name, None)
    return part if isinstance(part, Tensor) else None


def logits_of(output: Any) -> Tensor | None:
    """The logits in what a model returned: the tensor itself, its ``logits``, or the first of a tuple."""
    if isinstance(output, Tensor):
        return output
    if isinstance(output, (tuple, list)) and output and isinstance(output[0], Tensor):
        return output[0]
    return _part(output, "logits")


SPAN = ("start_logits", "end_logits")


def span_of(output: Any) -> tuple[Tensor, Tensor] | None:
    """The scores of each token as the beginning, and as the end, of an answer, (batch, length) each."""
    start, end = (_part(output, name) for name in SPAN)
    if start is not None and end is not None:
        return start, end
    pair = output[:2] if isinstance(output, (tuple, list)) else ()
    if len(pair) == 2 and all(isinstance(part, Tensor) and part.ndim == 2 for part in pair):
        return pair[0], pair[1]
    return None


def _is_span(output: Any, ids: Tensor) -> bool:
    # Without names it is two numbers for each token. As many classes as tokens would be chance.
    span = span_of(output)
    return span is not None and all(_part(output, SPAN[0]) is not None or part.shape == ids.shape for part in span)


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
        first = logits_of(run(model, arguments)[0])
        logits = logits if first is None else first
    other = ids.clone()
    other[:, -1] = torch.where(ids[:, -1] == 0, 1, 0)
    changed = logits_of(run(model, {**arguments, "input_ids": other})[0])
    if changed is None:
        return False
    # To rounding: in a net with random weights one token of many changes little. In half precision that may be less
    # than rounding is, but then it changes many logits, where rounding changes few if any.
    before, after = logits[:, :-1], changed[:, :-1]
    if torch.finfo(logits.dtype).eps > 1e-4:
        return bool((before != after).float().mean() < 0.01)
    return bool((before - after).abs().max() <= 16 * torch.finfo(logits.dtype).eps * logits.abs().max())
