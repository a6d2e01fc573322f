"""The checks on the way from settings to work: every problem of a configuration, found before anything is explained."""

import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, get_args

import torch
from torch import nn

from pnpx import zoo
from pnpx.attributors.places import resolve
from pnpx.explainers import Explainer, all_explainers
from pnpx.explainers.expected import ExpectedGradients
from pnpx.faults import faults, in_words
from pnpx.fingerprint import of_model
from pnpx.maker import Maker, required
from pnpx.schema import EVERY_MODEL, ExplainerChoice, ModelChoice, Settings
from pnpx.source import Source, shown
from pnpx.store import CONFIG, Names
from pnpx.subjects import Code, Data, Subject, choose, load_data, load_model, one_line, try_out
from pnpx.suggest import nearest
from pnpx.tasks import Task, TensorTask
from pnpx.text.pretrained import PREFIX
from pnpx.text.samples import TextSamples
from pnpx.yamltree import KeyPath
from pnpx.zoo.datasets import Split

SPLITS = get_args(Split)

_LAYERS = "layers"


def known_models(choice: ModelChoice) -> list[str]:
    """The models that a configuration may name, that of transformers included which ``choice`` may have meant."""
    _, colon, rest = str(choice.name).partition(":")
    return [*zoo.names(), *zoo.text_names(), *([PREFIX + rest] if colon else [])]


@dataclass(frozen=True)
class Checker:
    """Collects the problems of a configuration while it is turned into work."""

    settings: Settings
    source: Source
    code: Code
    problems: list[str]

    def note(self, keys: KeyPath, message: object) -> None:
        text = message.args[0] if isinstance(message, LookupError) and message.args else message
        self.problems.append(self.source.problem(keys, str(text)))

    def output(self, given: Path | None) -> Path:
        """The folder for the results, if it is one or can become one; a leading ``~`` is the home folder."""

        def wrong(said: str) -> None:
            if given is None:
                self.note(("output",), said)
            else:
                self.problems.append(f"--output {given}: {said}")

        folder = given or Path(self.settings.output)
        if "\0" in str(folder):
            self.note(("output",), "must be the name of a folder, but holds a null character")
            return folder
        try:
            folder = folder.expanduser()
        except RuntimeError:  # there is no such user
            wrong(f"the home folder that {folder.parts[0]!r} means is not known; write out the path of the folder")
            return folder
        try:
            (folder / CONFIG).stat()
        except (FileNotFoundError, NotADirectoryError):
            pass  # to be made, or told of below
        except OSError as error:
            wrong(f"must be a folder to write to, but cannot be looked into: {error.strerror}")
            return folder
        if (folder / CONFIG).exists() and (folder / CONFIG).samefile(self.source.path):
            said = f"would overwrite this configuration with the one as run, {CONFIG}; name another folder"
            self.note(("output",), said)
        existing = next(place for place in (folder, *folder.absolute().parents) if os.path.lexists(place))
        if not existing.exists():
            wrong(f"must be a folder to write to, but {str(existing)!r} is a link to nothing; name another, or mend it")
        elif not existing.is_dir():
            said = f"must be a folder to write to, but {str(existing)!r} is a file; name another, or move it away"
            wrong(said)
        return folder

    def subjects(self) -> list[Subject]:
        """The models with their samples."""
        subjects: list[Subject] = []
        folders = Names()
        for index, choice in enumerate(self.settings.model):
            keys: KeyPath = ("model", index, "factory" if choice.factory else "name")
            if choice.factory is None and choice.name not in zoo.names():
                self.note(keys, f"there is no model {choice.name!r}; {nearest(str(choice.name), known_models(choice))}")
                continue
            try:
                name, module, entry = load_model(choice, self.code)
            except (LookupError, ValueError, ImportError, OSError) as error:
                self.note(keys, error)
                continue
            if any(name == subject.name for subject in subjects):
                self.note(keys, f"the model {name!r} is listed twice; leave one out, or give it another 'name'")
                continue
            data = self.data(entry.data if entry else None)
            if data is None:
                continue
            fingerprint = of_model(module, self.code.function(choice.factory) if choice.factory else None)
            try:
                try_out(module, name, data)
            except ValueError as error:
                self.note(("data",) if self.source.written(("data",)) else keys, error)
                continue
            at_home = entry is not None and entry.data == data.name
            subjects.append(
                Subject(
                    name,
                    entry.architecture if entry else type(module).__name__,
                    module,
                    data,
                    self.indices(data),
                    entry.accuracy if entry and at_home else None,
                    folders.new(name),
                    fingerprint,
                )
            )
        return subjects

    def data(self, default: str | None) -> Data | None:
        choice = self.settings.data
        if choice.factory is None:
            if choice.name is not None and choice.name not in zoo.data_names():
                hint = nearest(choice.name, zoo.data_names())
                self.note(("data", "name"), f"there is no data set {choice.name!r}; {hint}")
                return None
            if choice.split not in SPLITS:
                self.note(("data", "split"), f"there is no split {choice.split!r}; {nearest(choice.split, SPLITS)}")
                return None
        try:
            return load_data(choice, default, self.code)
        except (LookupError, ValueError, ImportError) as error:
            self.note(("data", "factory" if choice.factory else "name"), error)
            return None

    def indices(self, data: Data | TextSamples) -> Sequence[int]:
        try:
            return choose(self.settings.data, data)
        except ValueError as error:
            self.note(("data", "indices" if self.settings.data.indices is not None else "samples"), error)
            return range(0)

    def tasks(self, subjects: Sequence[Subject]) -> Iterator[Task]:
        """Each explainer at each place of each model; where one is not right, the problem is noted instead."""
        chosen: list[tuple[int, ExplainerChoice, dict[str, Any]]] = []
        for index, choice in enumerate(self.settings.explainers):
            parameters = self.parameters(index, choice)
            if parameters is not None:
                chosen.append((index, choice, parameters))
        for subject in subjects:
            explainer_names = Names()
            for index, choice, parameters in chosen:
                folder, layer_names = explainer_names.new(choice.name), Names()
                make = self.maker(index, choice, parameters, subject)
                if make is None:
                    continue
                for keys, layer in self.layers(index, choice, subject.module, subject.name):
                    place = layer_names.new("inputs" if layer is None else layer)
                    if self.works(index, choice, subject, keys, make, layer):
                        explainer = make(layer, ())
                        yield TensorTask(subject, explainer, parameters, layer, f"{subject.folder}/{folder}/{place}")

    def parameters(self, index: int, choice: ExplainerChoice) -> dict[str, Any] | None:
        """What an explainer is made with beside model and layer, or None if there is no such explainer or parameter."""
        known = all_explainers()
        keys: KeyPath = ("explainers", index)
        names = [model.name or (model.factory or "").rpartition(":")[2] for model in self.settings.model]
        # A model that there is not may be misspelt: which layers are meant for it shows when it has its name.
        all_known = all(model.factory or model.name in known_models(model) for model in self.settings.model)
        for model in choice.layers if all_known else ():
            # Those of the zoo that an override took out of this run may be in the next one.
            there = list(dict.fromkeys([*names, *zoo.names(), *zoo.text_names()]))
            if model not in (EVERY_MODEL, *there):
                said = f"there is no model {model!r} in this run or the zoo; {nearest(model, there)}"
                self.note((*keys, "layers", model), said)
        if choice.name not in known:
            self.note((*keys, "name"), f"there is no explainer {choice.name!r}; {nearest(choice.name, known)}")
            return None
        allowed = self.allowed(known[choice.name])
        wrong = [name for name in choice.parameters if name not in allowed or name == "layer"]
        for name in wrong:
            there = ["layers" if one == "layer" else one for one in allowed]
            hint = "write layers: [...]" if name == "layer" else nearest(name, there)
            self.note((*keys, name), f"{choice.name} has no parameter {name!r} here; {hint}")
        absent = [name for name, needed in allowed.items() if needed and name not in choice.parameters]
        for name in absent:
            example = f", such as {name}: 20 for that many samples of the training split" if name == "baselines" else ""
            self.note(keys, f"{choice.name} needs the parameter {name!r}{example}")
        if wrong or absent:
            return None
        shared = {"seed": self.settings.seed} if "seed" in allowed else {}
        return {**shared, **choice.parameters}

    def allowed(self, kind: type[Explainer]) -> dict[str, bool]:
        """The parameters that an explainer takes from a configuration, each with whether it must be there."""
        needed = {item.name for item in required(kind)}
        return {item.name: item.name in needed for item in fields(kind) if item.init and item.name != "model"}

    def maker(
        self, index: int, choice: ExplainerChoice, parameters: Mapping[str, Any], subject: Subject
    ) -> Maker | None:
        """A maker of the explainer for a layer, or None if its parameters are not right."""
        keys: KeyPath = ("explainers", index)
        make = self.maker_of(all_explainers()[choice.name], subject, parameters)
        given = parameters.get("baselines")
        if type(given) is not int and "baselines" in parameters and issubclass(make.kind, ExpectedGradients):
            said = f"must be a whole number, of samples to draw from the training split, but is {shown(given)}"
            self.note((*keys, "baselines"), said)
            return None
        if type(given) is int:
            try:
                make.arguments["baselines"] = self.baselines(given, subject)
            except (ValueError, LookupError) as error:
                self.note((*keys, "baselines"), error)
                return None
        try:
            make(None, ())
        except Exception as error:
            wrong = faults(lambda left_out: make(None, left_out), list(choice.parameters))
            for name, fault in wrong or [(choice.name, error)]:
                self.note((*keys, name), in_words(fault))
            return None
        return make

    def maker_of(self, kind: type[Explainer], subject: Subject, parameters: Mapping[str, Any]) -> Maker:
        """A maker that has not been tried."""
        return Maker(kind, subject, dict(parameters))

    def works(
        self,
        index: int,
        choice: ExplainerChoice,
        subject: Subject,
        layer_keys: KeyPath,
        make: Maker,
        layer: str | None,
    ) -> bool:
        """Whether the explainer gets through a rehearsal on the first sample, but for what is no fault of the settings.

        Some parameters, such as ``output_layer`` and ``n_classes``, and whether the model ever runs a layer, can only
        be judged with the model and a sample. Without this a run would find it explainer by explainer, after hours.
        """
        if not subject.indices:
            return False
        first = subject.indices[0]

        def attempt(left_out: Collection[str]) -> None:
            make.rehearse(None if _LAYERS in left_out else layer, left_out, first)

        wrong = faults(attempt, [*choice.parameters, *([] if layer is None else [_LAYERS])])
        for name, error in wrong:
            said = in_words(error)
            said = f"{subject.name}: {said}" if len(self.settings.model) > 1 else said
            self.note(layer_keys if name == _LAYERS else ("explainers", index, name), said)
        return not wrong

    def baselines(self, count: int, subject: Subject) -> torch.Tensor:
        """Samples of the training split, drawn by the run's seed."""
        choice = self.settings.data.model_copy(update={"split": "train"})
        inputs = load_data(choice, subject.data.name, self.code).inputs
        if not 1 <= count <= len(inputs):
            raise ValueError(f"baselines must be from 1 to {len(inputs)}, the samples to draw from, but is {count}")
        generator = torch.Generator().manual_seed(self.settings.seed)
        return inputs[torch.randperm(len(inputs), generator=generator)[:count]]

    def layers(
        self, index: int, choice: ExplainerChoice, module: nn.Module, name: str
    ) -> Iterator[tuple[KeyPath, str | None]]:
        """The layers to explain of one model, those that it has, each with its place in the configuration."""
        own = [name] if name in choice.layers else []
        listed = choice.layers_of(name)
        for position, layer in enumerate(listed):
            keys: KeyPath = ("explainers", index, "layers", *own, position)
            if layer in listed[:position]:
                self.note(keys, f"the layer {layer!r} is listed twice")
                continue
            try:
                if layer is not None:
                    resolve(module, layer)
            except (LookupError, ValueError, TypeError) as error:
                said = error.args[0] if error.args else one_line(error)
                self.note(keys, f"{name}: {said}" if len(self.settings.model) > 1 else said)
                continue
            yield keys, layer
