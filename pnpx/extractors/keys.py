"""Where the parts of a batch go whose keys are no forward arguments of the model."""

from collections.abc import Collection, Sequence

from pnpx.extractors.signature import Signature


class Unknown(str):
    """A key of a batch that is no forward argument of the model."""


def placed_keys(
    signature: Signature, names: Sequence[str | None], extra_names: Sequence[str | None], rest: Collection[str]
) -> tuple[tuple[str | None, ...], tuple[str | None, ...]]:
    """The keywords of what is explained and of what goes along, where each `Unknown` key has found its place.

    Such a key means the next argument, by position. But to a model that takes any keyword it is one, where no argument
    is left, be it for being named as well. To a model that takes nothing by position, what has no name is the argument
    that it requires, or else its first.

    Raises:
        TypeError: what goes along may be either, or may be several arguments.
    """
    if not signature.open_ended or not signature.positional:
        known, extra = tuple(map(_known, names)), tuple(map(_known, extra_names))
        if signature.positional or signature.positional_open_ended or None not in (*known, *extra):
            return known, extra
        only = _only_argument(signature, known, extra, rest)
        return tuple(name or only for name in known), tuple(name or only for name in extra)
    by_name = {name for name in (*names, *extra_names, *rest) if _known(name) is not None}
    by_position = sum(name is None for name in (*names, *extra_names))
    found: list[str | None] = []
    for name in names:
        slot = signature.positional[by_position : by_position + 1]
        if isinstance(name, Unknown) and slot and slot[0] not in by_name:
            found.append(None)
            by_position += 1
        else:
            found.append(name)
    unknown = [name for name in extra_names if isinstance(name, Unknown)]
    free = [name for name in signature.positional[by_position:] if name not in by_name]
    if unknown and free:
        raise TypeError(
            f"the model's forward has no argument {str(unknown[0])!r}, but takes any keyword, and {free[0]!r} as well; "
            f"say which it is: additional_forward_arg_extractor=Keywords({{argument: {str(unknown[0])!r}}})"
        )
    return tuple(map(_as_text, found)), tuple(map(_as_text, extra_names))


def _only_argument(
    signature: Signature, names: Sequence[str | None], extra_names: Sequence[str | None], rest: Collection[str]
) -> str:
    """The argument by keyword for the only value without a name.

    Raises:
        TypeError: there are several such values, or there is no argument for it.
    """
    taken = (*names, *extra_names, *rest)
    free = [name for name in signature.names if name not in taken and not signature.is_label(name)]
    wanted = [name for name in free if name in signature.required] or free
    if taken.count(None) == 1 and wanted:
        return wanted[0]
    known = ", ".join([*signature.names, *["**"] * signature.open_ended])
    raise TypeError(
        f"{signature.called} takes its arguments by keyword alone ({known}), but got {taken.count(None)} without; give "
        "them by extractors that return a mapping: forward_arg_extractor=lambda batch: {argument: part}"
    )


def _known(name: str | None) -> str | None:
    return None if isinstance(name, Unknown) else name


def _as_text(name: str | None) -> str | None:
    return None if name is None else str(name)
