"""What passes of a model leave for good, as it cannot be put back: it is warned of."""

import warnings
from collections.abc import Mapping
from operator import is_

from torch import Tensor, nn

from pnpx.attributors.copied import LARGEST, Copied
from pnpx.attributors.found import Found

_REMEDY = (
    "the attributions may depend on how many passes there were, and it stays changed; turn that off in the model, or "
    "explain a copy of it"
)


class Lasting:
    """The weights and modules of a model as they are when this is made, beside what was ``found``."""

    def __init__(self, model: nn.Module, found: Found) -> None:
        self._model, self._found = model, found
        self._weights = [(module, dict(module._parameters)) for module in found.modules if module._parameters]
        self._versions = [_versions(weights) for _, weights in self._weights]
        self._made: list[tuple[str, nn.Module, dict[str, Tensor], list[int | None]]] = []

    def warn(self, written: list[Copied]) -> None:
        """Say what a pass has left for good, which has also ``written`` to tensors that were found."""
        if large := [name for copied in written if copied.copy is None for name in self._found.names_of(copied)]:
            size = f"which takes over {LARGEST >> 20} MiB, and so is not put back"
            _warn(f"the model changes {_listed(large)} in place, {size}: {_REMEDY}")
        if weights := self._changed_weights():
            _warn(f"the model changes its weights {_listed(weights)} in a forward pass in eval mode: {_REMEDY}")
        if self._found.grew:
            known = {id(module) for module in self._found.modules}
            made = [(path, module) for path, module in self._model.named_modules() if id(module) not in known]
            self._made = [(path, module, held := _tensors_of(module), _versions(held)) for path, module in made]

    def warn_of_made(self) -> None:
        """Say at the end in which modules that the first pass has made later ones have changed tensors."""
        changed = []
        for path, module, before, versions in self._made:
            now = _tensors_of(module)
            same = now.keys() == before.keys() and all(map(is_, now.values(), before.values()))
            if not same or _versions(now) != versions:
                changed.append(path)
        if changed:
            _warn(
                f"the first call of the model makes {_listed(changed)}, where it keeps tensors that it changes: the "
                "attributions may depend on how many passes there were; run the model once before it is explained"
            )

    def _changed_weights(self) -> list[str]:
        changed: list[tuple[nn.Module, str, Tensor]] = []
        for (module, weights), versions in zip(self._weights, self._versions, strict=True):
            if all(map(is_, weights.values(), module._parameters.values())) and _versions(weights) == versions:
                continue
            for (name, weight), version in zip(weights.items(), versions, strict=True):
                if weight is None or weight.is_meta:  # what has no data is loaded for each pass
                    continue
                if module._parameters.get(name) is not weight or weight._version != version:
                    changed.append((module, name, weight))
        if not changed:
            return []
        # Embeddings with a largest norm rescale rows of theirs, which are put back.
        rescaled = {id(getattr(module, "weight", None)) for module in self._found.modules if rescales(module)}
        paths = {id(module): path for path, module in self._model.named_modules()}
        names = [(paths[id(module)], name) for module, name, weight in changed if id(weight) not in rescaled]
        return [f"{path}.{name}" if path else name for path, name in names]


def rescales(module: nn.Module) -> bool:
    """Whether a module is an embedding with a largest norm, whose forward rescales the rows that it looks up."""
    # Modules are slow to say that they have no such attribute, and there are hundreds of them.
    held = "max_norm" in module.__dict__ or hasattr(type(module), "max_norm")
    return held and getattr(module, "max_norm", None) is not None


def _tensors_of(module: nn.Module) -> dict[str, Tensor]:
    """What a module keeps in attributes and buffers."""
    return {name: value for name, value in {**module.__dict__, **module._buffers}.items() if isinstance(value, Tensor)}


def _versions(tensors: Mapping[str, Tensor | None]) -> list[int | None]:
    return [None if tensor is None or tensor.is_inference() else tensor._version for tensor in tensors.values()]


def _listed(names: list[str]) -> str:
    return " and ".join(map(repr, names))


def _warn(message: str) -> None:
    warnings.warn(message, RuntimeWarning, stacklevel=2)
