"""The record of an explanation: what was explained, how, and the attributions; saved to one file and loaded again."""

import base64
import html
import io
import json
import operator
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from pnpx.atomic import refuse_folder, write_whole
from pnpx.packing import Packer, unpack
from pnpx.structure import Structure, mirror, tensors

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORMAT, VERSION = "pnpx.explanation", 1


@dataclass(frozen=True, eq=False, repr=False)
class Explanation:
    """A batch of explanations. Its length is the batch size; ``explanation[i]`` and iterating give batches of one.

    Attributes:
        attributions: a structure like `explained`, each tensor of the shape explained, unless pooled; with several
            targets a sample there is a target axis right after the batch axis: (batch, targets, ...).
        explained: the clean value at the place explained: the inputs, or what a layer takes or gives.
        inputs: the arguments extracted for the model, such as images (batch, channels, height, width).
        targets: (batch,) or (batch, targets) integers, or floats that weight the output; None if there were none.
            Where outputs have more axes, (batch, axes): an index for each; then `indices` is True.
        prediction: (batch,) the predicted classes; None where the output is no classification.
        probability: (batch,) the probability of `prediction`; None likewise.
        output: (batch, ...) what the model gave, detached.
        explainer: its "name", its "layer" and its other parameters, as JSON knows them.
        seconds: how long the explaining took.
        batch_axes: the batch axis of each tensor of `explained`, depth first.
        diagnostics: further tensors, (batch,) or (batch, targets) each, by name.
        kind: "image", "series", "tabular" or "tokens"; None lets a plot guess it from the shapes.
        class_names: a name for each class: a sequence, or a mapping from numbers.
        feature_names: a name for each input feature.
        tokens: the tokens of each sample, or of all samples if one list of strings is given.
        indices: whether `targets` are indices, one for each axis of the output, of one target a sample.
    """

    attributions: Structure
    explained: Structure
    inputs: Structure
    targets: Tensor | None
    prediction: Tensor | None
    probability: Tensor | None
    output: Tensor | None
    explainer: Mapping[str, Any]
    seconds: float
    batch_axes: tuple[int, ...] = (0,)
    diagnostics: Mapping[str, Tensor] = field(default_factory=dict)
    kind: str | None = None
    class_names: Sequence[str] | Mapping[int, str] | None = None
    feature_names: Sequence[str] | None = None
    tokens: Sequence[str] | Sequence[Sequence[str]] | None = None
    indices: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "batch_axes", tuple(self.batch_axes))
        n_tensors = len(tensors(self.explained))
        if len(self.batch_axes) != n_tensors:
            raise ValueError(
                f"batch_axes must hold one axis for each of the {n_tensors} tensors explained, "
                f"but got {self.batch_axes!r}"
            )

    def __len__(self) -> int:
        # A tensor that the whole batch shares, such as a position embedding, has size 1 there.
        return max((leaf.shape[axis] for axis, leaf in self._axes() if leaf.ndim > axis), default=0)

    def __getitem__(self, index: int) -> "Explanation":
        size, position = len(self), operator.index(index)
        if not -size <= position < size:
            raise IndexError(f"sample {position} is out of range: the explanation holds {size}")

        def take(structure: Structure, axes: Sequence[int]) -> Any:
            leaves = zip(tensors(structure), axes, strict=True)
            return mirror(structure, [_sample(leaf, axis, position, size) for leaf, axis in leaves])

        return replace(
            self,
            attributions=take(self.attributions, self.batch_axes),
            explained=take(self.explained, self.batch_axes),
            inputs=take(self.inputs, self._input_axes(size)),
            **{
                name: take(getattr(self, name), [0] * len(tensors(getattr(self, name))))
                for name in ("targets", "prediction", "probability", "output", "diagnostics")
            },
            tokens=[self.tokens[position]] if self.tokens and self._tokens_by_sample() else self.tokens,
        )

    def __iter__(self) -> Iterator["Explanation"]:
        return (self[index] for index in range(len(self)))

    def __repr__(self) -> str:
        shapes = ", ".join(str(tuple(leaf.shape)) for leaf in tensors(self.attributions))
        return f"Explanation({self.title()}, batch={len(self)}, attributions={shapes}, seconds={self.seconds:.3g})"

    def title(self) -> str:
        """The explainer and the place, in words: "SmoothGrad at conv2"."""
        name, layer = str(self.explainer.get("name", "Explanation")), self.explainer.get("layer")
        if layer is None:
            return name
        return f"{name} at {', '.join(map(str, layer)) if isinstance(layer, (tuple, list)) else layer}"

    def label(self, index: int) -> str:
        """The name of class ``index``, or its number where it has no name."""
        names = self.class_names
        if isinstance(names, Mapping):
            return str(names.get(index, index))
        return str(names[index]) if names is not None and 0 <= index < len(names) else str(index)

    def n_targets(self) -> int | None:
        """How many targets each sample has: the size of the target axis, or None if there is no such axis."""
        if self.targets is None or self.targets.ndim != 2 or self.targets.is_floating_point() or self.indices:
            return None
        return self.targets.shape[1]

    def words(self, sample: int = 0) -> list[str] | None:
        """The tokens of one sample, or None where there are none."""
        if self.tokens is None:
            return None
        return [str(token) for token in (self.tokens[sample] if self._tokens_by_sample() else self.tokens)]

    def plot(self, sample: int = 0, **options: Any) -> "Figure":
        """A figure of one sample; the options are those of `pnpx.plots.plot`."""
        from pnpx.plots import plot

        return plot(self, sample, **options)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write everything to one safetensors file, whole or not at all; see `load`.

        Named tuples become tuples, mappings dicts. Tensors that are the same one are written once. Of what else than
        tensors ``attributions``, ``explained`` and ``inputs`` hold, such as numbers, text and caches, nothing is kept:
        None is in its place.

        Raises:
            OSError: ``path`` cannot be written: its folder does not exist, say, or it is no file, but a folder.
            TypeError: there is something in it that JSON or safetensors cannot say, such as a parameter of the
                explainer, or a tensor that is sparse, or of complex128.
            ValueError: a part of it is not of its kind, so that it could not be loaded again.
        """
        from safetensors.torch import save

        packer, values = Packer(), {item.name: getattr(self, item.name) for item in fields(self)}
        for name in ("attributions", "explained", "inputs"):
            values[name] = mirror(values[name], tensors(values[name]))
        record = {name: packer.pack(value, name) for name, value in values.items()}
        try:
            self._unpacked(record, packer.leaves)
        except ValueError as error:
            raise ValueError(f"to be saved, an explanation must be whole, but {error}") from None
        metadata = {"format": FORMAT, "version": str(VERSION), "record": json.dumps(record, allow_nan=False)}
        try:
            content = save(packer.leaves, metadata)
        except KeyError as error:
            said = f"to be saved, no tensor may be of {error.args[0]}, for which safetensors has no name"
            raise TypeError(said) from None
        write_whole(path, content)

    @classmethod
    def load(cls, path: str | os.PathLike[str], device: str | torch.device = "cpu") -> "Explanation":
        """The explanation saved at ``path``, equal to the saved one in values, dtypes and structure, as far as `save`
        keeps it.

        Raises:
            OSError: there is no file to read: none at all, say, or a folder.
            ValueError: the file is no explanation, is damaged, or was written by a later version of pnpx.
        """
        from safetensors import SafetensorError, safe_open

        refuse_folder(path)
        try:
            with safe_open(str(path), framework="pt", device=str(device)) as file:
                metadata = file.metadata() or {}
                leaves = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (the file is no mapping)
        except (SafetensorError, KeyError, TypeError, ValueError, AttributeError) as error:
            raise ValueError(f"{os.fspath(path)!r} is no safetensors file, or a damaged one: {error}") from error
        if metadata.get("format") != FORMAT:
            raise ValueError(
                f"{os.fspath(path)!r} holds no explanation, but tensors saved by something else than "
                "Explanation.save; read them with safetensors.torch.load_file"
            )
        if metadata.get("version") != str(VERSION):
            raise ValueError(
                f"{os.fspath(path)!r} is of format version {metadata.get('version')}, and this pnpx reads "
                f"version {VERSION}; load it with the pnpx that saved it, or a later one"
            )
        try:
            found = cls._unpacked(json.loads(metadata["record"]), leaves)
        except (LookupError, TypeError, ValueError, AttributeError, RecursionError) as error:
            said = error if isinstance(error, ValueError) else repr(error)
            raise ValueError(f"{os.fspath(path)!r} is a damaged explanation: {said}") from error
        return found

    @classmethod
    def _unpacked(cls, record: Mapping[str, Any], leaves: Mapping[str, Tensor]) -> "Explanation":
        """What `Packer.pack` made a ``record`` of; errors as those of `_require_sound`."""
        found = cls(**{name: unpack(item, leaves) for name, item in record.items()})
        found._require_sound()
        return found

    def _repr_html_(self) -> str:
        size, png = len(self), io.BytesIO()
        if size == 0:
            return f"<p>{html.escape(self.title())} (no samples)</p>"
        self.plot().savefig(png, format="png")
        text = html.escape(f"{self.title()}: sample 1 of {size}, {self.seconds:.3g} s in all")
        data = base64.b64encode(png.getvalue()).decode()
        return (
            f'<figure style="margin:0"><img src="data:image/png;base64,{data}" alt="{text}" style="max-width:100%">'
            f"<figcaption>{text}</figcaption></figure>"
        )

    def _require_sound(self) -> None:
        """Require that every part is of its kind, and of as many samples as the others.

        What was read from a file may be anything, and would else show later, and anywhere.

        Raises:
            ValueError: one is not.
        """
        wrong = [name for name, is_right in _KINDS.items() if not is_right(getattr(self, name))]
        if wrong:
            raise ValueError(f"its {wrong[0]!r} is no such thing, but {getattr(self, wrong[0])!r:.60}")
        if len(tensors(self.attributions)) != len(tensors(self.explained)):
            raise ValueError("it does not have an attribution for each tensor explained")
        if any(not 0 <= axis < max(leaf.ndim, 1) for axis, leaf in self._axes()):
            raise ValueError(f"its tensors do not have the axes {self.batch_axes!r}")
        by_sample = {"prediction": self.prediction, "probability": self.probability, **self.diagnostics}
        for name, leaf in by_sample.items():
            if leaf is not None and (leaf.ndim == 0 or len(leaf) != len(self)):
                raise ValueError(f"its {name!r} has shape {tuple(leaf.shape)}, but there are {len(self)} samples")

    def _axes(self) -> list[tuple[int, Tensor]]:
        return [*zip(self.batch_axes, tensors(self.explained), strict=True)]

    def _tokens_by_sample(self) -> bool:
        return self.tokens is not None and len(self.tokens) > 0 and not isinstance(self.tokens[0], str)

    def _input_axes(self, size: int) -> list[int]:
        """The batch axis of each input: as explained where the inputs are; else the first axis of the batch's size."""
        inputs, explained = tensors(self.inputs), tensors(self.explained)
        if [leaf.shape for leaf in inputs] == [leaf.shape for leaf in explained]:
            return list(self.batch_axes)
        return [next((axis for axis, length in enumerate(leaf.shape) if length == size), leaf.ndim) for leaf in inputs]


def _sample(leaf: Tensor, axis: int, position: int, size: int) -> Tensor:
    """One sample of ``leaf``, its batch axis kept; all of it where it has no batch axis, or one that samples share."""
    return leaf.narrow(axis, position, 1) if leaf.ndim > axis and leaf.shape[axis] == size else leaf


def _is_tensor(value: Any) -> bool:
    return value is None or isinstance(value, Tensor)


def _are_words(value: Any) -> bool:
    return value is None or (isinstance(value, (list, tuple)) and all(isinstance(one, (str, int)) for one in value))


def _are_class_names(value: Any) -> bool:
    if isinstance(value, Mapping):
        return all(type(number) is int and isinstance(name, (str, int)) for number, name in value.items())
    return _are_words(value)


_KINDS: dict[str, Callable[[Any], bool]] = {
    "targets": _is_tensor,
    "prediction": _is_tensor,
    "probability": _is_tensor,
    "output": _is_tensor,
    "explainer": lambda value: isinstance(value, Mapping) and all(isinstance(key, str) for key in value),
    "seconds": lambda value: isinstance(value, (int, float)),
    "batch_axes": lambda value: isinstance(value, tuple) and all(type(axis) is int for axis in value),
    "diagnostics": lambda value: isinstance(value, Mapping) and all(isinstance(one, Tensor) for one in value.values()),
    "kind": lambda value: value is None or isinstance(value, str),
    "class_names": _are_class_names,
    "feature_names": _are_words,
    "indices": lambda value: isinstance(value, bool),
    "tokens": lambda value: _are_words(value) or (isinstance(value, (list, tuple)) and all(map(_are_words, value))),
}
"""Whether a value can be the part of an explanation of that name."""
