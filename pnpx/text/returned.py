"""What is in the output of a text model: its logits, or where a span begins and ends."""

from typing import Any

from torch import Tensor

SPAN = ("start_logits", "end_logits")


def logits_of(output: Any) -> Tensor:
    """The logits in what a model returned: the tensor itself, its ``logits``, or the first of a tuple.

    Returns:
        (batch, classes) or (batch, length, classes).

    Raises:
        TypeError: there are none.
    """
    first = output[0] if isinstance(output, (tuple, list)) and output else output
    found = first if isinstance(first, Tensor) else _part(output, "logits")
    if found is None or found.ndim not in (2, 3):
        raise TypeError(
            "the model must return logits (batch, classes) or (batch, length, classes), but returned a "
            f"{type(output).__name__}; a model without a head scores nothing"
        )
    return found


def span_of(output: Any) -> dict[str, Tensor]:
    """The scores of each token as the beginning and as the end of an answer, (batch, length) each, by `SPAN`; empty if
    there are none."""
    named = {name: part for name in SPAN if (part := _part(output, name)) is not None}
    if len(named) == len(SPAN):
        return named
    pair = output[:2] if isinstance(output, (tuple, list)) else ()
    if len(pair) == len(SPAN) and all(isinstance(part, Tensor) and part.ndim == 2 for part in pair):
        return dict(zip(SPAN, pair, strict=True))
    return {}


def is_span(output: Any, ids: Tensor) -> bool:
    """Whether the output scores each of the tokens, (batch, length), as the beginning and the end of an answer."""
    # Without names it is two numbers for each token. As many classes as tokens would be chance.
    return bool(span := span_of(output)) and all(part.shape == ids.shape for part in span.values())


def _part(output: Any, name: str) -> Tensor | None:
    part = output.get(name) if isinstance(output, dict) else getattr(output, name, None)
    return part if isinstance(part, Tensor) else None
