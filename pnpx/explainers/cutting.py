"""A batch in pieces that one pass of the model can hold, each explained, and put together again."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from pnpx.attributors import Attributor, LayerAttributor, left_as_found
from pnpx.attributors.batch import rows_of_batch, rows_of_call, rows_of_own_targets
from pnpx.attributors.sharing import AxesDiffer
from pnpx.explainers.pieces import Piece, join
from pnpx.explainers.record import read_output
from pnpx.extractors import Call, named_by
from pnpx.scores import Targets, rows_of_targets

if TYPE_CHECKING:
    from pnpx.explainers.base import Explainer


def in_pieces(explainer: "Explainer", batch: Any, call: Call, targets: Targets, diagnose: bool) -> Piece:
    """All samples of a ``call`` explained, at most `Explainer.rows` at a time.

    Args:
        explainer: what explains them.
        batch: what the user gave, which ``call`` was extracted from.
        call: the model's arguments.
        targets: what the user gave, read by `Objective.read_targets`.
        diagnose: whether the diagnostics and the model's output are wanted as well.
    """
    size = call.batch_size
    job = _Job(explainer, batch, call, targets, explainer.reference_call(call), diagnose)
    attributor = explainer.attributor
    with left_as_found(explainer.model):
        pieces = []
        extent, start = min(explainer.rows, size), 0
        while start < size:
            rows = slice(start, min(start + extent, size))
            try:
                pieces.append(job.piece(attributor, rows))
            except torch.cuda.OutOfMemoryError:
                # One copy of these samples was too much already: go on with half as many of them.
                if rows.stop - rows.start == 1:
                    raise
                torch.cuda.empty_cache()
                extent = max(1, (rows.stop - rows.start) // 2)
                continue
            except (IndexError, RuntimeError) as error:  # what models raise where shapes and numbers do not fit
                if rows != slice(0, size):
                    _say_where(error, rows, size)
                raise
            start = rows.stop
    return join(pieces)


def _say_where(error: Exception, rows: slice, size: int) -> None:
    """Add to an ``error`` of a piece of a batch that it was one: a batch of a graph's nodes, say, cannot be cut."""
    note = (
        f"(samples {rows.start} to {rows.stop - 1} of {size} were explained when this happened, cut out of the batch "
        "by batch_size; where samples belong together, as the nodes of a graph do, batch_size must be as large as the "
        "batch)"
    )
    if hasattr(error, "add_note"):  # it came with Python 3.11
        error.add_note(note)
    elif error.args and isinstance(error.args[0], str):
        error.args = (f"{error.args[0]} {note}", *error.args[1:])


@dataclass(frozen=True)
class _Job:
    explainer: "Explainer"
    batch: Any
    call: Call
    targets: Targets
    reference: Call | None
    diagnose: bool

    def piece(self, attributor: Attributor, rows: slice) -> Piece:
        """The attributions of some of the samples.

        They are cut out of the whole batch always: whether an axis is that of the samples is seen best there.
        """
        explainer = self.explainer
        several = explainer.rows >= 2 * (rows.stop - rows.start) and not explainer.needs_graph
        try:
            return self._piece(attributor, rows, probe=False if several else None)
        except AxesDiffer:
            return self._piece(attributor, rows, probe=True)

    def _piece(self, attributor: Attributor, rows: slice, probe: bool | None) -> Piece:
        explainer, size = self.explainer, self.call.batch_size
        call, batch, targets, reference = self.call, self.batch, self.targets, self.reference
        if rows != slice(0, size):
            call, batch, targets = rows_of_call(call, rows), None, self._targets(rows)
            if callable(targets) and not callable(explainer.score):
                shared = named_by(explainer.additional_forward_arg_extractor, shared=True)
                batch = rows_of_batch(self.batch, rows, size, shared)
            reference = None if reference is None else rows_of_call(reference, rows)
        count, uncut = call.batch_size, targets is self.targets and targets is not None
        graph, floats = explainer.needs_graph, explainer.needs_floats
        with attributor.at(call, graph=graph, floats=floats, probe=probe) as bound:
            unbatched = any(value.axis is None for value in bound.values)
            dependent = getattr(bound, "dependent", False) and not graph
            if not (unbatched and count > 1) and not dependent:
                part = (size, rows) if uncut else (None, None)
                aim = explainer.objective.aim(targets, batch, count, lambda: bound.output, *part)
                found = explainer.explain_at(bound, aim, reference)
                diagnostics = explainer.diagnose(bound, aim, reference, found) if self.diagnose else {}
                output = read_output(explainer, bound.output) if self.diagnose else None
                return Piece.of(bound, aim, found, diagnostics, output)
        if dependent and isinstance(attributor, LayerAttributor):
            alone = [
                LayerAttributor(attributor.model, (place,), attributor.output_layer, False, attributor.replay)
                for place in attributor.places
            ]
            return Piece.side_by_side([self.piece(one, rows) for one in alone])
        # Something here has no axis of the batch, such as a table of positions. What it means for each sample is
        # found by explaining the samples one at a time.
        return join(
            [self.piece(attributor, slice(row, row + 1)) for row in range(rows.start, rows.stop)],
            whole=[(tuple(value.tensor.shape), value.axis) for value in bound.values],
        )

    def _targets(self, rows: slice) -> Targets:
        """The targets of some of the samples."""
        size, score = self.call.batch_size, self.explainer.score
        if callable(score):
            return rows_of_own_targets(self.targets, rows, size)
        return rows_of_targets(self.targets, rows, size, weights=score != "detection")
