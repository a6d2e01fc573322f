"""All tables in one run: ``python -m benchmarks [--output FILE]``."""

from dataclasses import replace

from benchmarks.command import TIMED, Options, main
from benchmarks.error import error
from benchmarks.imports import imports
from benchmarks.layers import layers
from benchmarks.memory import memory
from benchmarks.refusals import refusals
from benchmarks.speed import speed
from benchmarks.table import Table
from benchmarks.text import text
from benchmarks.timing import Pace


def everything(options: Options) -> list[Table]:
    """Every table."""
    # The last model is the quick one: it alone is timed with each statistic and each number of noisy samples.
    thorough = replace(options, models=options.models[-1:])
    once = replace(options, models=options.models[:-1], n_iter=options.n_iter[:1], kinds=options.kinds[:1])
    tables = []
    for make in (speed, layers):
        for part in (once, thorough):
            tables += make(part)
    return [*tables, *text(options), *refusals(options), *memory(options), *error(options), *imports(options)]


if __name__ == "__main__":
    # Less time for each row than the commands of their own take.
    main(everything, __doc__, (*TIMED, "size", "n_iter", "models"), Pace(seconds=4.0, rounds=2))
