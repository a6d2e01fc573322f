"""What metrics say of the explanations of a run, as a table that data frames read: one row a value."""

import io
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pnpx.atomic import write_whole


@dataclass(frozen=True)
class ScoreRow:
    """What one metric says of one target of one explanation."""

    model: str
    explainer: str
    parameters: Mapping[str, Any]
    """Of the explainer; in the table as JSON."""
    layer: str | None
    """None for the inputs."""
    sample: int
    """Its index in the data."""
    target: int
    """Which of the targets of the sample, from 0."""
    metric: str
    value: float
    higher_is_better: bool
    seconds: float
    """How long the sample took to be explained, in seconds."""


def write_scores(path: Path, rows: Iterable[ScoreRow]) -> None:
    """Write ``rows`` to a Parquet file, whole or not at all; pandas, polars and DuckDB read it.

    Raises OSError if it cannot be written.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns: dict[str, tuple[Any, Any]] = {
        "model": (pa.string(), lambda row: row.model),
        "explainer": (pa.string(), lambda row: row.explainer),
        "parameters": (pa.string(), lambda row: json.dumps(dict(row.parameters), sort_keys=True, default=str)),
        "layer": (pa.string(), lambda row: row.layer),
        "sample": (pa.int64(), lambda row: row.sample),
        "target": (pa.int64(), lambda row: row.target),
        "metric": (pa.string(), lambda row: row.metric),
        "value": (pa.float64(), lambda row: row.value),
        "higher_is_better": (pa.bool_(), lambda row: row.higher_is_better),
        "seconds": (pa.float64(), lambda row: row.seconds),
    }
    given = list(rows)
    table = pa.table({name: pa.array([read(row) for row in given], kind) for name, (kind, read) in columns.items()})
    content = io.BytesIO()
    pq.write_table(table, content)
    write_whole(path, content.getvalue())
