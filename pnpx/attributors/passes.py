"""Forward passes that see the calls of a model's modules: what `Recording` and `Replay` share."""

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from typing import Any

from torch import Tensor, nn

from pnpx.attributors.places import ModulePlace
from pnpx.structure import Repeats, Rows


class Pass:
    """What recording and replaying share: counting calls, and noting the output of ``tap``, an output layer."""

    def __init__(self, places: Sequence[ModulePlace], tap: ModulePlace | None) -> None:
        self.places, self.tap = places, tap
        self.counts: Counter[int] = Counter()
        self.tapped: Any = None

    def here(self, module: nn.Module, side: str) -> Iterator[int]:
        """The places, by number, at this side of the current call of ``module``."""
        for number, place in enumerate(self.places):
            if place.module is module and place.side == side and self.counts[id(module)] == (place.call or 1):
                yield number

    def note_tap(self, module: nn.Module, output: Any) -> None:
        if self.tap is not None and self.tap.module is module and self.counts[id(module)] == (self.tap.call or 1):
            self.tapped = output


def enclosing(model: nn.Module, places: Sequence[ModulePlace]) -> set[int]:
    """The ids of the modules that contain a place, the model among them."""
    modules = dict(model.named_modules(remove_duplicate=False))
    found = {id(model)}
    for path, module in modules.items():
        if any(place.module is module for place in places):
            while path:
                path = path.rpartition(".")[0]
                found.add(id(modules[path]))
    return found


def concerned(
    model: nn.Module, around: Collection[int], places: Sequence[ModulePlace], tap: ModulePlace | None
) -> list[nn.Module]:
    """The modules whose calls the passes must see: those ``around`` the places, and what runs directly under them."""
    found = {id(place.module): place.module for place in [*places, *([tap] if tap else [])]}
    waiting = [module for module in model.modules() if id(module) in around]
    while waiting:
        module = waiting.pop()
        found[id(module)] = module
        for child in module.children():
            if id(child) not in found:
                found[id(child)] = child
                # Lists of modules do not run themselves.
                if isinstance(child, (nn.ModuleList, nn.ModuleDict)):
                    waiting.append(child)
    return list(found.values())


def repeat(tensor: Tensor, repeats: Repeats, axis: int | None) -> Tensor:
    """A fresh copy of ``tensor``, so many times over along ``axis``, or some samples of it; once where it has none."""
    if axis is None or repeats == 1:
        return tensor.clone()
    if isinstance(repeats, Rows):
        return tensor.index_select(axis, repeats.places(tensor.shape[axis]).to(tensor.device))
    return tensor.repeat(*[repeats if index == axis else 1 for index in range(tensor.ndim)])
