"""What `pnpx.auto_explain` is given, tensors or texts, made ready to be explained and judged."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pnpx.attributors import unwrapped
from pnpx.attributors.batch import rows_of_batch
from pnpx.auto.given import batches_of, label_in_words, labels_of, targets_of_each, texts_of
from pnpx.detector import detect
from pnpx.explainers import Explainer
from pnpx.explanation import Explanation
from pnpx.extractors import Extractor, extract, named_by, without_labels
from pnpx.metrics import Metric
from pnpx.modality import modality_of
from pnpx.recommender import EXTRACTORS, Recommendation, recommend
from pnpx.scores import Targets
from pnpx.store import Record
from pnpx.structure import tensors
from pnpx.text import TextExplainer, TextExplanation
from pnpx.text.recommend import recommend_texts


class Job(ABC):
    """Samples of a model, to be explained by several explainers and judged by several metrics."""

    model: nn.Module
    modality: str
    labels: Sequence[str | None] | None

    @abstractmethod
    def recommend(self, wanted: Sequence[str]) -> list[Recommendation]:
        """Every explainer, ready or with why it was not picked; those ``wanted`` in any case, if they work."""

    @abstractmethod
    def place(self, explainer: Any) -> tuple[str | None, str]:
        """Where an explainer explains, None: at the inputs, or texts; and what has a score there, if that differs."""

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
    """Batches of tensors, and the targets of each."""

    model: nn.Module
    batches: Sequence[Any]
    targets: Sequence[Targets]
    modality: str
    labels: Sequence[str | None] | None
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
        sizes: list[int] = []
        labels: list[Any] | None = []
        given, name = dict(shared), modality or ""
        bare = not any(given.get(one) is not None for one in EXTRACTORS)
        for batch in batches_of(data):
            explained = without_labels(unwrapped(model), batch) if bare else None
            if explained is not None:
                given["forward_arg_extractor"] = explained
                label_extractor = len(batch) - 1 if label_extractor is None else label_extractor
            call = extract(unwrapped(model), batch, *(given.get(one) for one in EXTRACTORS))
            size, rows = call.batch_size, slice(0, min(samples - sum(sizes), call.batch_size))
            if not batches:
                values = [leaf for value in call.values for leaf in tensors(value)]
                name = modality_of(values, detect(model), modality).name
            of_batch = labels_of(batch, label_extractor, size)
            labels = None if labels is None or of_batch is None else labels + of_batch[rows]
            common = named_by(given.get("additional_forward_arg_extractor"), shared=True)
            batches.append(batch if rows.stop == size else rows_of_batch(batch, rows, size, common))
            sizes.append(rows.stop)
            if sum(sizes) == samples:
                break
        if not batches:
            raise ValueError("there must be a batch to explain, but the data have none")
        said = None if labels is None else [label_in_words(one, class_names) for one in labels]
        whole = size if len(batches) == 1 else None
        wanted = targets_of_each(targets, sizes, whole)
        return cls(model, batches, wanted, name, said, background, class_names, seed, given)

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

    def place(self, explainer: Explainer) -> tuple[str | None, str]:
        layer = explainer.parameters["layer"]
        return ", ".join(map(str, layer)) if isinstance(layer, list) else layer, ""

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
        if not callable(tokenizer) or isinstance(tokenizer, (str, type)):
            raise TypeError(
                "tokenizer must be a tokenizer of transformers, as AutoTokenizer.from_pretrained(...) gives it, but is "
                f"{tokenizer!r:.60}"
            )
        texts = texts_of(data)
        if not texts:
            raise ValueError("there must be a text to explain, but there is none")
        if isinstance(targets, (Tensor, np.ndarray)):
            targets = targets.tolist()
        if isinstance(targets, (list, tuple)):
            if isinstance(data, (str, tuple)) and len(targets) != 1:
                targets = [list(targets)]  # several for the one text
            if len(targets) != len(texts):
                raise ValueError(
                    f"targets must hold one for each of the {len(texts)} texts, or be one for all, but hold "
                    f"{len(targets)}"
                )
            targets = list(targets[:samples])
        return cls(model, tokenizer, texts[:samples], targets, seed, shared)

    def recommend(self, wanted: Sequence[str]) -> list[Recommendation]:
        return recommend_texts(
            self.model, self.tokenizer, list(self.texts), self.targets, wanted=wanted, seed=self.seed, **self.shared
        )

    def place(self, explainer: TextExplainer) -> tuple[str | None, str]:
        layer = explainer.parameters.get("layer")
        units = explainer.granularity if isinstance(explainer.granularity, str) else "spans"
        return None if layer is None else str(layer), units

    def explain(self, explainer: TextExplainer) -> list[TextExplanation]:
        return explainer(list(self.texts), self.targets)

    def records(self, found: Sequence[TextExplanation]) -> list[Record]:
        return list(found)

    def evaluate(self, metric: Metric, explainer: TextExplainer, found: Sequence[TextExplanation]) -> list[Tensor]:
        return list(metric.evaluate(explainer, list(self.texts), self.targets, list(found)))
