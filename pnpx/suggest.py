"""What was probably meant by a name that does not exist: the second half of an error that teaches."""

from collections.abc import Iterable
from difflib import SequenceMatcher, get_close_matches

_SHOWN = 6


def nearest(word: str, candidates: Iterable[object]) -> str:
    """The hint for an error message: the name nearest to ``word``, whatever the case, or else what there is.

    >>> nearest("noise_levle", ["n_iter", "noise_level"])
    "the nearest: 'noise_level'"
    >>> nearest("x", ["conv1", "conv2"])
    "there are: 'conv1', 'conv2'"
    >>> nearest("x", [])
    'there are none'
    """
    names = [str(candidate) for candidate in candidates]
    # A module is often named by its last part alone, or the other way round, which the plain ratio does not see.
    ending = [name for name in names if word and (name.endswith(f".{word}") or word.endswith(f".{name}"))]
    close = _close(word, names, 0.6) or ending[:1]
    if not close:
        last = {name.rpartition(".")[2]: name for name in reversed(names)}
        close = [last[match] for match in _close(word.rpartition(".")[2], last, 0.55)]
    if close:
        return f"the nearest: {close[0]!r}"
    if not names:
        return "there are none"
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return "there are: " + ", ".join(repr(name) for name in names[:_SHOWN]) + more


def _close(word: str, names: Iterable[str], cutoff: float) -> list[str]:
    """The name nearest to ``word``, whatever the case; of those that differ by case alone, the nearest as written."""
    by_fold: dict[str, list[str]] = {}
    for name in names:
        by_fold.setdefault(name.casefold(), []).append(name)
    found = get_close_matches(word.casefold(), by_fold, n=1, cutoff=cutoff)
    return [max(by_fold[match], key=lambda name: SequenceMatcher(None, name, word).ratio()) for match in found]
