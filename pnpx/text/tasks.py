"""What a text model does, found by what it returns, and where its embeddings are."""

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from pnpx.attributors import left_as_found

Kind = Literal["sequence", "tokens", "span", "masked", "causal", "encoder_decoder"]


@dataclass(frozen=True)
class Task:
    """A task, the places of the embeddings, one, or those of encoder and decoder, and how many classes there are."""

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


def detect(model: nn.Module, arguments: dict[str, Tensor]) -> Task:
    """What the model does, tried out on one input.

    Args:
        model: any module that takes token ids.
        arguments: what it is called with, (1, length) each.

    Raises:
        TypeError: it returns nothing that is known here.
    """
    config = configuration(model)
    if getattr(config, "is_encoder_decoder", False) and not _classifies(model, arguments):
        return Task("encoder_decoder", embeddings(model, two=True))
    output = _run(model, arguments)
    places = embeddings(model, two=False)
    if _part(output, "start_logits") is not None and _part(output, "end_logits") is not None:
        return Task("span", places)
    logits = _part(output, "logits")
    if logits is None and isinstance(output, Tensor):
        logits = output
    if logits is None and isinstance(output, (tuple, list)) and output and isinstance(output[0], Tensor):
        logits = output[0]
    if logits is None or logits.ndim not in (2, 3):
        raise TypeError(
            f"the model must return logits (batch, classes) or (batch, length, classes), but returned a "
            f"{type(output).__name__}; a model without a head scores nothing"
        )
    if logits.ndim == 2:
        return Task("sequence", places, logits.shape[1])
    vocabulary = _vocabulary(model)
    if vocabulary is None or logits.shape[2] != vocabulary:
        return Task("tokens", places, logits.shape[2])
    return Task("causal" if _is_causal(model, arguments, logits) else "masked", places, logits.shape[2])


def _part(output: Any, name: str) -> Tensor | None:
    part = output.get(name) if isinstance(output, dict) else getattr(output, name, None)
    return part if isinstance(part, Tensor) else None


def _run(model: nn.Module, arguments: dict[str, Tensor]) -> Any:
    with left_as_found(model), torch.no_grad():
        return model(**arguments)


def _classifies(model: nn.Module, arguments: dict[str, Tensor]) -> bool:
    """Whether an encoder-decoder gives one row of logits a text, rather than one a generated token."""
    try:
        logits = _part(_run(model, arguments), "logits")
    except (ValueError, TypeError):  # it wants to be given what the decoder reads
        return False
    return logits is not None and logits.ndim == 2


def _vocabulary(model: nn.Module) -> int | None:
    """The number of tokens that a head for them gives; None if the model has no such head."""
    for module in model.modules():
        head = getattr(module, "get_output_embeddings", None)
        if callable(head) and head() is not None:
            weight: Tensor = head().weight
            return int(weight.shape[0])
    return None


def _is_causal(model: nn.Module, arguments: dict[str, Tensor], logits: Tensor) -> bool:
    """Whether what comes later leaves the logits before it as they are."""
    ids = arguments["input_ids"]
    if ids.shape[1] < 2:
        ids = ids.repeat(1, 2)
        arguments = {
            name: value.repeat(1, 2) if value.shape == arguments["input_ids"].shape else value
            for name, value in arguments.items()
        }
        first = _part(_run(model, arguments), "logits")
        logits = logits if first is None else first
    other = ids.clone()
    other[:, -1] = torch.where(ids[:, -1] == 0, 1, 0)
    changed = _part(_run(model, {**arguments, "input_ids": other}), "logits")
    if changed is None:
        return False
    # To rounding: in a net with random weights one token of many changes little.
    moved = (changed[:, :-1] - logits[:, :-1]).abs().max()
    return bool(moved <= 16 * torch.finfo(logits.dtype).eps * logits.abs().max())


def embeddings(model: nn.Module, two: bool) -> tuple[str, ...]:
    """Where token ids become vectors: of the model, or (``two``) of its encoder and its decoder.

    Raises:
        LookupError: the model does not tell.
    """
    owner: Any = next((module for module in model.modules() if hasattr(module, "get_input_embeddings")), None)
    if owner is None:
        raise LookupError("the model does not tell its embeddings (get_input_embeddings); say where to explain: layer=")
    if not two:
        return (_path(model, owner.get_input_embeddings()),)
    sides = [owner.get_encoder().get_input_embeddings(), owner.get_decoder().get_input_embeddings()]
    paths = [_path(model, side) for side in sides]
    if sides[0] is sides[1]:  # one table serves both, the encoder first
        return f"{paths[0]}#1", f"{paths[0]}#2"
    return tuple(paths)


def _path(model: nn.Module, module: nn.Module) -> str:
    for path, candidate in model.named_modules():
        if candidate is module:
            return str(path)
    raise LookupError("the model's input embeddings are not among its modules; say where to explain: layer=")
