"""Runs of which engines do the explaining and the judging."""

import pyarrow.parquet as pq
import pytest

from pnpx.metrics import Complexity
from pnpx.pipeline import run
from pnpx.source import ConfigError
from tests.engines.factories import shop_fixture

shop = shop_fixture()
WORKERS = "engine={name: local, workers: 2}"


def test_workers_explain_and_judge_and_the_run_finds_it(shop, monkeypatch):
    alone = run(shop.plan("metrics=[Complexity]", f"output={shop.output}/alone"), quiet=True)
    evaluate = Complexity.evaluate
    monkeypatch.setattr(Complexity, "evaluate", None)  # this process asks nothing
    outcome = run(shop.plan(WORKERS, "metrics=[Complexity]"), quiet=True)
    assert (outcome.made, outcome.found, outcome.failures) == (18, 0, [])
    tables = [pq.read_table(folder / "scores.parquet").drop_columns(["seconds"]).to_pylist()
              for folder in (shop.output / "alone", shop.output)]
    assert len(tables[0]) == 18
    for one, other in zip(*tables, strict=True):
        assert one.pop("value") == pytest.approx(other.pop("value"), rel=1e-5) and one == other
    assert str(outcome.rankings) == str(alone.rankings)

    again = run(shop.plan(WORKERS, "metrics=[Complexity]"), quiet=True)
    assert (again.made, again.found, again.failures) == (0, 18, [])
    before = {path: path.stat().st_mtime_ns for path in shop.output.glob("net/**/*.json")}
    forced = run(shop.plan(WORKERS, "metrics=[Complexity]"), force=True, quiet=True)
    assert (forced.made, forced.found, forced.failures) == (18, 0, [])
    assert len(before) == 18 and all(path.stat().st_mtime_ns > then for path, then in before.items())
    monkeypatch.setattr(Complexity, "evaluate", evaluate)


def test_what_workers_cannot_the_run_reports(shop):
    shop.set("failing")
    outcome = run(shop.plan(WORKERS), quiet=True)
    assert (outcome.made, outcome.found) == (15, 0)
    assert [failure.message for failure in outcome.failures] == [
        "1 of 6 samples, number 4: ValueError: the fourth is too much"] * 3


@pytest.mark.parametrize(("override", "problem"), [
    ("engine=locl", "engine: no engine 'locl'; the nearest: 'local'"),
    ("engine={name: local, wrkers: 2}", "engine.wrkers: the engine 'local' has no parameter 'wrkers'; the nearest: "
                                        "'workers'"),
    ("engine={name: local, workers: 0}", "engine.workers: `workers >= 1` must hold, but got workers=0"),
    ("engine=3", "engine: must be a name, or a mapping with one, but is 3"),
    ("engine={workers: 3}", "engine: the key 'name' is missing"),
])
def test_problems_are_lines(shop, override, problem):
    with pytest.raises(ConfigError) as caught:
        shop.plan(override)
    assert caught.value.problems == (f"{override}: {problem}",)
