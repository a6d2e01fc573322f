"""The tree of nodes that YAML sees in a text: where each stands, and which have no place in a configuration."""

from collections.abc import Iterator
from typing import Any, TypeAlias

KeyPath: TypeAlias = tuple[str | int, ...]
"""The way to a value: ``("explainers", 0, "n_iter")``."""

_MOST_REPEATED = 10_000
"""How many values the aliases of a file may stand for."""

_TAGS = frozenset(["str", "int", "float", "bool", "null", "map", "seq"])
_DIGITS = 4300  # more, Python does not read


def composed(text: str) -> Any:
    """The tree of nodes that YAML sees in ``text``; a date is text, as it is to OmegaConf."""
    from yaml import SafeLoader, compose

    resolvers = {
        first: [(tag, pattern) for tag, pattern in known if not tag.endswith(":timestamp")]
        for first, known in SafeLoader.yaml_implicit_resolvers.items()
    }
    loader = type("Loader", (SafeLoader,), {"yaml_implicit_resolvers": resolvers})
    return compose(text, Loader=loader)  # type: ignore[no-untyped-call, unused-ignore]


def refused_below(root: Any) -> list[tuple[int | None, str]]:
    """What below ``root`` has no place in a configuration: lines, from 1, where they are known, and words for it."""
    if root is None:
        return []
    if (line := _endless(root, [], set())) is not None:
        return [(line, "an alias (*name) stands inside of what it names; write out what is meant")]
    if (added := _size(root, {}) - _size(root, None)) > _MOST_REPEATED:
        # Aliases of aliases are a few lines to write, and more than any memory holds to read.
        said = f"its aliases (*name) repeat {added} values, more than {_MOST_REPEATED}; write out what is meant"
        return [(None, said)]
    return [(node.start_mark.line + 1, said) for node, said in _odd(root)]


def _endless(node: Any, above: list[int], done: set[int]) -> int | None:
    """The line, from 1, at which something below ``node`` begins that holds itself, by an alias; None if none does."""
    if id(node) in above:
        return int(node.start_mark.line) + 1
    if node.id == "scalar" or id(node) in done:
        return None
    done.add(id(node))
    parts = [part for pair in node.value for part in pair] if node.id == "mapping" else node.value
    lines = (_endless(part, [*above, id(node)], done) for part in parts)
    return next((line for line in lines if line is not None), None)


def _size(node: Any, known: dict[int, int] | None, seen: set[int] | None = None) -> int:
    """How many values there are below ``node``, and it: those of an alias each time, as ``known``; without it, once."""
    seen = set() if seen is None else seen
    if known is not None and id(node) in known:
        return known[id(node)]
    if id(node) in seen:  # an alias that is not to count
        return 0
    seen.add(id(node))
    parts = [part for pair in node.value for part in pair] if node.id == "mapping" else node.value
    size = 1 + (0 if node.id == "scalar" else sum(_size(part, known, seen) for part in parts))
    if known is not None:
        known[id(node)] = size
    return size


def _odd(node: Any) -> Iterator[tuple[Any, str]]:
    """What below ``node``, in a tree without ends in itself, is YAML, but nothing in a configuration; words for it."""
    kind = node.tag.removeprefix("tag:yaml.org,2002:")
    if kind not in _TAGS:
        yield node, f"a value of the kind {node.tag!r} has no place here; write text, numbers, lists and mappings"
    elif kind == "int" and len(node.value) > _DIGITS:
        yield node, f"a number has {len(node.value)} digits; {_DIGITS} are the most"
    elif node.id == "scalar" and kind in ("bool", "int", "float") and not _readable(node):
        yield node, (
            f"{node.value!r:.40} is to be read as {kind}, but is none; write another value, or text in quotes and "
            "without a tag"
        )
    elif node.id == "mapping":
        for key, value in node.value:
            if key.id != "scalar" or key.tag.removeprefix("tag:yaml.org,2002:") not in ("str", "merge"):
                yield key, f"a key must be text, but is {key.value if key.id == 'scalar' else key.id!r:.40}; quote it"
            yield from _odd(value)
    elif node.id == "sequence":
        for part in node.value:
            yield from _odd(part)


def _readable(node: Any) -> bool:
    """Whether a number or bool, which may be one by its tag alone, is one."""
    from yaml.constructor import SafeConstructor

    try:
        SafeConstructor().construct_object(node)
    except (AttributeError, LookupError, ValueError):
        return False
    return True


def numbered(root: Any) -> dict[KeyPath, int]:
    """The line, from 1, of everything below ``root``, under its key path."""
    lines: dict[KeyPath, int] = {}
    _number(root, (), lines)
    return lines


def _number(node: Any, keys: KeyPath, lines: dict[KeyPath, int]) -> None:
    """Note the line, from 1, of everything below ``node`` under its key path."""
    if node.id == "mapping":
        for key, value in node.value:
            name = (*keys, key.value)
            _number(value, name, lines)
            lines[name] = key.start_mark.line + 1
    elif node.id == "sequence":
        for index, value in enumerate(node.value):
            name = (*keys, index)
            _number(value, name, lines)
            lines[name] = value.start_mark.line + 1
