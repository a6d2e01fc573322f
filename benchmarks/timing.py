"""Timing things that are compared in turns, so that what else the machine does meets them alike."""

import gc
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

CLOCKS: dict[str, Callable[[], float]] = {"cpu": time.process_time, "wall": time.perf_counter}
"""Processor time of this process, which other processes disturb little; or the time on the wall."""


@dataclass(frozen=True)
class Pace:
    """How long things are timed.

    Args:
        seconds: for each row of a table. Turns are taken until it is spent.
        rounds: so many turns at least.
        clock: "cpu" or "wall".
    """

    seconds: float = 20.0
    rounds: int = 3
    clock: str = "cpu"


@dataclass(frozen=True)
class Ratio:
    """The ratio of two durations, from pairs timed next to each other: its median and quartiles."""

    low: float
    median: float
    high: float
    pairs: int

    @classmethod
    def of(cls, durations: Sequence[float], reference: Sequence[float]) -> "Ratio":
        """How many times longer ``durations`` are than ``reference``, taken in the same turns."""
        ratios = [one / other for one, other in zip(durations, reference, strict=True)]
        if len(ratios) == 1:
            return cls(ratios[0], ratios[0], ratios[0], 1)
        low, median, high = statistics.quantiles(ratios, n=4, method="inclusive")
        return cls(low, median, high, len(ratios))

    def __str__(self) -> str:
        return f"{self.median:.3f} ({self.low:.3f} to {self.high:.3f})"


def in_turns(contestants: Mapping[str, Callable[[], object]], pace: Pace) -> dict[str, list[float]]:
    """The durations of each contestant in seconds, one a turn.

    Each runs once beforehand, which warms it up. Every turn runs all of them, in the opposite order of the one before,
    so that a machine that gets slower or faster all the while favours none. As with ``timeit``, Python's search for
    cycles of objects waits until a turn is over: it takes longer the more libraries are loaded, whoever sets it off.
    """
    now = CLOCKS[pace.clock]
    durations: dict[str, list[float]] = {name: [] for name in contestants}
    started = time.perf_counter()
    for run in contestants.values():
        run()
    # The warm-up has told how long a turn takes: another one is begun only if it should end in time.
    turn = time.perf_counter() - started
    order = list(contestants)
    began = time.perf_counter()
    while len(durations[order[0]]) < pace.rounds or time.perf_counter() - began + turn < pace.seconds:
        for name in order:
            with _no_collection():
                start = now()
                contestants[name]()
                durations[name].append(now() - start)
        order.reverse()
    return durations


@contextmanager
def _no_collection() -> Iterator[None]:
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
