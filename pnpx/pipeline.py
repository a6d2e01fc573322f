"""A run: explain, save, draw, collect, report. What was finished before is not done again."""

import sys
import traceback
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from pnpx.atomic import write_whole
from pnpx.detector import detect
from pnpx.engines import Saved, jobs
from pnpx.evaluation import Evaluation
from pnpx.fingerprint import digest
from pnpx.panels import Output
from pnpx.plan import Plan
from pnpx.report.drawing import drawn
from pnpx.rescue import explained
from pnpx.scoreboard import Scoreboard
from pnpx.store import CONFIG, Record, Store
from pnpx.subjects import Subject, one_line
from pnpx.tables import write_scores
from pnpx.tasks import Task
from pnpx.text.samples import TextSamples
from pnpx.versions import versions

if TYPE_CHECKING:
    from pnpx.ranking import Ranking
    from pnpx.report import Failure, Panel, Sample, Section

NAMED = 20
"""Up to so many samples that could not be explained are named one by one; the page names them all."""
REPORT, FAILURES, SCORES = "report.html", "failures.txt", "scores.parquet"


@dataclass(frozen=True)
class Outcome:
    """What came of a run: the page, how many explanations were made now and found finished, what failed, and the
    rankings, each with where it is of, in words."""

    report: Path
    made: int
    found: int
    failures: Sequence["Failure"]
    rankings: Sequence[tuple[str, "Ranking"]] = ()


def run(plan: Plan, force: bool = False, quiet: bool = False, now: Callable[[], datetime] = datetime.now) -> Outcome:
    """Do what ``plan`` says and write its folder: attributions, a picture of each, and ``report.html``.

    An explainer that fails is listed in the report, its traceback in ``failures.txt``, and the others go on. What the
    folder already has, with the same fingerprint, is kept unless ``force``. ``now`` dates the report.

    Raises OSError if the folder cannot be written to.
    """
    from tqdm.auto import tqdm

    plan.output.mkdir(parents=True, exist_ok=True)
    saved = _shared_out(plan, force, quiet)
    with tqdm(total=len(plan), unit=" explanations", disable=quiet, file=sys.stderr, dynamic_ncols=True) as bar:
        store = Store(plan.output)
        evaluation = Evaluation(plan.metrics, store, force, saved)
        work = _Work(plan, store, evaluation, Scoreboard(plan), force, saved, bar.update)
        for task in plan.tasks:
            bar.set_description(str(task))
            work.explain(task)
        bar.set_description("report")
        report = work.report(now())
    rankings = [
        (f"{'the inputs' if layer is None else layer} of {subject.name}{units and f', by {units}'}", ranking)
        for subject in plan.subjects
        for layer, units, ranking in work.scoreboard.rankings(subject)
    ]
    return Outcome(report, work.made, work.found, work.failures, rankings)


def _shared_out(plan: Plan, force: bool, quiet: bool) -> Set[Saved]:
    """Have an engine explain what there is to do, if the configuration names one; what its workers saved."""
    from tqdm.auto import tqdm

    if plan.engine is None:
        return frozenset()
    todo = jobs(plan, *plan.given, force=force)
    total = sum(len(job.indices) for job in todo)
    with tqdm(total=total, desc="workers", unit=" explanations", disable=quiet, file=sys.stderr, leave=False,
              dynamic_ncols=True) as bar:
        return plan.engine.explain(todo, bar.update)


@dataclass
class _Work:
    """A run as it goes on. Only what the page says of an explanation is kept, and not the explanation."""

    plan: Plan
    store: Store
    evaluation: Evaluation
    scoreboard: Scoreboard
    force: bool
    saved: Set[Saved]
    """What the workers of an engine made already."""
    advance: Callable[[int], object]
    made: int = 0
    found: int = 0
    panels: dict[tuple[Subject, int], list["Panel"]] = field(default_factory=dict)
    outputs: dict[tuple[Subject, int], Output] = field(default_factory=dict)
    missing: dict[tuple[Subject, int], list["Failure"]] = field(default_factory=dict)
    failures: list["Failure"] = field(default_factory=list)
    tracebacks: list[str] = field(default_factory=list)

    def explain(self, task: Task) -> None:
        """Find or make, save and draw the explanations of a task."""
        indices, missing, undrawn = task.subject.indices, dict[int, Exception](), list[Exception]()
        unjudged: dict[str, Exception] = {}
        for start in range(0, len(indices), self.plan.settings.batch_size):
            some = indices[start : start + self.plan.settings.batch_size]
            prints = {index: task.fingerprint(index, versions()["pnpx"]) for index in some}
            explanations = self._find_or_make(task, prints, missing)
            self.advance(len(some) - len(explanations))
            judged, failed = self.evaluation.of(task, explanations, prints)
            self.scoreboard.note(task, explanations, judged)
            unjudged |= failed
            for index, explanation in explanations.items():
                self._note_sample(task, index, explanation)
                picture = self.store.picture(task.name(index))
                if error := drawn(explanation.plot, picture):
                    undrawn.append(error)
                else:
                    self.panels.setdefault((task.subject, index), []).append(task.panel(explanation, picture))
                self.advance(1)
        for message in dict.fromkeys(map(one_line, missing.values())):
            alike = [index for index in indices if index in missing and one_line(missing[index]) == message]
            failure = self._note_failure(task, _which(alike, len(indices)), missing[alike[0]])
            for index in alike:
                self.missing.setdefault((task.subject, index), []).append(replace(failure, message=message))
        if undrawn:
            self._note_failure(task, "pictures", undrawn[0])
        for metric, error in unjudged.items():
            self._note_failure(task, f"judged by {metric}", error)

    def report(self, created: datetime) -> Path:
        """Write the page, the configuration as run, and the tracebacks of what failed."""
        from pnpx.report import Report, render

        settings, folder = self.plan.settings, self.plan.output
        write_whole(folder / CONFIG, self.plan.yaml.encode())
        if self.tracebacks:
            write_whole(folder / FAILURES, "\n".join(self.tracebacks).encode())
        else:
            (folder / FAILURES).unlink(missing_ok=True)
        if self.plan.metrics:
            write_scores(folder / SCORES, self.scoreboard.rows)
        else:
            (folder / SCORES).unlink(missing_ok=True)
        page = Report(
            title=settings.title or "Explanations of " + ", ".join(subject.name for subject in self.plan.subjects),
            created=created.isoformat(sep=" ", timespec="minutes"),
            settings=self.plan.yaml,
            sections=[self._section(subject) for subject in self.plan.subjects],
            failures=self.failures,
            versions=versions(),
        )
        render(page, folder / REPORT)
        return folder / REPORT

    def _find_or_make(
        self, task: Task, prints: Mapping[int, str], missing: dict[int, Exception]
    ) -> dict[int, Record]:
        """The explanations of some samples by index; those that cannot be made are noted in ``missing``."""
        explanations: dict[int, Record] = {}
        for index in prints:
            if self.force and (task.folder, index) not in self.saved:
                continue
            explanation = self.store.find(task.name(index), prints[index], task.record)
            if explanation is not None:
                explanations[index] = explanation
        shared = sum((task.folder, index) in self.saved for index in explanations)
        self.made += shared
        self.found += len(explanations) - shared
        if wanted := [index for index in prints if index not in explanations]:
            made, failed = explained(task, wanted)
            missing |= failed
            for index, explanation in made.items():
                self.store.save(task.name(index), explanation, prints[index])
                self.made += 1
            explanations |= made
        return explanations

    def _note_sample(self, task: Task, index: int, explanation: Record) -> None:
        """Note what the model says of a sample, and draw the sample, if that has not been done."""
        subject = task.subject
        if (subject, index) not in self.outputs:
            self.outputs[subject, index] = task.output(explanation)
            figure = task.input_figure(explanation)
            if figure is not None:
                picture, fingerprint = self._sample_picture(subject, index)
                drawn(figure, picture, fingerprint, again=self.force)

    def _sample_picture(self, subject: Subject, index: int) -> tuple[Path, str]:
        """Where the picture of a sample is kept, and the fingerprint of what it shows.

        The same place may have had another sample: of another split, or of data that have changed since.
        """
        fingerprint = digest("sample", versions()["pnpx"], *subject.data.identity(index))
        return self.store.picture(f"{subject.folder}/samples/{index:04d}"), fingerprint

    def _note_failure(self, task: Task, what: str, error: Exception) -> "Failure":
        from pnpx.report import Failure

        failure = Failure(task.subject.name, task.title, task.layer, f"{what}: {one_line(error)}")
        self.failures.append(failure)
        self.tracebacks.append(f"{task}, {what}\n" + "".join(traceback.format_exception(error)))
        return failure

    def _section(self, subject: Subject) -> "Section":
        from pnpx.report import Section

        return Section(
            model=subject.name,
            architecture=subject.architecture,
            n_parameters=subject.n_parameters,
            data=subject.data.name,
            accuracy=subject.accuracy,
            samples=[self._sample(subject, index) for index in subject.indices],
            detected=str(detect(subject.module)),
            rankings=self.scoreboard.rankings(subject),
            recommendations=self.plan.recommendations.get(subject.name, []),
        )

    def _sample(self, subject: Subject, index: int) -> "Sample":
        from pnpx.report import Sample
        from pnpx.report.png import holds_picture

        output = self.outputs.get((subject, index), Output())
        picture, fingerprint = self._sample_picture(subject, index)
        return Sample(
            index=index,
            input_png=picture if holds_picture(picture, fingerprint) else None,
            label=subject.data.label(index),
            prediction=output.what,
            probability=output.probability,
            panels=self.panels.get((subject, index), []),
            how=output.how,
            missing=self.missing.get((subject, index), []),
            texts=subject.data.inputs[index].texts if isinstance(subject.data, TextSamples) else (),
        )


def _which(indices: Sequence[int], n_samples: int) -> str:
    """In words, which of so many samples these are."""
    named = ", ".join(map(str, indices[:NAMED])) + (f" and {len(indices) - NAMED} more" if len(indices) > NAMED else "")
    numbers = "" if len(indices) == n_samples else f", number{'' if len(indices) == 1 else 's'} {named}"
    return f"{len(indices)} of {n_samples} samples{numbers}"
