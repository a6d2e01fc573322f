"""Attributions of some samples of a batch, and putting them together."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pnpx.attributors import Bound
from pnpx.scores import Aim
from pnpx.structure import Structure


@dataclass
class Piece:
    """What was found for some samples: lists with an entry for each explained tensor.

    ``axes`` are those of the batch; None where a tensor has none. An axis for several targets comes right after it.
    """

    attributions: list[Tensor]
    explained: list[Tensor]
    axes: list[int | None]
    mirrored: Callable[[Sequence[Tensor]], Structure]
    n_targets: int | None
    targets: Tensor | None
    diagnostics: dict[str, Tensor]
    output: Tensor | None

    @classmethod
    def of(
        cls, bound: Bound, aim: Aim, found: list[list[Tensor]], diagnostics: dict[str, Tensor], output: Tensor | None
    ) -> "Piece":
        """From what an explainer found: for each target, for each explained tensor, a tensor of its shape."""
        axes = [value.axis for value in bound.values]
        explained = [value.tensor for value in bound.values]
        by_tensor = list(zip(*found, strict=True))
        if aim.n_targets is None:
            attributions = [one for (one,) in by_tensor]
        else:
            attributions = [
                torch.stack(of_targets, dim=0 if axis is None else axis + 1)
                for of_targets, axis in zip(by_tensor, axes, strict=True)
            ]
        # With one sample, what has no batch axis gets one.
        for index, axis in enumerate(axes):
            if axis is None and bound.batch_size == 1:
                attributions[index], explained[index], axes[index] = (
                    attributions[index][None],
                    explained[index][None],
                    0,
                )
        return cls(attributions, explained, axes, bound.mirrored, aim.n_targets, aim.resolved, diagnostics, output)

    @classmethod
    def side_by_side(cls, pieces: Sequence["Piece"]) -> "Piece":
        """The same samples at several places, each explained by itself; the first place tells the rest."""
        counts = [len(piece.attributions) for piece in pieces]

        def mirrored(tensors: Sequence[Tensor]) -> Structure:
            supply = iter(tensors)
            return tuple(
                piece.mirrored([next(supply) for _ in range(count)])
                for piece, count in zip(pieces, counts, strict=True)
            )

        first = pieces[0]
        return cls(
            [tensor for piece in pieces for tensor in piece.attributions],
            [tensor for piece in pieces for tensor in piece.explained],
            [axis for piece in pieces for axis in piece.axes],
            mirrored,
            first.n_targets,
            first.targets,
            first.diagnostics,
            first.output,
        )


def join(pieces: Sequence[Piece], whole: Sequence[tuple[tuple[int, ...], int | None]] | None = None) -> Piece:
    """The samples of all ``pieces``, in their order.

    ``whole`` gives the shapes that the explained tensors have for the whole batch, where pieces of one sample each
    stand for tensors that may have no axis of the batch, or one that counts more than samples.
    """
    if len(pieces) == 1 and whole is None:
        return pieces[0]
    first = pieces[0]
    explained, attributions, axes = [], [], []
    for index, own_axis in enumerate(first.axes):
        values = [piece.explained[index] for piece in pieces]
        results = [piece.attributions[index] for piece in pieces]
        axis = own_axis or 0
        if whole is not None and whole[index][1] is None:
            axis, values, results = _aligned(whole[index][0], own_axis, values, results, first.n_targets)
        explained.append(_concatenated(values, axis))
        attributions.append(_concatenated(results, axis))
        axes.append(axis)
    return Piece(
        attributions,
        explained,
        list(axes),
        first.mirrored,
        first.n_targets,
        None if first.targets is None else torch.cat([_required(piece.targets) for piece in pieces]),
        {name: _padded([piece.diagnostics[name] for piece in pieces]) for name in first.diagnostics},
        _joined_outputs([piece.output for piece in pieces]),
    )


def _aligned(
    whole: tuple[int, ...], own_axis: int | None, values: list[Tensor], results: list[Tensor], n_targets: int | None
) -> tuple[int, list[Tensor], list[Tensor]]:
    """Along which axis single samples are put together, and their values and results, made ready for that.

    It is one in front, added where it is not there already: both for what has the same shape, ``whole``, for one sample
    and for all, and for what holds several rows a sample, whose order among the rows of a batch nothing tells.
    """
    if values[0].ndim == len(whole) + 1 or own_axis == 0:
        return 0, values, results
    if n_targets is not None:
        results = [result.movedim((own_axis or 0) + 1, 0) for result in results]
    return 0, [value[None] for value in values], [result[None] for result in results]


def _concatenated(tensors: Sequence[Tensor], axis: int) -> Tensor:
    """``tensors`` one after the other along ``axis``; where other axes differ, as lengths may, with zeros behind."""
    extents = [max(tensor.shape[index] for tensor in tensors) for index in range(tensors[0].ndim)]
    padded = []
    for tensor in tensors:
        missing = [0 if index == axis else extent - tensor.shape[index] for index, extent in enumerate(extents)]
        widths = [width for extra in reversed(missing) for width in (0, extra)]
        padded.append(torch.nn.functional.pad(tensor, widths) if any(widths) else tensor)
    return torch.cat(padded, dim=axis)


def _padded(quantities: Sequence[Tensor]) -> Tensor:
    """``quantities`` of samples, (batch, ...), as one; where some have more entries a sample, with NaN behind."""
    widest = max(quantity.shape[-1] for quantity in quantities)
    if quantities[0].ndim == 1 or all(quantity.shape[-1] == widest for quantity in quantities):
        return torch.cat(list(quantities))
    pad = torch.nn.functional.pad
    return torch.cat([pad(quantity, (0, widest - quantity.shape[-1]), value=torch.nan) for quantity in quantities])


def _joined_outputs(outputs: Sequence[Tensor | None]) -> Tensor | None:
    found = [output for output in outputs if output is not None]
    return _concatenated(found, 0) if len(found) == len(outputs) else None


def _required(targets: Tensor | None) -> Tensor:
    if targets is None:
        raise RuntimeError("some samples have targets and some have none; explain them in separate calls")
    return targets


def pool_channels(
    attributions: Tensor, reducer: str | None, channel_axis: int | None, batch_axis: int | None, n_targets: int | None
) -> Tensor:
    """``attributions`` with their channel axis pooled away.

    Args:
        attributions: of one explained value, with an axis for targets after that of the batch if ``n_targets``.
        reducer: "mean", "sum", "max" or "min"; None: they are returned as they are.
        channel_axis: which axis of the explained value; None: 1 of four axes or more, the last of three.
        batch_axis: that of the batch.
        n_targets: how many targets a sample has.

    Raises:
        ValueError: the value has no such axis.
    """
    if reducer is None:
        return attributions
    ndim = attributions.ndim - (n_targets is not None)
    if channel_axis is None or (ndim == 2 and channel_axis % ndim == batch_axis):
        if ndim < 3:
            raise ValueError(
                f"reducer={reducer!r} pools the channel axis, but what is explained has shape (batch, features), "
                "without channels; leave the reducer out, or give channel_axis"
            )
        axis = 1 if ndim > 3 else ndim - 1
    else:
        if not -ndim <= channel_axis < ndim or channel_axis % ndim == batch_axis:
            raise ValueError(
                f"channel_axis must be one of the axes 1 to {ndim - 1} of the value, but is {channel_axis}"
            )
        axis = channel_axis % ndim
    if n_targets is not None and axis > (batch_axis or 0):
        axis += 1
    if reducer == "mean":
        return attributions.mean(axis)
    if reducer == "sum":
        return attributions.sum(axis)
    return attributions.amax(axis) if reducer == "max" else attributions.amin(axis)
