"""From what an explainer returned for a whole batch to the attributions of some of its samples, element by element."""

from collections.abc import Sequence

from torch import Tensor

from pnpx.attributors import Value


def maps_of(
    given: Sequence[Tensor],
    values: Sequence[Value],
    rows: Tensor,
    total: int,
    n_targets: int | None,
    reducer: str | None,
    channel_axis: int | None,
) -> list[Tensor]:
    """For each value the attributions of its elements, (targets, batch, *sample), in float64 on the CPU.

    Where channels were pooled, each of them gets an equal part of what was found for all.

    Args:
        given: the attributions of the whole batch, one tensor for each of the ``values``.
        values: what is explained of these samples.
        rows: which samples of the batch they are.
        total: how many it has.
        n_targets: how many targets a sample has; None: one, without an axis for it.
        reducer: how channels were pooled; None: they were not.
        channel_axis: which axis of the values that was; None: as of `pnpx.explainers.pieces.pool_channels`.

    Raises:
        ValueError: these are no attributions of the batch.
    """
    found = []
    for one, value in zip(given, values, strict=True):
        shape = tuple(value.tensor.shape)
        ndim = one.ndim - (n_targets is not None) + (reducer is not None)
        # What has no axis of the batch, or several rows a sample, got an axis in front.
        stacked = ndim == len(shape) + 1
        axis = 0 if stacked else value.axis or 0
        whole = [len(rows), *shape] if stacked else list(shape)
        whole[axis] = total
        channel = None if reducer is None else _channel(channel_axis, len(whole), axis)
        before = axis - (channel is not None and channel < axis)
        fits = ndim == len(whole) and one.shape[before] == total
        if fits and (n_targets is None or one.shape[before + 1] == n_targets):
            moved = one.detach().to("cpu").double().movedim(before, 0)
            moved = moved[None] if n_targets is None else moved.movedim(before + 1, 0)
            moved = moved[:, rows]
            if channel is not None:
                place = 2 + channel - (channel > axis)
                moved = moved.unsqueeze(place).repeat_interleave(whole[channel], place) / whole[channel]
            if stacked and value.axis is not None:
                moved = moved.squeeze(2 + value.axis)
            sample, theirs = value.sample_shape, moved.shape[2:]
            # Samples of other pieces of the batch may be longer.
            longer = len(theirs) == len(sample) and all(a >= b for a, b in zip(theirs, sample, strict=True))
            if theirs == sample or (longer and len(rows) < total):
                found.append(moved[(slice(None), slice(None), *map(slice, sample))])
                continue
        pooled = f" with channels pooled by {reducer!r}" if reducer else ""
        several = f", after the axis of the batch one of {n_targets} targets" if n_targets else ""
        raise ValueError(
            f"attributions must be what explainer.attribute returns for these inputs and targets: of the shape of what "
            f"is explained, {tuple(whole)}{pooled}{several}, but theirs is {tuple(one.shape)}"
        )
    return found


def _channel(channel_axis: int | None, ndim: int, axis: int) -> int:
    """Which axis of a value `pnpx.explainers.pieces.pool_channels` pools."""
    if channel_axis is None or (ndim == 2 and channel_axis % ndim == axis):
        return 1 if ndim > 3 else ndim - 1
    return channel_axis % ndim


def channels_of(value: Value, channel_axis: int | None) -> int:
    """How many channels of a value were pooled into one, as `maps_of` finds them."""
    shape = list(value.tensor.shape)
    if value.axis is None:  # a single sample's got an axis in front
        shape = [1, *shape]
    return shape[_channel(channel_axis, len(shape), value.axis or 0)]
