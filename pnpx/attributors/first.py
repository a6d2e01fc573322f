"""The first pass of a model to be explained inside: it records what later passes need not run again."""

from collections.abc import Collection, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from pnpx.attributors.again import argument, location, with_argument
from pnpx.attributors.batch import arguments
from pnpx.attributors.intercept import intercepting
from pnpx.attributors.places import ArgumentPlace, ModulePlace, Place
from pnpx.attributors.recording import Reached, Recording
from pnpx.attributors.value import embedding_in, explainable
from pnpx.extractors import Call
from pnpx.structure import Structure, rebuild, tensors


def remedy(model: nn.Module) -> str:
    """What to do where there are no floats to explain."""
    return f"choose a layer that computes floats, such as an embedding's output: layer={embedding_in(model)!r}"


class FirstPass:
    """One run of a model: ``recording``, ``output``, and the ``place``: what is at each of the places.

    ``dependent`` tells whether one place is computed from another: then they cannot be moved independently.

    Args:
        model: what is run.
        places: where it is explained.
        tap: where the output is read, if not at the model's end.
        around: the ids of the modules that contain a place.
        modules: the ids of those whose calls are seen.
        graph: whether the output can be differentiated by ``anchors``, the explained tensors at each place.
        floats: whether only floats are explained.
    """

    def __init__(
        self,
        model: nn.Module,
        places: Sequence[Place],
        tap: ModulePlace | None,
        around: Collection[int],
        modules: frozenset[int],
        graph: bool,
        floats: bool,
    ) -> None:
        self._model, self._places, self._tap = model, places, tap
        self._around, self._modules, self._graph, self._floats = around, modules, graph, floats
        self._module_places = [place for place in places if isinstance(place, ModulePlace)]
        self._clean: dict[Place, Structure] = {}
        self.anchors: dict[Place, list[Tensor]] = {}
        self.dependent = False

    def run(self, call: Call, keep: bool) -> tuple[Recording, Any, tuple[Structure, ...]]:
        """The recording, the output, and what is at the places.

        With ``keep`` the recording has the outputs of what runs before the places.
        """
        args, kwargs = arguments(call, 1)
        with torch.set_grad_enabled(self._graph):
            for place in self._places:
                if isinstance(place, ArgumentPlace):
                    at = location(self._model, place, args, kwargs)
                    args, kwargs = with_argument(at, args, kwargs, self._anchor(place, argument(at, args, kwargs)))
            anchors = [partial(self._anchor, place) for place in self._module_places]
            recording = Recording(self._around, self._module_places, anchors, self._tap, not self._clean and keep)
            with intercepting(recording, self._modules):
                output = self._model(*args, **kwargs)
        recording.check()
        found = tuple(self._clean[place] for place in self._places)
        return recording, recording.tapped if self._tap else output, found

    @property
    def all_anchors(self) -> list[Tensor]:
        """Those of all places."""
        return [anchor for place in self._places for anchor in self.anchors[place]]

    def _anchor(self, place: Place, value: Structure) -> Structure:
        """Note the clean value at a place, and let autograd follow it from there if that is wanted."""
        chosen = explainable(value, str(place), partial(remedy, self._model), self._floats)
        leaves = tensors(value)
        self._clean[place] = rebuild(value, [leaf.detach().clone() for leaf in leaves])
        self.anchors[place] = []
        if not self._graph:
            return value
        for index in chosen:
            if not leaves[index].is_floating_point():
                # Autograd does not see what is computed from integers, so that this place is explained by itself.
                self.dependent = True
                self.anchors[place].append(leaves[index])
                continue
            if leaves[index].requires_grad:
                self.dependent = True
                anchor = leaves[index].clone()
            else:
                anchor = leaves[index].detach().clone().requires_grad_()
            self.anchors[place].append(anchor)
            # The model goes on with a copy: it may change it in place.
            leaves[index] = anchor.clone()
        return rebuild(value, leaves)

    def look(self, call: Call, keep: bool = True) -> Recording:
        """See what is at the modules' places, and before them, in another call; nothing after them runs."""
        anchors = [lambda value: value] * len(self._module_places)
        recording = Recording(self._around, self._module_places, anchors, keep=keep, stop=True, copied=True)
        try:
            with torch.no_grad(), intercepting(recording, self._modules):
                args, kwargs = arguments(call, 1)
                self._model(*args, **kwargs)
        except Reached:
            return recording
        names = " and ".join(repr(str(place)) for place in self._module_places)
        raise RuntimeError(f"{names} was reached for the batch itself, but not for another input")
