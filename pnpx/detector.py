"""Which kinds of layers a model is made of."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import nn

from pnpx.attributors.wrapping import unwrapped
from pnpx.kinds import KINDS, kinds_of
from pnpx.suggest import nearest

_SHOWN = ("convolution", "lstm", "gru", "rnn", "attention", "embedding", "linear", "batch norm", "layer norm",
          "normalisation")
"""The kinds that tell what a model is; nearly every one has activations, dropout or pooling."""
_ABBREVIATIONS = {"lstm": "LSTM", "gru": "GRU", "rnn": "RNN", "normalisation": "other norm"}


@dataclass(frozen=True)
class Traits:
    """What a model is made of.

    >>> traits = detect(nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4, 2)))
    >>> print(traits)
    convolution x1, linear x1, batch norm x1
    >>> "gru" in traits, "normalisation" in traits
    (False, True)
    >>> traits.modules["linear"]
    ('4',)

    Args:
        modules: the dotted paths of the modules of each kind, in the order of the model; "" is the model itself. Only
            kinds that there are; see `pnpx.kinds.KINDS` for all.
        series_channels: how many channels each one-dimensional convolution takes, of (batch, channels, steps).
    """

    modules: Mapping[str, tuple[str, ...]]
    series_channels: tuple[int, ...] = ()

    def __contains__(self, kind: str) -> bool:
        """Whether there is a module of that kind.

        Raises:
            LookupError: there is no such kind.
        """
        if kind not in KINDS:
            raise LookupError(f"there is no kind of layer {kind!r}; {nearest(str(kind), KINDS)}")
        return kind in self.modules

    def __str__(self) -> str:
        """One line for a report: the layers that tell what the model is, and how many there are of each."""
        counts = {kind: len(self.modules.get(kind, ())) for kind in _SHOWN}
        counts["normalisation"] -= counts["batch norm"] + counts["layer norm"]  # which are shown by themselves
        shown = [f"{_ABBREVIATIONS.get(kind, kind)} x{count}" for kind, count in counts.items() if count]
        return ", ".join(shown) or "no layers of a known kind"


def detect(model: nn.Module) -> Traits:
    """The kinds of layers in ``model``. Nothing is run.

    Subclasses of PyTorch's layers count as these. So does attention that other packages, or users, write themselves: a
    class whose name says so, with parts that make queries, keys or values. Of attention inside of attention the inner
    one counts. A module that is used in several places counts once.

    Raises:
        TypeError: it is no module.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"the model must be a torch.nn.Module, but is a {type(model).__name__}")
    found: dict[str, list[str]] = {}
    channels: list[int] = []
    for path, module in unwrapped(model).named_modules():
        for kind in kinds_of(module):
            found.setdefault(kind, []).append(path)
        if isinstance(module, (nn.Conv1d, nn.ConvTranspose1d)):
            channels.append(module.in_channels)
    if "attention" in found:
        found["attention"] = [one for one in found["attention"] if not _holds_another(one, found["attention"])]
    return Traits({kind: tuple(found[kind]) for kind in KINDS if kind in found}, tuple(channels))


def _holds_another(path: str, paths: list[str]) -> bool:
    inside = f"{path}." if path else ""
    return any(other != path and other.startswith(inside) for other in paths)
