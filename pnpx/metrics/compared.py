"""Explaining once more: other inputs, or another model, for the targets that were explained."""

from typing import Any

import torch

from pnpx.explainers.base import Explainer
from pnpx.explainers.cutting import in_pieces
from pnpx.explainers.pieces import pool_channels
from pnpx.extractors import Call
from pnpx.metrics.judge import judging
from pnpx.scores import Targets
from pnpx.structure import Structure


def settled(explainer: Explainer, inputs: Any, targets: Targets) -> Targets:
    """The targets, the predicted classes of ``inputs`` filled in: those of another model or input may be others.

    Raises:
        ValueError: what is predicted are boxes.
    """
    if targets is not None or callable(explainer.score):
        return targets
    if explainer.score == "detection":
        raise ValueError("the boxes that are explained must be the same throughout; give them: targets=")
    return judging(explainer, inputs, None, [], lambda trial: {}).targets


def again(explainer: Explainer, inputs: Any, call: Call, targets: Targets) -> Structure:
    """What ``explainer.attribute`` gives for a call that stands in for that of ``inputs``."""
    with torch.inference_mode(False), torch.no_grad():
        piece = in_pieces(explainer, inputs, call, explainer.objective.read_targets(targets), diagnose=False)
        channels = None if explainer.reducer is None else explainer._channels
        return piece.mirrored(
            [
                pool_channels(tensor, explainer.reducer, channels, axis, piece.n_targets)
                for tensor, axis in zip(piece.attributions, piece.axes, strict=True)
            ]
        )
