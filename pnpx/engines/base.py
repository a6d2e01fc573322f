"""What an engine is: it has the jobs of a run done by others, who save what they explain in the run's folder.

No tensors are moved. A job is plain data, from which a worker makes the same plan as the process that runs all; what it
explains it saves, known by its fingerprint, and there that process finds it as it would find what an earlier run made.
"""

import builtins
import os
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from pnpx.fingerprint import digest
from pnpx.store import Store

if TYPE_CHECKING:
    from pnpx.plan import Plan
    from pnpx.tasks import Task

Saved: TypeAlias = tuple[str, int]
"""An explanation in the run's folder: the ``folder`` of its task, and the index of the sample."""


@dataclass(frozen=True)
class Job:
    """Some samples for one explainer at one place of one model, in words that any machine understands.

    Args:
        config: the path of the configuration, absolute.
        overrides: changes to it, each ``"key.path=value"``.
        output: the folder of the results, absolute.
        allow_code: whether factories named in the configuration may run.
        current: the current folder of the run, in which files and modules are looked for as well.
        force: judge anew what was judged before.
        settings: a fingerprint of the configuration as it is run, so that no job is done by another one.
        task: the ``folder`` of the task, by which it is known.
        indices: the samples.
    """

    config: str
    overrides: tuple[str, ...]
    output: str
    allow_code: bool
    current: str
    force: bool
    settings: str
    task: str
    indices: tuple[int, ...]


@dataclass(frozen=True)
class Done:
    """What came of a job: what it saved, and the warnings in it, each text with the name of its class."""

    saved: tuple[Saved, ...]
    warned: tuple[tuple[str, str], ...] = ()


class Engine(ABC):
    """Has jobs done by others than the process that asks for it."""

    @abstractmethod
    def explain(self, jobs: Sequence[Job], advance: Callable[[int], object]) -> set[Saved]:
        """Have all jobs done; return when each is done or has failed, and then say what was saved.

        A job, or a sample, that fails ends nothing: what is missing in the end, the run itself makes, or reports why it
        cannot. A warning says how many jobs were lost as a whole, and how the first of them.

        Args:
            jobs: what is to be done, by workers that may be at it at the same time.
            advance: told the number of samples in a job, once that is done or lost.

        Raises:
            ImportError: the package behind the engine is not installed.
            ConnectionError: the machines cannot be reached.
        """


def jobs(
    plan: "Plan", config: Path, overrides: Sequence[str] = (), allow_code: bool = False, force: bool = False
) -> list[Job]:
    """The jobs of a run, at most ``batch_size`` samples each: all that the folder does not have, or all if ``force``.

    A configuration that is no file, such as a pipe, cannot be read by workers as well: it has no jobs.

    Args:
        plan: what `pnpx.plan.plan` made of the other arguments.
        config: the path of the configuration.
        overrides: changes to it.
        allow_code: whether factories named in it may run.
        force: explain again what was finished before.
    """
    from pnpx import __version__

    if not config.is_file():
        warnings.warn(f"{config} can be read only once, so that no workers can share in this run; give a file",
                      stacklevel=2)
        return []
    store, size, found = Store(plan.output), plan.settings.batch_size, list[Job]()
    # The path as it was given, links and all: other files are looked for beside it.
    whole = os.path.abspath(config), tuple(overrides), os.path.abspath(plan.output), allow_code
    shared = *whole, os.getcwd(), force, digest(plan.yaml)
    for task in plan.tasks:
        wanted = [
            index
            for index in task.subject.indices
            if force or store.find(task.name(index), task.fingerprint(index, __version__), task.record) is None
        ]
        chunks = (wanted[start : start + size] for start in range(0, len(wanted), size))
        found += [Job(*shared, task.folder, tuple(chunk)) for chunk in chunks]
    return found


def work(job: Job) -> Done:
    """Do a job, in a worker: explain its samples as the run itself would, judge them, and save all in its folder.

    Samples that cannot be explained, or judged, are left out; what is right of the others is saved.

    Raises:
        ConfigError: the configuration, read here, is not right.
        ValueError: it is another one than when the run started.
        OSError: the folder cannot be written to.
    """
    from pnpx import __version__
    from pnpx.evaluation import Evaluation
    from pnpx.rescue import explained

    if os.getcwd() != job.current and os.path.isdir(job.current):
        os.chdir(job.current)
    made_here = _plan(job.config, job.overrides, job.output, job.allow_code, job.settings)
    if isinstance(made_here, Exception):
        raise made_here
    plan, tasks = made_here
    task, store = tasks[job.task], Store(Path(job.output))
    prints = {index: task.fingerprint(index, __version__) for index in job.indices}
    with warnings.catch_warnings(record=True) as heard:
        made, _ = explained(task, job.indices)
        for index, explanation in made.items():
            store.save(task.name(index), explanation, prints[index])
        Evaluation(plan.metrics, store, job.force).of(task, made, prints)
    warned = [(str(one.message), one.category.__name__) for one in heard]
    return Done(tuple((job.task, index) for index in made), tuple(dict.fromkeys(warned)))


@lru_cache(maxsize=1)
def _plan(
    config: str, overrides: tuple[str, ...], output: str, allow_code: bool, settings: str
) -> "tuple[Plan, Mapping[str, Task]] | Exception":
    """The plan of a run, and its tasks by their folders, made once a process; or why that is not possible, tried once
    as well."""
    from pnpx.plan import plan

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the run itself has said it
            made = plan(Path(config), overrides, Path(output), allow_code)
    except Exception as error:
        return error
    if digest(made.yaml) != settings:
        return ValueError(f"{config} has changed since the run started")
    return made, {task.folder: task for task in made.tasks}


@dataclass
class Tally:
    """What an engine keeps while jobs are done: what was saved, how many were lost, and to what."""

    advance: Callable[[int], object]
    saved: set[Saved] = field(default_factory=set)
    lost: list[str] = field(default_factory=list)

    def note(self, job: Job, outcome: Done | str) -> None:
        """Note a job that is done, or to what it was lost, and say its warnings."""
        if isinstance(outcome, str):
            self.lost.append(outcome)
        else:
            self.saved |= set(outcome.saved)
            for text, kind in outcome.warned:
                category = getattr(builtins, kind, UserWarning)
                warnings.warn(text, category if issubclass(category, Warning) else UserWarning, stacklevel=2)
        self.advance(len(job.indices))

    def close(self, total: int) -> set[Saved]:
        """What was saved, of so many jobs; a warning if some were lost."""
        if self.lost:
            warnings.warn(
                f"{len(self.lost)} of {total} jobs were lost by their workers and are left to the run itself; the "
                f"first: {self.lost[0]}",
                stacklevel=3,
            )
        return self.saved
