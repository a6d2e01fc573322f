"""What an explainer is: immutable parameters, and one way to attribute with them at any place of a model."""

import time
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import KW_ONLY, dataclass, field, fields
from typing import TYPE_CHECKING, Any, ClassVar, Literal, overload

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from pnpx.attributors import Attributor, Bound, attributor_for, left_as_found, unwrapped
from pnpx.attributors.places import Layer
from pnpx.explainers.channels import channel_axis_at
from pnpx.explainers.cutting import in_pieces
from pnpx.explainers.named import Named
from pnpx.explainers.pieces import Piece, pool_channels
from pnpx.explainers.record import record
from pnpx.explainers.room import DEFAULT_ROWS
from pnpx.extractors import Call, Extractor, extract
from pnpx.parameters import as_plain, plain_numbers, require_axis, require_count
from pnpx.registry import concrete
from pnpx.scores import Aim, InferenceMode, Objective, ScoreFunction, Targets, Task
from pnpx.structure import Structure

if TYPE_CHECKING:
    from pnpx.explanation import Explanation

Reducer = Literal["mean", "sum", "max", "min"]


@dataclass(frozen=True)
class Explainer(ABC, metaclass=Named):
    """Explains a model's scores by a number for each element of its inputs, or of what happens inside it.

    Constructing an explainer only stores its parameters: nothing is read from the model, and nothing run on it, before
    `attribute`. ``dataclasses.replace(explainer, n_iter=50)`` retunes one.

    Args:
        model: the model. It is left as it was found.
        layer: where to explain; None: at the inputs. A dotted module path, a module, the name of a forward argument,
            ``"path:input"``, ``"path:output"`` (the default side), ``"path#2"`` for the second call of a module, or a
            sequence of them. The places of a sequence are explained together, as several inputs are; but if one is
            computed from another, each by itself.
        forward_arg_extractor: takes from the batch what is explained: a position, a key, a sequence of them, or a
            callable. None: the whole batch. See `pnpx.extractors.extract`.
        additional_forward_arg_extractor: takes what only goes along. What of it has the batch's size as its first axis,
            or is a list or tuple of as many entries, is taken to hold a value for each sample, unless it is marked:
            ``pnpx.extractors.Shared("weights")``. A key goes by keyword if the model has, or takes, such a one.
        padding_mask_extractor: takes which steps (batch, length) of sequences are no padding, such as an attention
            mask. Padding then gets no noise, does not count for a sample's range, and how much of it there is does not
            change the noise of the rest.
        output_extractor: finds the tensor of scores in what the model returns: a position, a key, or a callable.
        output_layer: a module whose output is taken instead, such as the logits before a softmax head.
        inference_mode: take the scores from "logits" (the output as it is), their "softmax" or "log_softmax".
        score: "classification", "regression", "segmentation" (mean over the class's pixels), "detection" (D-RISE), or a
            callable ``(output, targets) -> (batch,)``.
        n_classes: if given, the output must have so many classes.
        reducer: pools the channels of the result: "mean", "sum", "max", "min"; None: they are kept.
        channel_axis: which axis that is, in the explained value; None: 1 of (batch, channels, height, width), 2 of
            (batch, length, features), 1 at the one-dimensional convolutions, batch norms and poolings of torch.nn.
        batch_size: the most rows in a forward pass. None: 32, and more once a pass has shown that it holds little.
        replay: at layers, do not run again what runs before them. Turn it off for a model that it disagrees with.
        progress: show a progress bar.
    """

    model: nn.Module = field(repr=False)
    _: KW_ONLY
    layer: Layer = None
    forward_arg_extractor: Extractor = None
    additional_forward_arg_extractor: Extractor = None
    padding_mask_extractor: Extractor = None
    output_extractor: Extractor = None
    output_layer: str | nn.Module | None = None
    inference_mode: InferenceMode = "logits"
    score: Task | ScoreFunction = "classification"
    n_classes: int | None = None
    reducer: Reducer | None = None
    channel_axis: int | None = None
    batch_size: int | None = None
    replay: bool = True
    progress: bool = False

    needs_graph: ClassVar[bool] = False
    """Whether the pass that finds the clean values is to be differentiated: for gradients at those alone."""
    needs_floats: ClassVar[bool] = True
    """Whether only floats are explained, as gradients need them; else integers as well, such as token ids."""

    def __post_init__(self) -> None:
        if not isinstance(self.model, nn.Module):
            raise TypeError(f"the model must be a torch.nn.Module, but is a {type(self.model).__name__}")
        for one in fields(self):
            if one.name != "model":
                object.__setattr__(self, one.name, plain_numbers(getattr(self, one.name)))
        if self.batch_size is not None:
            require_count("batch_size", self.batch_size, 1)
        for name in ("replay", "progress"):
            if not isinstance(getattr(self, name), bool):
                raise TypeError(f"{name} must be a bool, but got {getattr(self, name)!r}")
        require_axis("channel_axis", self.channel_axis)
        if self.reducer is not None and self.reducer not in ("mean", "sum", "max", "min"):
            raise ValueError(f"reducer must be 'mean', 'sum', 'max', 'min' or None, but is {self.reducer!r}")
        self.objective  # noqa: B018  (it checks its own parameters)

    @property
    def objective(self) -> Objective:
        """How scores come about from what the model returns."""
        return Objective(self.score, self.output_extractor, self.inference_mode, self.n_classes)

    @property
    def _channels(self) -> int | None:
        """The axis of the channels: ``channel_axis``, or what the modules at ``layer`` tell; None: a guess is due."""
        return channel_axis_at(self.attributor) if self.channel_axis is None else self.channel_axis

    @property
    def rows(self) -> int:
        """The most rows in a pass of which nothing is known yet, and the most samples in one."""
        return self.batch_size or DEFAULT_ROWS

    @property
    def attributor(self) -> Attributor:
        """What takes the gradients, at the place that ``layer`` means."""
        return attributor_for(self.model, self.layer, self.output_layer, self.replay)

    @abstractmethod
    def explain_at(self, bound: Bound, aim: Aim, reference: Call | None) -> list[list[Tensor]]:
        """The attributions at a place: for each target, for each explained tensor, a tensor of its shape.

        Args:
            bound: the place in the call that is explained.
            aim: the scores.
            reference: what `reference_call` returned, for the same samples.
        """

    def reference_call(self, call: Call) -> Call | None:
        """A second call, sample by sample beside the one explained, such as that of baselines."""
        return None

    def diagnose(self, bound: Bound, aim: Aim, reference: Call | None, found: list[list[Tensor]]) -> dict[str, Tensor]:
        """What an explanation tells beside the attributions: tensors (batch,) or (batch, n_targets) by name."""
        return {}

    @classmethod
    def example_parameters(cls, inputs: Any) -> dict[str, Any]:
        """Values of the parameters without a default, for ``inputs``: what tests of every explainer use."""
        return {}

    def attribute(self, inputs: Any, targets: Targets = None) -> Structure:
        """The attributions of ``inputs``.

        Args:
            inputs: a batch: a tensor (batch, ...), a NumPy array, or whatever the extractors understand.
            targets: the class explained: None for the predicted one, an int, or ints (batch,); ints (batch, n_targets)
                for several a sample; a tuple of indices where outputs have more axes; floats of the output's shape as
                weights on it (in a segmentation their sum is divided by how many are not zero); or a callable
                ``(output, batch) -> (batch,)``.

        Returns:
            A tensor of the shape of what is explained, or the structure of tensors that is; with several targets a
            sample, an axis for them comes after that of the batch. Where a place holds several rows a sample, such as
            windows of an image, they come as (batch, rows, ...). In float32 or wider, without gradients.

        Raises:
            TypeError: the batch, an extractor or the targets are of no kind that serves here, or what is explained is
                no tensor of floats, where gradients are taken.
            ValueError: shapes, classes or numbers do not fit each other or the model.
            LookupError: the model has no such layer or argument, the batch no such key or position.
            RuntimeError: the model never runs the layer, the score does not depend on it, or no gradient can be taken
                through the model. What the model itself raises comes as it is.
        """
        if _are_batches(inputs):
            kind = type(inputs).__name__
            raise TypeError(
                f"attribute takes one batch, but got a {kind}; use explain, which goes through its batches"
            )
        attributions, *_ = self._all(inputs, targets, diagnose=False)
        return attributions

    @overload
    def explain(
        self, inputs: "DataLoader[Any] | Iterator[Any]", targets: Targets = None
    ) -> "Iterator[Explanation]": ...

    @overload
    def explain(self, inputs: Any, targets: Targets = None) -> "Explanation": ...

    def explain(self, inputs: Any, targets: Targets = None) -> "Explanation | Iterator[Explanation]":
        """The attributions with all that belongs to them: what was explained, targets, prediction, time.

        Args:
            inputs: a batch, as `attribute` takes it; or a ``DataLoader``, or any iterator over batches.
            targets: as `attribute` takes them; for several batches, those of each.

        Returns:
            An explanation; for several batches an iterator of one a batch, each made when it is asked for.

        Raises:
            TypeError, ValueError, LookupError, RuntimeError: as `attribute` does; of several batches, the iterator.
        """
        if _are_batches(inputs):
            return self._each(inputs, targets)
        return self._one(inputs, targets)

    @property
    def parameters(self) -> dict[str, Any]:
        """The name and the parameters, the model left out, as plain values for reports and files."""
        given = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "model" and f.init}
        modules = {id(module): path for path, module in self.model.named_modules() if path}
        plain = {name: as_plain(value, modules) for name, value in given.items()}
        return {"name": type(self).__name__, **plain}

    def rehearse(self, inputs: Any, targets: Targets = None) -> None:
        """Raise what `attribute` would raise for ``inputs``, at about the cost of one gradient of them.

        What only the model can tell of the parameters, such as whether it ever reaches a layer, is found so before a
        long job starts.
        """
        with torch.inference_mode(False), torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what there is to warn of, the job itself will say
            call = self._call(inputs)
            reference, attributor = self.reference_call(call), self.attributor
            with (
                left_as_found(self.model),
                attributor.at(call, graph=self.needs_graph, floats=self.needs_floats) as bound,
            ):
                aim = self.objective.aim(targets, inputs, call.batch_size, lambda: bound.output)
                self.try_at(bound, aim, reference)
                for value in bound.values:
                    pool_channels(value.tensor, self.reducer, self._channels, value.axis, None)

    def try_at(self, bound: Bound, aim: Aim, reference: Call | None) -> None:
        """The least of `explain_at` that shows whether it can be done; for `rehearse`."""
        aim.scores(bound.output, 1)

    def _call(self, inputs: Any) -> Call:
        return extract(
            unwrapped(self.model),
            inputs,
            self.forward_arg_extractor,
            self.additional_forward_arg_extractor,
            self.padding_mask_extractor,
        )

    def _each(self, batches: Any, targets: Targets) -> "Iterator[Explanation]":
        from tqdm.auto import tqdm

        total = len(batches) if isinstance(batches, DataLoader) else None
        for batch in tqdm(batches, total=total, desc=type(self).__name__, unit="batch", disable=not self.progress):
            yield self._one(batch, targets)

    def _one(self, inputs: Any, targets: Targets) -> "Explanation":
        start = time.perf_counter()
        attributions, call, pieces = self._all(inputs, targets, diagnose=True)
        return record(self, call, attributions, pieces, time.perf_counter() - start)

    def _all(self, inputs: Any, targets: Targets, diagnose: bool) -> tuple[Structure, Call, Piece]:
        with torch.inference_mode(False), torch.no_grad():
            targets = self.objective.read_targets(targets)
            call = self._call(inputs)
            piece = in_pieces(self, inputs, call, targets, diagnose)
            channels = None if self.reducer is None else self._channels
            attributions = [
                pool_channels(tensor, self.reducer, channels, axis, piece.n_targets)
                for tensor, axis in zip(piece.attributions, piece.axes, strict=True)
            ]
            return piece.mirrored(attributions), call, piece


def all_explainers() -> dict[str, type[Explainer]]:
    """The explainers by name: every concrete subclass of `Explainer`, your own included, see `pnpx.registry.concrete`.

    >>> "SmoothGrad" in all_explainers()
    True
    """
    return concrete(Explainer)  # type: ignore[type-abstract]


def _are_batches(inputs: Any) -> bool:
    return isinstance(inputs, DataLoader) or (isinstance(inputs, Iterator) and not isinstance(inputs, Mapping))
