"""From what an explainer found to the record that is kept of it."""

from typing import TYPE_CHECKING, Any

from torch import Tensor

from pnpx.explainers.pieces import Piece
from pnpx.extractors import Call
from pnpx.scores import Objective
from pnpx.structure import Structure, mirror, tensors

if TYPE_CHECKING:
    from pnpx.explainers.base import Explainer
    from pnpx.explanation import Explanation


def record(explainer: "Explainer", call: Call, attributions: Structure, piece: Piece, seconds: float) -> "Explanation":
    """The explanation of one call."""
    from pnpx.explanation import Explanation

    output = piece.output
    prediction, probability = predicted(explainer, output)
    return Explanation(
        attributions=attributions,
        explained=piece.mirrored(piece.explained),
        inputs=mirror(call.forward, tensors(call.forward)),
        targets=piece.targets,
        prediction=prediction,
        probability=probability,
        output=output,
        explainer={**explainer.parameters, "channel_axis": explainer._channels},
        seconds=seconds,
        batch_axes=tuple(axis or 0 for axis in piece.axes),
        diagnostics=piece.diagnostics,
        indices=piece.n_targets is None and piece.targets is not None and _are_indices(piece.targets),
    )


def _are_indices(targets: Tensor) -> bool:
    return targets.ndim == 2 and not targets.is_floating_point()


def read_output(explainer: "Explainer", output: Any) -> Tensor | None:
    """The scores in the output, before any softmax; None where they are not one tensor."""
    if explainer.score == "detection":
        return None
    try:
        read = Objective(explainer.score, explainer.output_extractor).read(output)
    except (TypeError, LookupError):
        # A callable score may make sense of an output that this does not.
        return None
    return read.detach() if isinstance(read, Tensor) else None


def predicted(explainer: "Explainer", output: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
    """The predicted classes, (batch,), and their probabilities."""
    if output is None or explainer.score != "classification" or not output.is_floating_point():
        return None, None
    if output.ndim != 2 or output.shape[1] == 1:  # a single output may as well be a regression
        return None, None
    scores = output.float()
    # A model that ends in a softmax returns probabilities already.
    normal = bool((scores >= 0).all()) and bool(((scores.sum(1) - 1).abs() < 1e-4).all())
    probabilities = scores if normal else scores.softmax(1)
    probability, prediction = probabilities.max(1)
    return prediction, probability
