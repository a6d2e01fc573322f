"""How long ``import pnpx`` takes, beside ``import torch``. ``python -m benchmarks.imports``."""

import statistics
import subprocess
import sys
from functools import partial

from benchmarks.command import Options, main
from benchmarks.table import Table
from benchmarks.timing import Ratio, in_turns

STATEMENTS = ("import torch", "import pnpx")
_TIMED = "import time; clock = time.{clock}; start = clock(); {statement}; print(clock() - start)"


def imports(options: Options) -> list[Table]:
    """The table: each import in a fresh process, in turns."""
    table = Table(
        "Time to import",
        ["statement", "median, s", "quartiles, s", "/ import torch", "turns"],
        ["Each in a process of its own, in turns; pnpx imports torch."],
    )
    timed: dict[str, list[float]] = {statement: [] for statement in STATEMENTS}

    def take(statement: str) -> None:
        timed[statement].append(_seconds(statement, options.pace.clock))

    in_turns({statement: partial(take, statement) for statement in STATEMENTS}, options.pace)
    # The first, with cold files, does not count.
    timed = {statement: seconds[1:] for statement, seconds in timed.items()}
    for statement, seconds in timed.items():
        low, median, high = statistics.quantiles(seconds, n=4, method="inclusive")
        ratio = Ratio.of(seconds, timed[STATEMENTS[0]])
        table.add(statement, f"{median:.2f}", f"{low:.2f} to {high:.2f}", ratio, len(seconds))
    return [table]


def _seconds(statement: str, clock: str) -> float:
    name = {"cpu": "process_time", "wall": "perf_counter"}[clock]
    code = _TIMED.format(clock=name, statement=statement)
    return float(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout)


if __name__ == "__main__":
    main(imports, __doc__, ("seconds", "rounds", "clock"))
