"""From settings to the work to do where models read texts: the checks that :mod:`pnpx.checker` makes for the others."""

import inspect
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pnpx import zoo
from pnpx.attributors import unwrapped
from pnpx.checker import Checker
from pnpx.explainers import Explainer, all_explainers
from pnpx.extractors import Signature
from pnpx.fingerprint import of_text_model
from pnpx.maker import Maker, required
from pnpx.recommender import Recommendation
from pnpx.schema import ExplainerChoice, ModelChoice, Settings
from pnpx.store import Names
from pnpx.subjectchecker import known_models
from pnpx.subjects import Subject, one_line
from pnpx.suggest import nearest
from pnpx.tasks import Task, TextTask
from pnpx.text import AGGREGATIONS, GRANULARITIES, REDUCTIONS, TextExplainer
from pnpx.text.pretrained import PREFIX, load_pretrained, quietly
from pnpx.text.reading import read
from pnpx.text.recommend import recommend_texts
from pnpx.text.samples import TextSample, TextSamples, read_file
from pnpx.text.tasks import detect, known_tokens, length_limit
from pnpx.textmaker import TextMaker, TextSubject
from pnpx.texttargets import GENERATES, TextTargets
from pnpx.yamltree import KeyPath

_CHOICES: Mapping[str, Sequence[str]] = {
    "granularity": GRANULARITIES,
    "aggregation": tuple(AGGREGATIONS),
    "reduce": tuple(REDUCTIONS),
}
_TEXTS: Mapping[str, Callable[[], zoo.TextData]] = {"sentences": zoo.sentences}
_SET = frozenset({"forward_arg_extractor", "additional_forward_arg_extractor", "padding_mask_extractor",
                  "output_extractor", "output_layer", "score", "reducer", "channel_axis", "n_classes",
                  "groups", "window", "stride"})
"""Parameters that a TextExplainer sets, or that would not serve for texts."""


def reads_texts(settings: Settings) -> bool:
    """Whether a run is of models that read texts, or seems to be, where no model of it is known."""
    if any(_reads_texts(choice) for choice in settings.model):
        return True
    known = any(choice.factory or choice.name in zoo.names() for choice in settings.model)
    return bool(for_texts_only(settings)) and not known


def for_texts_only(settings: Settings) -> list[KeyPath]:
    """The keys in the settings that a run of other models may not have."""
    data: list[KeyPath] = [("data", name) for name in ("texts", "file") if getattr(settings.data, name) is not None]
    return data + ([("text",)] if "text" in settings.model_fields_set else [])


def _reads_texts(choice: ModelChoice) -> bool:
    return choice.factory is None and (choice.name in zoo.text_names() or str(choice.name).startswith(PREFIX))


@dataclass(frozen=True)
class TextChecker(Checker):
    """Collects the problems of a configuration of text models while it is turned into work."""

    def subjects(self) -> list[Subject]:
        subjects: list[Subject] = []
        folders = Names()
        for name, choices in _CHOICES.items():
            self.chosen(("text", name), choices, getattr(self.settings.text, name))
        for index, choice in enumerate(self.settings.model):
            keys: KeyPath = ("model", index, "factory" if choice.factory else "name")
            if not _reads_texts(choice):
                if choice.factory is None and choice.name not in zoo.names():
                    hint = nearest(str(choice.name), known_models(choice))
                    self.note(keys, f"there is no model {choice.name!r}; {hint}")
                else:
                    said = "reads no texts, but another model of this run does; give it a configuration of its own"
                    self.note(keys, f"{choice.factory or choice.name!r} {said}")
                continue
            name = str(choice.name)
            if any(name == subject.name for subject in subjects):
                self.note(keys, f"the model {name!r} is listed twice; leave one out")
                continue
            subject = self.subject(keys, name, folders)
            if subject is not None:
                subjects.append(subject)
        return subjects

    def subject(self, keys: KeyPath, name: str, folders: Names) -> TextSubject | None:
        """A model with its texts; None, and a problem noted, if it cannot be loaded or read them."""
        entry = zoo.entry(name) if name in zoo.text_names() else None
        samples = self.samples(entry.data if entry else None)
        if samples is None:
            return None
        path = name.removeprefix(PREFIX)
        try:
            with quietly("the zoo's text models" if entry else "models of transformers"):
                if entry is not None:
                    module, tokenizer = zoo.load(name), zoo.tokenizer(name)
                else:
                    module, tokenizer = load_pretrained(path, self.code.folder, self.code.allowed)
            fingerprint = of_text_model(module, tokenizer)
            kind = _kind(module, tokenizer, samples.inputs[0])
        except (ValueError, ImportError, OSError) as error:
            self.note(keys, error)
            return None
        targets = TextTargets(self.settings, self.note, module, tokenizer, kind)
        self.generation(module, kind)
        return TextSubject(
            name=name,
            architecture=entry.architecture if entry else type(module).__name__,
            module=module,
            data=targets.resolved(samples),
            indices=self.indices(samples),
            accuracy=None,
            folder=folders.new(name if entry else Path(path).name),
            fingerprint=fingerprint,
            tokenizer=tokenizer,
            kind=kind,
        )

    def samples(self, default: str | None) -> TextSamples | None:
        """The texts to explain; None, and a problem noted, if there are none."""
        choice = self.settings.data
        if choice.factory is not None:
            self.note(("data", "factory"), "a factory gives tensors, but the model reads texts; give texts, or a file")
            return None
        if "split" in choice.model_fields_set:
            self.note(("data", "split"), "texts have no splits; leave it out")
        if choice.texts is not None:
            given = [TextSample(item.text, item.pair, item.label, item.target) for item in choice.texts]
            empty = [index for index, one in enumerate(given) if not "".join(one.texts).strip()]
            for index in empty:
                self.note(("data", "texts", index), "must have a text, but it is empty")
            return None if empty else TextSamples("the configuration", given)
        if choice.file is not None:
            try:
                columns = choice.columns.model_dump(include=choice.columns.model_fields_set)
                return read_file(self.beside(choice.file), columns)
            except ValueError as error:
                self.note(("data", "file"), error)
                return None
        name = choice.name or default
        if name is None:
            self.note((), "the key 'data' must give texts, as in data: {texts: [...]} or data: {file: texts.csv}")
            return None
        if name not in _TEXTS:
            if name in zoo.data_names():
                self.note(("data", "name"), f"{name!r} holds no texts, but the model reads them; {nearest('', _TEXTS)}")
            else:
                self.note(("data", "name"), f"there are no texts {name!r}; {nearest(name, _TEXTS)}")
            return None
        found = _TEXTS[name]()
        labels = [found.class_names[int(target)] for target in found.targets]
        given = [TextSample(text, None, label) for text, label in zip(found.texts, labels, strict=True)]
        return TextSamples(found.name, given)

    def beside(self, file: str) -> Path:
        """A file beside the configuration, or else in the current folder."""
        path = self.code.folder / file
        return path if path.exists() or not Path(file).exists() else Path(file)

    def chosen(self, keys: KeyPath, choices: Sequence[str], value: object) -> bool:
        """Whether ``value`` is one of the choices; noted if it is none."""
        if value in choices:
            return True
        self.note(keys, f"there is no {keys[-1]} {value!r}; {nearest(str(value), choices)}")
        return False

    def generation(self, module: nn.Module, kind: str) -> None:
        """Note what is not right among the arguments of ``generate``."""
        config = getattr(module, "generation_config", None)
        for name in self.settings.text.generation:
            keys = ("text", "generation", name)
            if kind not in GENERATES:
                self.note(keys, f"is for models that generate, but {type(module).__name__} does not")
            elif config is not None and not hasattr(config, name):
                self.note(keys, f"generate has no argument {name!r}; {nearest(name, config.to_dict())}")

    def tasks(self, subjects: Sequence[Subject]) -> Iterator[Task]:
        generation = self.settings.text.generation
        for task in super().tasks(subjects):
            yield TextTask(task.subject, task.explainer, task.parameters, task.layer, task.folder, generation)

    def recommended(self, subject: Subject, layer: str | None) -> Sequence[Recommendation]:
        if not isinstance(subject, TextSubject):
            raise TypeError(f"{subject.name} reads no texts")
        sample = subject.data.inputs[subject.indices[0]]
        text = self.settings.text
        given = {name: getattr(text, name) for name in _CHOICES if name in text.model_fields_set}
        found = recommend_texts(
            subject.module,
            subject.tokenizer,
            subject.data.take(subject.indices[:1]),
            None if sample.target is None else [sample.target],
            seed=self.settings.seed,
            **given,
            **({} if layer is None else {"layer": layer}),
        )
        # Whatever they explain in the model, it is the text that has scores.
        return [replace(one, layer=layer) for one in found]

    def allowed(self, kind: type[Explainer]) -> dict[str, bool]:
        own = [name for name, item in inspect.signature(TextExplainer.__init__).parameters.items()
               if item.kind is inspect.Parameter.KEYWORD_ONLY]
        return {**{name: needed for name, needed in super().allowed(kind).items() if name not in _SET},
                **dict.fromkeys(own, False)}

    def parameters(self, index: int, choice: ExplainerChoice) -> dict[str, Any] | None:
        known = all_explainers()
        if choice.name in known and not explains_texts(known[choice.name]):
            there = [name for name, kind in known.items() if explains_texts(kind)]
            self.note(("explainers", index, "name"), f"{choice.name} does not explain texts; {_listed(there)}")
            return None
        found = super().parameters(index, choice)
        if found is None:
            return None
        right = [
            self.chosen(("explainers", index, name), choices, found[name])
            for name, choices in _CHOICES.items() if name in found
        ]
        general = {name: getattr(self.settings.text, name) for name in _CHOICES}
        # What is wrong among these has been said, once, and is not to be found wrong for each explainer again.
        usable = {name: value for name, value in general.items() if value in _CHOICES[name]}
        return {**usable, **found} if all(right) else None

    def maker_of(self, kind: type[Explainer], subject: Subject, parameters: Mapping[str, Any]) -> Maker:
        return TextMaker(kind, subject, dict(parameters), self.settings.text.generation)


def explains_texts(kind: type[Explainer]) -> bool:
    """Whether an explainer serves for texts: those that need tensors beside them do not."""
    return not required(kind)


def _listed(names: Sequence[str]) -> str:
    return "those that do: " + ", ".join(names)


def _kind(module: nn.Module, tokenizer: Any, sample: TextSample) -> str:
    """What the model does, tried out on a text; ValueError in one line if it cannot read it."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of texts that are too long, which are told of when they are explained
            reading = read(tokenizer, [sample.given], length_limit(module, tokenizer), known_tokens(module))[0]
        signature = Signature(unwrapped(module))
        extras = {key: row for key, row in reading.extras.items() if signature.open_ended or key in signature.names}
        rows = {"input_ids": reading.ids, "attention_mask": torch.ones_like(reading.ids), **extras}
        return detect(module, {name: row[None] for name, row in rows.items()}).kind
    except Exception as error:
        raise ValueError(f"{type(module).__name__} cannot read {sample.text[:40]!r}: {one_line(error)}") from error
