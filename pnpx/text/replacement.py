"""What takes the place of a unit of a text that is taken away: a token, zeros for its embedding, or nothing."""

from typing import Any, Literal, TypeAlias

from pnpx.suggest import nearest

TOKENS = ("mask", "pad", "unk", "eos")
"""Tokens that a tokenizer may have, by what they are for, in the order in which they stand for what is absent."""

Replacement: TypeAlias = "str | int | None"
"""A name of `TOKENS`, "zero" (of the embedding), "delete", a token or its id; None: the first of `TOKENS` that there
is, or else "zero"."""

Absent: TypeAlias = "int | Literal['zero', 'delete']"


def absent(tokenizer: Any, replacement: Replacement, vocabulary: int | None = None) -> Absent:
    """The id of the token that replaces others, or "zero", or "delete".

    Args:
        tokenizer: of transformers.
        replacement: see `Replacement`.
        vocabulary: how many tokens the model knows, if it tells: a tokenizer may have more.

    Raises:
        ValueError: tokenizer or model has no such token.
        TypeError: ``replacement`` is nothing of this kind.
    """
    own = _own(tokenizer, vocabulary)
    if replacement is None:
        return next(iter(own.values()), "zero")
    if replacement == "zero" or replacement == "delete":
        return "zero" if replacement == "zero" else "delete"
    if isinstance(replacement, bool) or not isinstance(replacement, (str, int)):
        raise TypeError(f"replacement must be {_choices(own)}, a token or its id, but is {replacement!r}")
    if isinstance(replacement, int):
        if not 0 <= replacement < (vocabulary or replacement + 1):
            known = "" if vocabulary is None else f" to {vocabulary - 1}"
            raise ValueError(f"replacement must be a token id from 0{known}, but is {replacement}")
        return replacement
    if replacement in own:
        return own[replacement]
    if replacement in TOKENS:
        raise ValueError(
            f"this tokenizer has no {replacement} token that the model knows; choose replacement="
            f"{_choices(own)}, or another token of it"
        )
    known_tokens = tokenizer.get_vocab()
    if replacement in known_tokens and known_tokens[replacement] < (vocabulary or known_tokens[replacement] + 1):
        return int(known_tokens[replacement])
    raise ValueError(
        f"replacement must be {_choices(own)}, a token or its id, but is {replacement!r}; "
        f"{nearest(replacement, [*own, 'zero', 'delete'])}"
    )


def special_ids(tokenizer: Any) -> set[int]:
    """The tokens that stand for no part of a text: not those for what is unknown or masked, which do.

    Where one token is for what is unknown and for an end, too, as GPT-2's is, it stands for the end: no text is unknown
    to such a tokenizer.
    """
    unknown, mask, *ends = (getattr(tokenizer, f"{name}_token_id", None) for name in ("unk", "mask", "bos", "eos"))
    inside = {mask} if unknown in ends else {unknown, mask}
    return {int(token) for token in tokenizer.all_special_ids} - inside


def _own(tokenizer: Any, vocabulary: int | None) -> dict[str, int]:
    """The tokens of `TOKENS` that there are, by name."""
    found = {name: getattr(tokenizer, f"{name}_token_id", None) for name in TOKENS}
    return {
        name: int(token)
        for name, token in found.items()
        if token is not None and (vocabulary is None or token < vocabulary)
    }


def _choices(own: dict[str, int]) -> str:
    return ", ".join(repr(name) for name in [*own, "zero", "delete"])
