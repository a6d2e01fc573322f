"""Gradients at the inputs: at what the forward argument extractor takes from the batch."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from pnpx.attributors.base import Attributor, Bound
from pnpx.attributors.batch import arguments
from pnpx.attributors.intercept import intercepting, wrapped
from pnpx.attributors.places import ModulePlace
from pnpx.attributors.recording import Recording
from pnpx.attributors.sharing import Make
from pnpx.attributors.value import embedding_in, explainable
from pnpx.extractors import Call
from pnpx.structure import tensors


@dataclass(frozen=True)
class InputAttributor(Attributor):
    """Takes gradients at the model's inputs. ``output_layer`` is where the scores are read, if not at its end."""

    model: nn.Module
    output_layer: ModulePlace | None = None

    @contextmanager
    def at(self, call: Call, *, graph: bool = False, floats: bool = True, probe: bool | None = None) -> Iterator[Bound]:
        with wrapped([self.output_layer.module] if self.output_layer else []) as modules:
            yield InputBound(self.model, call, self.output_layer, modules, graph, floats)


class InputBound(Bound):
    """The inputs in one call of a model."""

    def __init__(
        self,
        model: nn.Module,
        call: Call,
        output_layer: ModulePlace | None,
        modules: frozenset[int],
        graph: bool,
        floats: bool = True,
    ) -> None:
        super().__init__(model, call)
        self._output_layer, self._modules, self._graph = output_layer, modules, graph
        self._output: Any = None
        names = ", ".join(repr(name) for name in call.keywords if name) or "the input"
        chosen = explainable(
            call.forward,
            names,
            lambda: f"explain its embedding, or what else is computed from it, instead: layer={embedding_in(model)!r}",
            floats,
        )
        leaves = tensors(call.forward)
        if not floats:  # what was extracted to be explained is explained, beside floats as well
            chosen = list(range(len(leaves)))
        anchors = [leaves[index].detach().clone().requires_grad_() for index in chosen] if graph else []
        self._found(call.forward, chosen, anchors, [0] * len(leaves))
        # At a layer a value may have no axis of time; of the inputs, the mask tells what is padding.
        if call.steps is not None and all(value.valid is None for value in self.values):
            shapes = ", ".join(str(tuple(value.tensor.shape)) for value in self.values)
            raise ValueError(
                f"the mask that padding_mask_extractor takes has shape {tuple(call.steps.shape)}, and must be that of "
                f"the first two axes, (batch, length), of an input that is explained, but their shapes are {shapes}; "
                "take the mask of what is explained, or leave padding_mask_extractor out"
            )

    @property
    def output(self) -> Any:
        if self._output is None:
            if self._graph:
                self._output = self.differentiable()
            else:
                with torch.no_grad():
                    self._output = self.run(partial(_copies, [value.tensor for value in self.values]), 1)
        return self._output

    def differentiable(self) -> Any:
        with torch.enable_grad():
            return self.run(partial(_copies, self._anchors), 1)

    def run(self, make: Make, copies: int) -> Any:
        leaves = self.all_tensors(make(), copies, [0] * len(tensors(self.place)))
        args, kwargs = arguments(self.call, copies, leaves)
        recording = None if self._output_layer is None else Recording((), [], [], self._output_layer, keep=False)
        with self.attributes.as_found(), self.followed([leaves[index] for index in self._chosen]):
            if recording is None:
                return self.attributes.apart(self.model(*args, **kwargs))
            with intercepting(recording, self._modules):
                self.model(*args, **kwargs)
            recording.check()
            return self.attributes.apart(recording.tapped)

    def activations(self, call: Call) -> list[Tensor]:
        leaves = tensors(call.forward)
        return [leaves[index].detach() for index in self._chosen]

    def describe(self) -> str:
        return "the inputs"


def _copies(originals: Sequence[Tensor]) -> list[Tensor]:
    return [original.clone() for original in originals]
