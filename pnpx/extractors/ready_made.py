"""The extractors that a user may give: positions, keys, several of them, callables, and those made ready here."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from pnpx.structure import is_container, items
from pnpx.suggest import nearest


@dataclass(frozen=True)
class Item:
    """Takes one part of a batch: by position of a tuple or list, by key of a mapping, by name of an attribute.

    >>> Item(1)(("first", "second"))
    'second'
    >>> Item("ids")({"ids": 7, "mask": 1})
    7
    """

    key: int | str

    def __call__(self, batch: Any) -> Any:
        return part_of(batch, self.key)


@dataclass(frozen=True)
class Items:
    """Takes several parts of a batch, as a tuple.

    >>> Items((0, 2))("abc".split() + ["b", "c"])
    ('abc', 'c')
    """

    keys: tuple[int | str, ...]

    def __call__(self, batch: Any) -> tuple[Any, ...]:
        return tuple(Item(key)(batch) for key in self.keys)


@dataclass(frozen=True)
class Keywords:
    """Takes parts of a batch under the names of the forward arguments that they are for.

    >>> Keywords({"input_ids": "ids", "attention_mask": 1})
    Keywords({'input_ids': 'ids', 'attention_mask': 1})
    >>> Keywords({"x": 0})((5, 6))
    {'x': 5}
    """

    parts: Mapping[str, int | str]

    def __call__(self, batch: Any) -> dict[str, Any]:
        return {name: Item(key)(batch) for name, key in self.parts.items()}

    def __repr__(self) -> str:
        return f"Keywords({dict(self.parts)!r})"


@dataclass(frozen=True)
class Shared:
    """Marks that what ``extractor`` takes has no axis of the batch: all samples share it, whole.

    What goes along and has the batch's size as its first axis is else taken to hold a value for each sample: so are
    class weights where there happen to be as many classes as samples, a causal mask where sequences are as long as the
    batch is large, or a (height, width) beside two samples.

    >>> Shared("weights")({"x": 1, "weights": 2})
    2
    """

    extractor: "Extractor"

    def __call__(self, batch: Any) -> Any:
        inner = self.extractor
        if isinstance(inner, (int, str)):
            return part_of(batch, inner)
        return inner(batch) if callable(inner) else tuple(Shared(part)(batch) for part in inner or ())


Extractor: TypeAlias = int | str | Sequence[Any] | Callable[[Any], Any] | None
"""What `Explainer` accepts as extractor: a position, a key, several of them, or any callable on the batch."""


def part_of(whole: Any, key: int | str, what: str = "batch") -> Any:
    """The part ``key`` of a tuple, list, mapping or object; ``what`` it is, for errors.

    Raises:
        LookupError: there is no such part.
        TypeError: ``whole`` has no parts by number.
    """
    if isinstance(whole, Mapping):
        if key in whole:
            return whole[key]
        raise LookupError(f"the {what} has no part {key!r}; {nearest(str(key), whole)}")
    if isinstance(key, str):
        try:
            if type(whole) in (tuple, list):  # they have methods, such as count, but no parts with names
                raise AttributeError(key)
            return getattr(whole, key)
        except AttributeError:
            known = [str(name) for name, _ in items(whole)] if is_container(whole) else []
            hint = nearest(key, getattr(whole, "_fields", known))
            raise LookupError(f"a {type(whole).__name__} as {what} has no part {key!r}; {hint}") from None
    if not isinstance(whole, (tuple, list)):
        raise TypeError(
            f"an int as extractor takes a part of a tuple or list, but the {what} is a {type(whole).__name__}; "
            f"leave the extractor out to pass the {what} itself, or give a callable"
        )
    try:
        return whole[key]
    except IndexError:
        raise LookupError(f"the {what} has {len(whole)} parts, counted from 0: there is no part {key}") from None


def named_by(extractor: Extractor, shared: bool = False) -> set[int | str]:
    """The positions and keys that ``extractor`` names, as far as it does; with ``shared`` those of `Shared` alone."""
    if isinstance(extractor, Shared):
        return named_by(extractor.extractor)
    if isinstance(extractor, (str, int, Item, Items, Keywords)):
        if shared:
            return set()
        if isinstance(extractor, Item):
            return {extractor.key}
        if isinstance(extractor, Items):
            return set(extractor.keys)
        return set(extractor.parts.values()) if isinstance(extractor, Keywords) else {extractor}
    if isinstance(extractor, Sequence):
        return {key for part in extractor for key in named_by(part, shared)}
    return set()
