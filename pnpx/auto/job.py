"""What `pnpx.auto_explain` is given, tensors or texts, made ready to be explained and judged."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from pnpx.attributors import unwrapped
from pnpx.attributors.batch import rows_of_batch
from pnpx.detector import detect
from pnpx.explainers import Explainer
from pnpx.explanation import Explanation
from pnpx.extractors import Extractor, Signature, extract, named_by, part_of
from pnpx.metrics import Metric
from pnpx.modality import modality_of
from pnpx.recommender import Recommendation, recommend
from pnpx.scores import Targets, rows_of_targets
from pnpx.store import Record
from pnpx.structure import tensors
from pnpx.text import TextExplainer, TextExplanation
from pnpx.text.recommend import recommend_texts

_EXTRACTORS = ("forward_arg_extractor", "additional_forward_arg_extractor", "padding_mask_extractor")


class Job(ABC):
    """Samples of a model, to be explained by several explainers and judged by several metrics."""

    model: nn.Module
    modality: str
    labels: Sequence[str] | None

    @abstractmethod
    def recommend(self, wanted: Sequence[str]) -> list[Recommendation]:
        """Every explainer, ready or with why it was not picked; those ``wanted`` in any case, if they work."""

    @abstractmethod
    def explain(self, explainer: Any) -> Any:
        """The explanations of all samples."""

    @abstractmethod
    def records(self, found: Any) -> list[Record]:
        """What `explain` returned, a record a sample."""

    @abstractmethod
    def evaluate(self, metric: Metric, explainer: Any, found: Any) -> "Tensor | list[Tensor]":
        """What a metric says of what `explain` returned, an entry a sample."""


@dataclass
class Batches(Job):
    """Batches of tensors, at most so many samples in all; ``sizes`` tells how many there are in each."""

    model: nn.Module
    batches: Sequence[Any]
    targets: Sequence[Targets]
    modality: str
    labels: Sequence[str] | None
    background: Any
    class_names: Sequence[str] | None
    seed: int
    shared: Mapping[str, Any]

    @classmethod
    def of(
        cls,
        model: nn.Module,
        data: Any,
        targets: Targets,
        samples: int,
        modality: str | None,
        background: Any,
        label_extractor: Extractor,
        class_names: Sequence[str] | None,
        seed: int,
        shared: Mapping[str, Any],
    ) -> "Batches":
        """From what `pnpx.auto_explain` is given."""
        batches: list[Any] = []
        wanted: list[Targets] = []
        labels: list[str] | None = []
        given, left, name = dict(shared), samples, modality or ""
        for batch in _batches_of(data):
            if not batches:
                given, label_extractor = _told_apart(model, batch, given, label_extractor)
            call = extract(unwrapped(model), batch, *(given.get(one) for one in _EXTRACTORS))
            size, rows = call.batch_size, slice(0, min(left, call.batch_size))
            if not batches:
                values = [leaf for value in call.values for leaf in tensors(value)]
                name = modality_of(values, detect(model), modality).name
            if label_extractor is None or labels is None:
                labels = None
            else:
                labels += [_label(one, class_names) for one in _labels(batch, label_extractor, size)[rows]]
            whole = rows == slice(0, size)
            common = named_by(given.get("additional_forward_arg_extractor"), shared=True)
            batches.append(batch if whole else rows_of_batch(batch, rows, size, common))
            wanted.append(targets if whole else rows_of_targets(targets, rows, size))
            left -= rows.stop
            if not left:
                break
        if not batches:
            raise ValueError("there must be a batch to explain, but the data have none")
        return cls(model, batches, wanted, name, labels, background, class_names, seed, given)

    def recommend(self, wanted: Sequence[str]) -> list[Recommendation]:
        return recommend(
            self.model,
            self.batches[0],
            self.targets[0],
            modality=self.modality,
            background=self.background,
            wanted=wanted,
            seed=self.seed,
            **self.shared,
        )

    def explain(self, explainer: Explainer) -> list[Explanation]:
        kind = self.modality if self.modality in ("image", "series", "tabular") else None
        return [
            replace(explainer.explain(batch, targets), kind=kind, class_names=self.class_names)
            for batch, targets in zip(self.batches, self.targets, strict=True)
        ]

    def records(self, found: Sequence[Explanation]) -> list[Record]:
        return [replace(one, seconds=one.seconds / len(batch)) for batch in found for one in batch]

    def evaluate(self, metric: Metric, explainer: Explainer, found: Sequence[Explanation]) -> Tensor:
        parts = [
            metric.evaluate(explainer, batch, targets, explanation.attributions)
            for batch, targets, explanation in zip(self.batches, self.targets, found, strict=True)
        ]
        return torch.cat(parts)


@dataclass
class Texts(Job):
    """Texts, and what is explained of each."""

    model: nn.Module
    tokenizer: Any
    texts: Sequence[Any]
    targets: Any
    seed: int
    shared: Mapping[str, Any]

    modality = "text"
    labels = None

    @classmethod
    def of(
        cls, model: nn.Module, tokenizer: Any, data: Any, targets: Any, samples: int, seed: int,
        shared: Mapping[str, Any]
    ) -> "Texts":
        """From what `pnpx.auto_explain` is given."""
        texts = [data] if isinstance(data, (str, tuple)) else list(data)
        if not texts:
            raise ValueError("there must be a text to explain, but there is none")
        listed = isinstance(targets, list) and len(targets) == len(texts)
        return cls(model, tokenizer, texts[:samples], targets[:samples] if listed else targets, seed, shared)

    def recommend(self, wanted: Sequence[str]) -> list[Recommendation]:
        return recommend_texts(
            self.model, self.tokenizer, list(self.texts), self.targets, wanted=wanted, seed=self.seed, **self.shared
        )

    def explain(self, explainer: TextExplainer) -> list[TextExplanation]:
        return explainer(list(self.texts), self.targets)

    def records(self, found: Sequence[TextExplanation]) -> list[Record]:
        return list(found)

    def evaluate(self, metric: Metric, explainer: TextExplainer, found: Sequence[TextExplanation]) -> list[Tensor]:
        return list(metric.evaluate(explainer, list(self.texts), self.targets, list(found)))


def _batches_of(data: Any) -> Iterator[Any]:
    """The batches of a loader or an iterator; or ``data``, if it is one."""
    if isinstance(data, (DataLoader, Iterator)):
        yield from data
    else:
        yield data


def _told_apart(
    model: nn.Module, batch: Any, shared: dict[str, Any], label_extractor: Extractor
) -> tuple[dict[str, Any], Extractor]:
    """The extractors, with those of a plain tuple that has one part more than the model requires: the true classes."""
    if type(batch) not in (tuple, list) or any(shared.get(name) is not None for name in _EXTRACTORS):
        return shared, label_extractor
    signature = Signature(unwrapped(model))
    count = len(batch) - 1
    taken = len(signature.required)
    if count < 1 or count != taken or label_extractor not in (None, count, -1):
        return shared, label_extractor
    forward = 0 if count == 1 else tuple(range(count))
    return {**shared, "forward_arg_extractor": forward}, count if label_extractor is None else label_extractor


def _labels(batch: Any, extractor: Any, size: int) -> Tensor:
    """The true classes in a batch of so many samples: (batch, ...)."""
    found = extractor(batch) if callable(extractor) else part_of(batch, extractor)
    labels = torch.as_tensor(found)
    if not labels.ndim or len(labels) != size:
        raise ValueError(
            f"label_extractor must take a label for each of the {size} samples, but {extractor!r} took something of "
            f"shape {tuple(labels.shape)}"
        )
    return labels


def _label(label: Tensor, class_names: Sequence[str] | None) -> str:
    if label.numel() != 1:
        return str(label.tolist())
    value = label.item()
    if class_names is not None and not label.is_floating_point() and 0 <= int(value) < len(class_names):
        return str(class_names[int(value)])
    return f"{value:.4g}" if label.is_floating_point() else str(int(value))
