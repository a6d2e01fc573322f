"""The checks of the models, the data and the folder that a configuration names."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import torch

from pnpx import zoo
from pnpx.fingerprint import of_model
from pnpx.schema import ModelChoice, Settings
from pnpx.source import Source
from pnpx.store import CONFIG, Names
from pnpx.subjects import Code, Data, Subject, choose, load_data, load_model, try_out
from pnpx.suggest import nearest
from pnpx.text.pretrained import PREFIX
from pnpx.text.samples import TextSamples
from pnpx.yamltree import KeyPath
from pnpx.zoo.datasets import Split

SPLITS = get_args(Split)


def known_models(choice: ModelChoice) -> list[str]:
    """The models that a configuration may name, that of transformers included which ``choice`` may have meant."""
    _, colon, rest = str(choice.name).partition(":")
    return [*zoo.names(), *zoo.text_names(), *([PREFIX + rest] if colon else [])]


@dataclass(frozen=True)
class SubjectChecker:
    """Loads the models and samples that a configuration names, and collects its problems on the way."""

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

    def baselines(self, count: int, subject: Subject) -> torch.Tensor:
        """Samples of the training split, drawn by the run's seed."""
        choice = self.settings.data.model_copy(update={"split": "train"})
        inputs = load_data(choice, subject.data.name, self.code).inputs
        if not 1 <= count <= len(inputs):
            raise ValueError(f"baselines must be from 1 to {len(inputs)}, the samples to draw from, but is {count}")
        generator = torch.Generator().manual_seed(self.settings.seed)
        return inputs[torch.randperm(len(inputs), generator=generator)[:count]]
