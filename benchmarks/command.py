"""The command line that all benchmarks share."""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks.subjects import SIZES
from benchmarks.table import Table, facts
from benchmarks.timing import CLOCKS, Pace


@dataclass(frozen=True)
class Options:
    """What a benchmark may be told.

    ``size`` is that of the models' inputs; ``n_iter`` the numbers of noisy samples; ``kinds`` the explainers timed at
    the input; ``layers`` those timed elsewhere, None: all that a model is cut at.
    """

    pace: Pace
    size: str = "small"
    n_iter: tuple[int, ...] = (20, 50)
    models: tuple[str, ...] = ("resnet18", "bert", "lstm")
    kinds: tuple[str, ...] = ("SmoothGrad", "SquareGrad", "VarGrad")
    layers: tuple[str, ...] | None = None


def main(make: Callable[[Options], list[Table]], summary: str, arguments: Sequence[str] | None = None) -> None:
    """Make tables as the command line says, print them, and write them to a file if one is named."""
    standard = Options(Pace())
    parser = argparse.ArgumentParser(description=summary, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--threads", type=int, default=1, help="of PyTorch")
    parser.add_argument("--seconds", type=float, default=standard.pace.seconds, help="to time each row")
    parser.add_argument("--rounds", type=int, default=standard.pace.rounds, help="the fewest turns for each row")
    parser.add_argument("--clock", choices=CLOCKS, default=standard.pace.clock, help="what is timed")
    parser.add_argument("--size", choices=SIZES, default=standard.size, help="of the models' inputs")
    parser.add_argument("--n-iter", type=int, nargs="+", default=standard.n_iter, help="noisy samples")
    parser.add_argument("--models", nargs="+", choices=standard.models, default=standard.models, help="which of them")
    parser.add_argument("--layers", nargs="+", help="which of them, such as layer4; by default all")
    parser.add_argument("--output", type=Path, help="a Markdown file to write")
    given = parser.parse_args(arguments)
    torch.set_num_threads(given.threads)
    pace = Pace(given.seconds, given.rounds, given.clock)
    layers = None if given.layers is None else tuple(given.layers)
    tables = make(Options(pace, given.size, tuple(given.n_iter), tuple(given.models), layers=layers))
    text = f"{facts(given.clock)}\n\n" + "\n".join(table.markdown() for table in tables)
    print(f"\n{text}")
    if given.output:
        given.output.write_text(text, encoding="utf-8")
