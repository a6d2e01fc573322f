"""Tables in Markdown, and the facts about the machine that belong to them."""

import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import metadata

import torch


@dataclass
class Table:
    """A table with a title, and notes that say what was measured. Rows are printed as they come."""

    title: str
    header: Sequence[str]
    notes: Sequence[str] = ()
    rows: list[Sequence[str]] = field(default_factory=list)

    def add(self, *cells: object) -> None:
        """Add a row, and print it: some take a while."""
        row = [str(cell) for cell in cells]
        if len(row) != len(self.header):
            raise ValueError(f"a row of {self.title!r} needs {len(self.header)} cells, but got {len(row)}")
        if not self.rows:
            print(f"\n{self.title}\n{' | '.join(self.header)}", flush=True)
        print(" | ".join(row), flush=True)
        self.rows.append(row)

    def markdown(self) -> str:
        """The table as Markdown, under a heading."""
        lines = [f"## {self.title}", "", *[f"{note}\n" for note in self.notes]]
        lines += [_line(self.header), _line(["---"] * len(self.header)), *map(_line, self.rows)]
        return "\n".join(lines) + "\n"


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def facts(clock: str | None = None) -> str:
    """The versions and the processor in one line."""
    versions = []
    for name in ("torch", "captum", "transformers", "torchvision"):
        try:
            versions.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            versions.append(f"no {name}")
    parts = [
        f"Python {platform.python_version()}",
        *versions,
        f"{platform.system()} {platform.machine()}",
        f"{os.cpu_count()} cores",
        f"{torch.get_num_threads()} thread{'s' * (torch.get_num_threads() > 1)}",
    ]
    if clock is not None:
        parts.append({"cpu": "processor time", "wall": "wall time"}[clock])
    return ", ".join(parts)
