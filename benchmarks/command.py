"""The command line that all benchmarks share."""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

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


TIMED = ("threads", "seconds", "rounds", "clock")
"""The options of what is timed in turns in this process."""
THOROUGH = Pace()


def main(
    make: Callable[[Options], list[Table]],
    summary: str,
    uses: Sequence[str],
    pace: Pace = THOROUGH,
    arguments: Sequence[str] | None = None,
) -> None:
    """Make tables as the command line says, print them, and write them to a file if one is named.

    ``uses`` are the options that there are beside ``--output``: those that make a difference to these tables. ``pace``
    has the defaults of those of time.
    """
    standard = Options(pace)
    known: dict[str, dict[str, Any]] = {
        "threads": {"type": int, "default": 1, "help": "of PyTorch"},
        "seconds": {"type": float, "default": pace.seconds, "help": "to time each row"},
        "rounds": {"type": int, "default": pace.rounds, "help": "the fewest turns for each row"},
        "clock": {"choices": CLOCKS, "default": pace.clock, "help": "what is timed"},
        "size": {"choices": SIZES, "default": standard.size, "help": "of the models' inputs"},
        "n_iter": {"type": int, "nargs": "+", "default": standard.n_iter, "help": "noisy samples"},
        "models": {"nargs": "+", "choices": standard.models, "default": standard.models, "help": "which of them"},
        "layers": {"nargs": "+", "help": "which of them, such as layer4; by default all"},
    }
    parser = argparse.ArgumentParser(description=summary, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    for name in uses:
        parser.add_argument("--" + name.replace("_", "-"), **known[name])
    parser.add_argument("--output", type=Path, help="a Markdown file to write")
    given = vars(parser.parse_args(arguments))
    torch.set_num_threads(given.get("threads", 1))
    pace = replace(pace, **{name: given[name] for name in ("seconds", "rounds", "clock") if name in given})
    rest = {name: given[name] for name in ("size", "n_iter", "models", "layers") if given.get(name) is not None}
    lists = {name: tuple(value) for name, value in rest.items() if name != "size"}
    tables = make(replace(standard, **{**rest, **lists, "pace": pace}))
    text = f"{facts(given.get('clock'))}\n\n" + "\n".join(table.markdown() for table in tables)
    print(f"\n{text}")
    if given["output"]:
        given["output"].write_text(text, encoding="utf-8")
