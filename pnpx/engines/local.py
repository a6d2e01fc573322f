"""Several processes on this machine."""

import os
import signal
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context, resource_tracker
from multiprocessing.connection import Connection, wait
from typing import Any

from pnpx.engines.base import Done, Engine, Job, Saved, Tally, work
from pnpx.parameters import require_count

PATIENCE = 5.0
"""So many seconds a process that is to end has for it, before it is killed."""

DEATHS = 3
"""After so many deaths in a row, without a job done in between, a worker is not replaced any more."""


@dataclass(frozen=True)
class Local(Engine):
    """Processes on this machine, each with its own copy of the models and its share of the processor cores.

    A process that dies, as one does that takes too much memory, loses the job that it had and no other, and another one
    takes its place. In a script the run must stand under ``if __name__ == "__main__":``, since each process reads it.

    Args:
        workers: how many processes; None: as many as there are cores.
    """

    workers: int | None = None

    def __post_init__(self) -> None:
        if self.workers is not None:
            require_count("workers", self.workers, 1)

    def explain(self, jobs: Sequence[Job], advance: Callable[[int], object]) -> set[Saved]:
        tally, waiting, workers = Tally(advance), deque(jobs), self.workers or cores()
        threads = max(1, cores() // workers)
        crew = [_Worker(threads) for _ in range(min(workers, len(jobs)))]
        try:
            while True:
                for worker in crew:
                    while waiting and worker.job is None and worker.deaths < DEATHS:
                        job = waiting.popleft()
                        if (lost := worker.give(job)) is not None:
                            tally.note(job, lost)
                busy = [worker for worker in crew if worker.job is not None]
                if not busy:
                    break
                wait([one for worker in busy for one in worker.signs])
                for worker in busy:
                    begun = worker.job
                    if begun is not None and (outcome := worker.outcome()) is not None:
                        tally.note(begun, outcome)
        finally:
            for worker in crew:
                worker.dismiss()
            for worker in crew:
                worker.end()
        for job in waiting:
            tally.note(job, "no worker is left")
        return tally.close(len(jobs))


def cores() -> int:
    """How many processor cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class _Worker:
    """A process that does one job after the other, started for the first, and anew for the next where it has died."""

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self.job: Job | None = None
        self.deaths = 0
        self._process: Any = None
        self._pipe: Any = None

    @property
    def signs(self) -> list[Connection | int]:
        """What is ready once there is an outcome, or the process has died."""
        return [] if self._pipe is None else [self._pipe, self._process.sentinel]

    def give(self, job: Job) -> str | None:
        """Have a job begun; what went wrong if that is not possible."""
        try:
            if self._pipe is None or not self._process.is_alive():
                self._start()
            self._pipe.send(job)
        except OSError as error:
            return self._bury(f"it could not be given to a worker: {error}")
        self.job = job
        return None

    def outcome(self) -> Done | str | None:
        """What came of the job; None if it is still being done."""
        if self._pipe is None:
            return None
        try:
            if self._pipe.poll():
                outcome: Done | str = self._pipe.recv()
                self.job, self.deaths = None, 0
                return outcome
        except (EOFError, OSError):
            self._process.join(PATIENCE)
        if self._process.is_alive():
            return None
        return self._bury(f"the process died, exit code {self._process.exitcode}")

    def dismiss(self) -> None:
        """Let the process end, now if it has a job."""
        if self._pipe is not None:
            self._pipe.close()
            if self.job is not None:
                self._process.terminate()

    def end(self) -> None:
        """Wait until it has ended, and kill it if that takes too long."""
        if self._process is not None:
            self._process.join(PATIENCE)
            if self._process.is_alive():
                self._process.kill()
                self._process.join()

    def _start(self) -> None:
        context = get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=_serve, args=(theirs, self.threads), name="pnpx worker")
        resource_tracker.ensure_running()  # the start of which, in here, would let Ctrl-C through again
        with _deaf():
            process.start()
            self._process, self._pipe = process, ours  # before Ctrl-C is heard again, so that it is ended then
        theirs.close()  # so that the pipe ends with the process

    def _bury(self, reason: str) -> str:
        if self._pipe is not None:
            self._pipe.close()
        self.job, self._pipe, self.deaths = None, None, self.deaths + 1
        return reason


@contextmanager
def _deaf() -> Iterator[None]:
    """What starts in here never hears of Ctrl-C, which a terminal sends to all of its processes."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _serve(pipe: Connection, threads: int) -> None:
    """What a process does: jobs, until there are no more or who gave them is gone."""
    import torch

    # Ended by an exception, it leaves no half-written file.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    torch.set_num_threads(threads)
    while True:
        try:
            job = pipe.recv()
        except (EOFError, OSError):
            return
        outcome: Done | str
        try:
            outcome = work(job)
        except Exception as error:  # whatever it is, the other jobs go on
            outcome = f"{type(error).__name__}: {error}"
        try:
            pipe.send(outcome)
        except OSError:
            return
