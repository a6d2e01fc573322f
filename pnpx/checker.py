"""The checks on the way from settings to work: every problem of a configuration, found before anything is explained."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from torch import nn

from pnpx import zoo
from pnpx.attributors.places import resolve
from pnpx.detector import detect
from pnpx.explainers import Explainer, all_explainers
from pnpx.explainers.expected import ExpectedGradients
from pnpx.faults import faults, in_words
from pnpx.maker import Maker, required
from pnpx.modality import modality_of
from pnpx.parameters import as_plain
from pnpx.recommender import Recommendation, recommend
from pnpx.removal import removal_of
from pnpx.schema import AUTO, EVERY_MODEL, ExplainerChoice
from pnpx.source import shown
from pnpx.store import Names
from pnpx.subjectchecker import SubjectChecker, known_models
from pnpx.subjects import Data, Subject, one_line
from pnpx.suggest import nearest
from pnpx.tasks import Task, TensorTask
from pnpx.yamltree import KeyPath

_LAYERS = "layers"

BACKGROUND = 20
"""How many samples of the training split stand for the data, for explainers that compare with it."""


@dataclass(frozen=True)
class Checker(SubjectChecker):
    """Collects the problems of a configuration while it is turned into work."""

    recommendations: dict[str, list[tuple[str | None, Sequence[Recommendation]]]] = field(default_factory=dict)
    """By model: what was recommended at which place, where the configuration leaves that to pnpx."""

    def tasks(self, subjects: Sequence[Subject]) -> Iterator[Task]:
        """Each explainer at each place of each model; where one is not right, the problem is noted instead."""
        chosen: list[tuple[int, ExplainerChoice, dict[str, Any]]] = []
        for index, choice in enumerate(self.settings.explainers):
            self.models_of_layers(index, choice)
            parameters = self.parameters(index, choice)
            if parameters is not None:
                chosen.append((index, choice, parameters))
        for subject in subjects:
            explainer_names, removal = Names(), self.removal(subject)
            for index, choice, parameters in chosen:
                if choice.name == AUTO:
                    yield from self.recommended_tasks(index, choice, subject, explainer_names, removal)
                    continue
                folder, layer_names = explainer_names.new(choice.name), Names()
                make = self.maker(index, choice, parameters, subject)
                if make is None:
                    continue
                for keys, layer in self.layers(index, choice, subject.module, subject.name):
                    place = layer_names.new("inputs" if layer is None else layer)
                    if self.works(index, choice, subject, keys, make, layer):
                        explainer = make(layer, ())
                        where = f"{subject.folder}/{folder}/{place}"
                        yield TensorTask(subject, explainer, parameters, layer, where, removal)

    def recommended_tasks(
        self,
        index: int,
        choice: ExplainerChoice,
        subject: Subject,
        explainer_names: Names,
        removal: Mapping[str, Any],
    ) -> Iterator[Task]:
        """Each explainer that is recommended at each place of a model, but those that the configuration names."""
        named = {other.name for other in self.settings.explainers}
        folders: dict[str, tuple[str, Names]] = {}
        for keys, layer in self.layers(index, choice, subject.module, subject.name):
            found = self.recommended(subject, layer) if subject.indices else []
            suits = {**removal, **removal_of(found)}
            self.recommendations.setdefault(subject.name, []).append((layer, found))
            if subject.indices and not any(one.picked for one in found):
                reasons = dict.fromkeys(one.reason for one in found)
                self.note(keys, f"no explainer suits {subject.name}: {'; '.join(reasons)}")
            for one in found:
                if not one.picked or one.name in named:
                    continue
                if one.name not in folders:
                    folders[one.name] = explainer_names.new(one.name), Names()
                folder, layer_names = folders[one.name]
                place = layer_names.new("inputs" if one.layer is None else one.layer)
                said = {name: as_plain(value) for name, value in one.parameters.items()}
                yield TensorTask(subject, one.explainer, said, one.layer, f"{subject.folder}/{folder}/{place}", suits)

    def removal(self, subject: Subject) -> Mapping[str, Any]:
        """What metrics take away of the samples of a model, where they do not say it themselves."""
        if not isinstance(subject.data, Data):
            return {}
        modality = modality_of([subject.data.inputs[:1]], detect(subject.module), subject.data.kind)
        return {} if modality.groups is None else {"groups": modality.groups}

    def recommended(self, subject: Subject, layer: str | None) -> Sequence[Recommendation]:
        """Which explainers are recommended for a model at a place, and why, tried out on the first sample."""
        data: Any = subject.data
        try:
            background = self.baselines(BACKGROUND, subject)
        except (ValueError, LookupError, ImportError):  # there is no training split, or it has fewer
            background = None
        return recommend(
            subject.module,
            data.take(subject.indices[:1]),
            modality=data.kind,
            background=background,
            seed=self.settings.seed,
            layer=layer,
        )

    def models_of_layers(self, index: int, choice: ExplainerChoice) -> None:
        """Note the models for which an explainer has layers, and that there are not."""
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

    def parameters(self, index: int, choice: ExplainerChoice) -> dict[str, Any] | None:
        """What an explainer is made with beside model and layer, or None if there is no such explainer or parameter."""
        known = all_explainers()
        keys: KeyPath = ("explainers", index)
        if choice.name == AUTO:
            for name in choice.parameters:
                self.note((*keys, name), f"{AUTO!r} takes no parameters; name the explainer that {name!r} is of")
            return {}
        if choice.name not in known:
            self.note((*keys, "name"), f"there is no explainer {choice.name!r}; {nearest(choice.name, [*known, AUTO])}")
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
