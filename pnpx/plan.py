"""From settings to the work to do: models, samples and explainers, everything checked before anything is explained."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pnpx.checker import Checker
from pnpx.config import parse, unique
from pnpx.schema import Settings
from pnpx.source import ConfigError, Source
from pnpx.subjects import Code, Subject
from pnpx.tasks import Task
from pnpx.textplan import TextChecker, for_texts_only, reads_texts


@dataclass(frozen=True, eq=False)
class Plan:
    """What a run is to do."""

    settings: Settings
    yaml: str
    output: Path
    subjects: Sequence[Subject]
    tasks: Sequence[Task]

    def __len__(self) -> int:
        return sum(len(task.subject.indices) for task in self.tasks)


def plan(path: Path, overrides: Sequence[str] = (), output: Path | None = None, allow_code: bool = False) -> Plan:
    """Read the configuration ``path``, load what it names, and find every problem in it.

    Args:
        path: a YAML file.
        overrides: changes, each ``"key.path=value"``.
        output: the folder to write to, instead of the one in the configuration.
        allow_code: whether factories named in the configuration may run.

    Raises:
        ConfigError: with one line for each problem, its place and the nearest name.
    """
    settings, source, problems = parse(path, overrides)
    if settings is None:
        raise ConfigError(problems)
    # Beside a pipe there is nothing.
    beside = path.parent if path.is_file() else Path()
    checker = _checker(settings, source, Code(beside, allow_code), problems)
    folder = checker.output(output)
    subjects = checker.subjects()
    tasks = list(checker.tasks(subjects))
    if checker.problems:
        raise ConfigError(unique(checker.problems))
    return Plan(settings, source.yaml, folder, subjects, tasks)


def _checker(settings: Settings, source: Source, code: Code, problems: list[str]) -> Checker:
    """What turns the settings into work: for models that read texts it is another."""
    if reads_texts(settings):
        return TextChecker(settings, source, code, problems)
    checker = Checker(settings, source, code, problems)
    for keys in for_texts_only(settings):
        checker.note(keys, "is for models that read texts, and the model of this run is none")
    return checker
