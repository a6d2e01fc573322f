"""From the targets of several texts to those of each, and to the outputs at positions that they name."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from pnpx.suggest import nearest
from pnpx.text.generation import Contrast
from pnpx.text.returned import SPAN, logits_of, span_of
from pnpx.text.targets import Outputs, classes_of, plain
from pnpx.text.tasks import Kind, Task
from pnpx.text.tokenizing import bare_ids
from pnpx.text.unpadded import Reading


def targets_of(targets: Any, n_texts: int, single: bool, kind: Kind) -> list[Any]:
    """The target of each text, for a model that does not classify texts as a whole.

    Args:
        targets: None, or one for all texts: in generation a text, token ids or a `Contrast`; for tokens a class, for
            masks a token. Or one for each text: these, or (position, class) pairs; for spans (start, end).
        n_texts: how many texts there are.
        single: whether one text was given, not in a list; then ``targets`` is its target.
        kind: what the model does.

    Raises:
        ValueError: there are not as many targets as texts.
    """
    if targets is None or isinstance(targets, (str, Contrast)):
        return [targets] * n_texts
    if isinstance(targets, Mapping):
        return [targets] * n_texts if single or n_texts == 1 else _of_each(_rows_of(targets), n_texts)
    targets = plain(targets)
    if not isinstance(targets, (list, tuple)):
        return [targets] * n_texts
    generating = kind in ("causal", "encoder_decoder")
    if generating and targets and all(_is_number(target) for target in targets):
        return [targets] * n_texts  # ids of one continuation
    if single and not (len(targets) == 1 and (generating or _is_list_of_pairs(targets[0]))):
        if generating:
            raise ValueError(
                f"one text has one continuation, but {len(targets)} targets were given; give the text as "
                "often as there are continuations, in a list"
            )
        return [targets]
    return _of_each(targets, n_texts)


def chosen(tokenizer: Any, names: dict[int, str], reading: Reading, target: Any, task: Task, said: Any) -> Outputs:
    """The outputs explained of a model that labels tokens, fills in masks or finds a span.

    Args:
        tokenizer: of transformers.
        names: the labels of the classes of tokens.
        reading: the text.
        target: None for what is predicted (of each token but special ones, of each mask, of start and end of the span),
            a class of all of these tokens, a token for all masks, or (position, class) pairs; for spans (start, end).
        task: what the model does.
        said: what it returned for the text.

    Raises:
        ValueError, TypeError: the target names no output.
    """
    if task.kind == "span":
        return _span(reading, target, said)
    logits = logits_of(said)
    pairs = _pairs(tokenizer, names, reading, target, task, logits)
    labels = [
        f"{reading.encoded.tokens[place]}: {names.get(index, index)}"
        if task.kind == "tokens"
        else str(tokenizer.convert_ids_to_tokens(index))
        for place, index in pairs
    ]
    places, indices = (torch.tensor(column) for column in zip(*pairs, strict=True))
    return Outputs(task.kind, places, indices, tuple(labels))


def _span(reading: Reading, target: Any, said: Any) -> Outputs:
    best = [int(part[0].argmax()) for part in span_of(said).values()] if target is None else target
    if not (isinstance(best, (list, tuple)) and len(best) == 2 and all(_is_number(place) for place in best)):
        raise TypeError(f"the target of a span is (start, end), positions of tokens, but got {target!r}")
    for place in best:
        _require_place(place, reading)
    names = tuple(
        f"{what}: {reading.encoded.tokens[place]}" for what, place in zip(("start", "end"), best, strict=True)
    )
    return Outputs("span", torch.zeros(2, dtype=torch.long), torch.tensor(best), names, parts=SPAN)


def _pairs(
    tokenizer: Any, names: dict[int, str], reading: Reading, target: Any, task: Task, logits: Tensor
) -> list[tuple[int, int]]:
    """Positions, and the class or token there."""

    def index(one: Any) -> int:
        return _token(tokenizer, one, logits.shape[-1]) if task.kind == "masked" else _class(one, names, logits)

    if isinstance(target, (list, tuple)):
        if not _is_list_of_pairs(target):
            raise TypeError(f"targets of tokens are (position, class) pairs, at least one, but got {target!r:.60}")
        for place, _ in target:
            _require_place(place, reading)
        return [(place, index(one)) for place, one in target]
    if task.kind == "masked":
        places = (reading.ids == tokenizer.mask_token_id).nonzero()[:, 0].tolist()
        if not places:
            raise ValueError(
                f"there is no {tokenizer.mask_token} in the text; say what is explained by targets=, as "
                "(position, token) pairs"
            )
    else:
        places = [piece.position for piece in reading.encoded.pieces() if piece.sequence is not None]
    if target is None:
        return [(place, int(logits[0, place].argmax())) for place in places]
    return [(place, index(target)) for place in places]


def _class(target: Any, names: dict[int, str], logits: Tensor) -> int:
    ((found, *_),) = [one.indices or () for one in classes_of(target, 1, True, names, logits.shape[-1])]
    return found


def _token(tokenizer: Any, target: Any, count: int) -> int:
    """A token by its id, as the vocabulary writes it, or as it is written in a text."""
    if not isinstance(target, str):
        if not _is_number(target):
            raise TypeError(f"what stands for a mask is a token or its id, but got {target!r}")
        if not 0 <= target < count:
            raise ValueError(f"what stands for a mask must be a token id from 0 to {count - 1}, but is {target}")
        return int(target)
    vocabulary = tokenizer.get_vocab()
    if target in vocabulary:
        return int(vocabulary[target])
    ids = bare_ids(tokenizer, target)
    if len(ids) == 1 and ids[0] != getattr(tokenizer, "unk_token_id", None):
        return int(ids[0])
    raise ValueError(
        f"what stands for a mask must be one token of the vocabulary, but {target!r} is not"
        f"; {nearest(target, vocabulary)}"
    )


def _require_place(place: int, reading: Reading) -> None:
    if not 0 <= place < len(reading):
        raise ValueError(f"a position must be that of one of the {len(reading)} tokens, from 0, but is {place}")


def _of_each(targets: Any, n_texts: int) -> list[Any]:
    if len(targets) != n_texts:
        raise ValueError(f"there must be a target for each of the {n_texts} texts, but there are {len(targets)}")
    return list(targets)


def _rows_of(mapping: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A mapping of rows as a mapping for each row."""
    if "input_ids" not in mapping:
        raise ValueError(f"a mapping as target must have 'input_ids', but has {', '.join(map(repr, mapping))}")
    names = [name for name in ("input_ids", "attention_mask") if name in mapping]
    rows = zip(*(mapping[name] for name in names), strict=True)
    return [dict(zip(names, row, strict=True)) for row in rows]


def _is_number(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_list_of_pairs(value: Any) -> bool:
    return (
        isinstance(value, (list, tuple))
        and bool(value)
        and all(isinstance(pair, (list, tuple)) and len(pair) == 2 and _is_number(pair[0]) for pair in value)
    )
