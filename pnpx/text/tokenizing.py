"""Calls of a tokenizer, which leave it as it was."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeAlias

Tokens: TypeAlias = tuple[dict[str, Any], Any]
"""What a tokenizer gives for one text: a list of numbers, one a token, by name; and its encoding, if it is fast."""


@contextmanager
def tokenizer_as_found(tokenizer: Any) -> Iterator[None]:
    """Gives a fast tokenizer the truncation and padding back that it had.

    A call of a tokenizer of transformers sets both in what it is made of, ``backend_tokenizer``, for as long as nobody
    sets them again: they would be saved with it, and whoever set them would have lost them.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    truncation, padding = getattr(backend, "truncation", None), getattr(backend, "padding", None)
    try:
        yield
    finally:
        # Only what has changed is set: setting fails while another thread has the tokenizer at work.
        if backend is not None and getattr(backend, "truncation", None) != truncation:
            backend.no_truncation() if truncation is None else backend.enable_truncation(**truncation)
        if backend is not None and getattr(backend, "padding", None) != padding:
            backend.no_padding() if padding is None else backend.enable_padding(**padding)


def tokens_of(tokenizer: Any, texts: tuple[Any, ...], **options: Any) -> Tokens:
    """The tokens of a text or a pair, each a str or a list of words."""
    with tokenizer_as_found(tokenizer):
        batch = tokenizer(*texts, is_split_into_words=isinstance(texts[0], list), **options)
    return dict(batch), (getattr(batch, "encodings", None) or [None])[0]


def tokens_of_all(tokenizer: Any, several: Sequence[Any]) -> list[Tokens | None]:
    """The tokens of plain texts, made in one go, which is faster; None where texts are given in several forms."""
    if len(several) < 2 or not all(isinstance(one, str) and one.strip() for one in several):
        return [None] * len(several)
    with tokenizer_as_found(tokenizer):
        batch = tokenizer(list(several), verbose=False)
    encodings = getattr(batch, "encodings", None) or [None] * len(several)
    return [
        ({name: values[row] for name, values in batch.items() if len(values) == len(several)}, encodings[row])
        for row in range(len(several))
    ]


def bare_ids(tokenizer: Any, text: str) -> list[int]:
    """The token ids of a text, and none that the tokenizer would put around it."""
    with tokenizer_as_found(tokenizer):
        return list(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])
