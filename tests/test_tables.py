"""The table of a run, as data frames read it."""

import math

import pyarrow.parquet as pq
import pytest

from pnpx.tables import ScoreRow, write_scores

ROW = ScoreRow("cnn", "SmoothGrad", {"n_iter": 3, "layer": None}, "conv1", 4, 1, "AbPC", 0.25, True, 0.5)


def test_a_row_a_value(tmp_path):
    path = tmp_path / "scores.parquet"
    write_scores(path, [ROW, ScoreRow("cnn", "Lime", {}, None, 0, 0, "Sensitivity", math.inf, False, 0.1)])
    first, second = pq.read_table(path).to_pylist()
    assert first == {"model": "cnn", "explainer": "SmoothGrad", "parameters": '{"layer": null, "n_iter": 3}',
                     "layer": "conv1", "sample": 4, "target": 1, "metric": "AbPC", "value": 0.25,
                     "higher_is_better": True, "seconds": 0.5}
    assert second["layer"] is None and second["value"] == math.inf


def test_no_rows_have_the_same_columns(tmp_path):
    write_scores(tmp_path / "none.parquet", [])
    write_scores(tmp_path / "one.parquet", [ROW])
    none, one = (pq.read_schema(tmp_path / f"{name}.parquet") for name in ("none", "one"))
    assert none.equals(one) and pq.read_table(tmp_path / "none.parquet").num_rows == 0


def test_where_it_cannot_be_written(tmp_path):
    with pytest.raises(FileNotFoundError, match="does not exist; make it first"):
        write_scores(tmp_path / "nowhere" / "scores.parquet", [ROW])
