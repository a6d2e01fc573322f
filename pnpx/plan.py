"""From settings to the work to do: models, samples and explainers, everything checked before anything is explained."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pnpx.checker import Checker
from pnpx.config import parse, unique
from pnpx.engines import Engine, engine
from pnpx.metricplan import Note, metrics_of
from pnpx.metrics import Metric
from pnpx.recommender import Recommendation
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
    metrics: Mapping[str, Metric] = field(default_factory=dict)
    """Those that judge the explanations, by the names that they go by in tables."""
    recommendations: Mapping[str, Sequence[tuple[str | None, Sequence[Recommendation]]]] = field(default_factory=dict)
    """By model: what was recommended at which place, where the configuration leaves that to pnpx."""
    engine: Engine | None = None
    """Who does the explaining, beside this process."""
    given: tuple[Path, tuple[str, ...], bool] = (Path(), (), False)
    """What `plan` made it of: the configuration, its overrides, and whether factories may run."""

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
    checker = _read(path, overrides, allow_code)
    settings, source = checker.settings, checker.source
    folder = checker.output(output)
    subjects = checker.subjects()
    metrics = metrics_of(settings, reads_texts(settings), checker.note)
    workers = _engine(settings, checker.note)
    tasks = list(checker.tasks(subjects))
    if checker.problems:
        raise ConfigError(unique(checker.problems))
    given = path, tuple(overrides), allow_code
    return Plan(settings, source.yaml, folder, subjects, tasks, metrics, checker.recommendations, workers, given)


def recommendations(
    path: Path, overrides: Sequence[str] = (), allow_code: bool = False
) -> list[tuple[Subject, Sequence[Recommendation]]]:
    """Which explainers suit each model of the configuration ``path`` at its inputs, and why, tried on its first sample.

    The explainers that the configuration names, and its folder for the results, do not matter.

    Raises:
        ConfigError: with one line for each problem, as `plan`.
    """
    checker = _read(path, overrides, allow_code)
    subjects = checker.subjects()
    if checker.problems:
        raise ConfigError(unique(checker.problems))
    return [(subject, checker.recommended(subject, None)) for subject in subjects]


def _engine(settings: Settings, note: Note) -> Engine | None:
    """The engine of a run; None, and a problem noted, if it is not right."""
    choice = settings.engine
    if choice is None:
        return None
    try:
        return engine(choice.name, **choice.parameters)
    except LookupError as error:
        note(("engine", "name"), error)
    except (TypeError, ValueError) as error:
        wrong = next((name for name in choice.parameters if name in str(error)), None)
        note(("engine",) if wrong is None else ("engine", wrong), error)
    return None


def _read(path: Path, overrides: Sequence[str], allow_code: bool) -> Checker:
    """What turns the configuration into work, with the problems that there are in it as it is written."""
    settings, source, problems = parse(path, overrides)
    if settings is None:
        raise ConfigError(problems)
    # Beside a pipe there is nothing.
    beside = path.parent if path.is_file() else Path()
    return _checker(settings, source, Code(beside, allow_code), problems)


def _checker(settings: Settings, source: Source, code: Code, problems: list[str]) -> Checker:
    """What turns the settings into work: for models that read texts it is another."""
    if reads_texts(settings):
        return TextChecker(settings, source, code, problems)
    checker = Checker(settings, source, code, problems)
    for keys in for_texts_only(settings):
        checker.note(keys, "is for models that read texts, and the model of this run is none")
    return checker
