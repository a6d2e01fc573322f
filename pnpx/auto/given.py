"""What `pnpx.auto_explain` is given: batches or texts in any container, their targets and their labels."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence
from torch.utils.data import DataLoader

from pnpx.extractors import part_of
from pnpx.scores import Targets
from pnpx.structure import is_container


def batches_of(data: Any) -> Iterator[Any]:
    """The batches of a loader or an iterator, or of an object of another kind that gives some; or ``data``, if it is
    one."""
    if type(data) is list and data and all(isinstance(part, (tuple, Mapping)) for part in data):
        raise TypeError(
            f"a list is one batch, whose parts are tensors, but this one holds {len(data)} of type "
            f"{type(data[0]).__name__}; give batches by a DataLoader or an iterator, as iter(batches)"
        )
    if isinstance(data, (DataLoader, Iterator)):
        yield from data
    elif hasattr(data, "__iter__") and not isinstance(data, (Tensor, np.ndarray, PackedSequence, str)):
        yield from [data] if is_container(data) else data
    else:
        yield data


def targets_of_each(targets: Targets, sizes: Sequence[int], whole: int | None) -> list[Targets]:
    """The targets of each batch, of so many samples.

    What holds an entry for each sample is cut; what is one for all stays. ``whole`` is the size of a single batch
    before it was cut: targets are for that.

    Raises:
        ValueError: there are not as many targets as samples.
    """
    listed = isinstance(targets, list) or (isinstance(targets, (Tensor, np.ndarray)) and targets.ndim > 0)
    if not listed:
        return [targets] * len(sizes)
    count, total = len(targets), sum(sizes)
    if whole is not None:
        return [targets[:total] if count == whole else targets]  # else explaining complains
    if count < total:
        raise ValueError(
            f"targets must hold one for each of the {total} samples, of all batches together, but hold {count}; give "
            "as many, or one for all: an int, or a callable"
        )
    starts = [sum(sizes[:number]) for number in range(len(sizes))]
    return [targets[start : start + size] for start, size in zip(starts, sizes, strict=True)]


def labels_of(batch: Any, extractor: Any, size: int) -> list[Any] | None:
    """The true class of each sample of a batch; None where there are none."""
    if extractor is None:
        return None
    found = extractor(batch) if callable(extractor) else part_of(batch, extractor)
    if found is None:
        return None
    if not isinstance(found, (Tensor, np.ndarray, list, tuple)) or len(found) != size:
        count = f"{len(found)} of them" if hasattr(found, "__len__") else f"a {type(found).__name__}"
        raise ValueError(
            f"there must be a label for each of the {size} samples, but label_extractor={extractor!r} takes {count}; "
            "by default labels are what a batch has beyond what the model requires"
        )
    return list(found)


def label_in_words(label: Any, class_names: Sequence[str] | None) -> str | None:
    """A label in words; None for what is more than a number or a word."""
    if isinstance(label, (Tensor, np.ndarray, np.generic)):
        if label.size != 1 if not isinstance(label, Tensor) else label.numel() != 1:
            return None
        label = label.item()
    if isinstance(label, (bool, int)) and class_names is not None and 0 <= label < len(class_names):
        return str(class_names[label])
    if isinstance(label, float):
        return f"{label:.4g}"
    return str(int(label)) if isinstance(label, bool) else str(label) if isinstance(label, (int, str)) else None


def texts_of(data: Any) -> list[Any]:
    """The texts, or pairs of them, in a list or an iterator; or the texts of a loader, or an iterator, batch by batch.

    Raises:
        TypeError: there is something else, or a batch of several lists of text: pairs, or texts and labels.
    """
    if isinstance(data, str) or (isinstance(data, tuple) and all(isinstance(one, str) for one in data)):
        return [data]
    if isinstance(data, Mapping) or not hasattr(data, "__iter__"):
        raise TypeError(
            f"texts must be text, in a list, a DataLoader or an iterator, but are a {type(data).__name__}; give those "
            "of it, as data['text']"
        )
    loaded = isinstance(data, (DataLoader, Iterator))
    by_sample = isinstance(data, DataLoader) and data.batch_size is None and data.batch_sampler is None
    found: list[Any] = []
    for one in data:
        if isinstance(one, str) or (_are_texts(one, tuple) and len(one) == 2 and not by_sample):
            found.append(one)
        elif _are_texts(one, list) and not by_sample:
            found += one if loaded else [one]  # a list of words is a text, where it is no batch of a loader
        elif loaded and isinstance(one, (tuple, list)) and len(one) == 2 and _are_texts(one[0], (tuple, list)) \
                and not _are_texts(one[1], (tuple, list)):
            found += one[0]  # with their labels
        else:
            what = "one" if isinstance(one, str) or not loaded else "a batch"
            raise TypeError(
                f"texts must be text, or pairs of them in a list, but {what} is {one!r:.80}; give a list of the texts, "
                "or of the pairs"
            )
    return found


def _are_texts(value: Any, kinds: Any) -> bool:
    """Whether ``value`` is a sequence of one of the ``kinds`` that holds text, and nothing else."""
    return isinstance(value, kinds) and bool(value) and all(isinstance(one, str) for one in value)
