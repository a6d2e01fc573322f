"""Jobs are what is missing, and a worker does them as the run itself would."""

import os
import pickle
import shutil
from dataclasses import replace

import pytest
import torch

from pnpx.engines import ENGINES, Engine, Local, Ray, engine, jobs
from pnpx.engines.base import Done, Tally, _plan, work
from pnpx.explanation import Explanation
from pnpx.pipeline import run
from pnpx.source import ConfigError
from tests.engines.factories import shop_fixture
from tests.errors import raises

shop = shop_fixture()
TASKS = ["net/Gradient/inputs", "net/SmoothGrad/inputs", "net/SmoothGrad/first"]


@pytest.fixture(autouse=True)
def _forget():
    _plan.cache_clear()


def test_jobs_are_what_the_folder_has_not_in_chunks(shop):
    chunks = [(0, 1), (2, 3), (4, 5)]
    assert [(job.task, job.indices) for job in shop.jobs()] == [(task, chunk) for task in TASKS for chunk in chunks]
    assert [job.indices for job in shop.jobs("batch_size=4")][:2] == [(0, 1, 2, 3), (4, 5)]
    run(shop.plan(), quiet=True)
    assert shop.jobs() == []
    (shop.output / TASKS[1] / "0001.safetensors").unlink()
    (shop.output / TASKS[1] / "0002.safetensors").write_bytes(b"damaged")
    assert [(job.task, job.indices) for job in shop.jobs()] == [(TASKS[1], (1, 2))]
    assert {job.task for job in shop.jobs("explainers.1.n_iter=4")} == set(TASKS[1:])
    assert len(shop.jobs(force=True)) == 9


def test_a_job_is_plain_data_that_does_not_depend_on_where_it_is_read(shop, monkeypatch):
    monkeypatch.chdir(shop.config.parent)
    there = replace(shop, config=shop.config.relative_to(shop.config.parent))
    job, = {replace(job, task="", indices=()) for job in there.jobs("seed=3")}
    assert (job.config, job.output, job.current) == (str(shop.config), str(shop.output), str(shop.config.parent))
    assert (job.overrides, job.allow_code) == (("seed=3",), True)
    assert pickle.loads(pickle.dumps(job)) == job
    monkeypatch.chdir("/")
    assert work(replace(job, task=TASKS[0], indices=(2,))).saved == ((TASKS[0], 2),)
    assert os.getcwd() == job.current


def test_a_link_stays_one_since_files_are_looked_for_beside_it(shop, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    os.replace(shop.config, elsewhere / "run.yaml")
    shop.config.symlink_to(elsewhere / "run.yaml")
    assert {job.config for job in shop.jobs()} == {str(shop.config)}


def test_a_pipe_has_no_jobs(shop, tmp_path):
    plan, pipe = shop.plan(), tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.warns(UserWarning, match="can be read only once, so that no workers can share in this run; give a fil"):
        assert jobs(plan, pipe) == []


def test_jobs_give_what_the_run_itself_gives(shop):
    saved = {one for job in shop.jobs() for one in work(job).saved}
    assert saved == {(task, index) for task in TASKS for index in range(6)}
    made = {name: Explanation.load(shop.output / name) for name in shop.files()}
    outcome = run(shop.plan(), quiet=True)
    assert (outcome.made, outcome.found, outcome.failures) == (0, 18, [])
    shutil.rmtree(shop.output)
    run(shop.plan(), quiet=True)
    assert shop.files() == sorted(made)
    for name, explanation in made.items():
        own = Explanation.load(shop.output / name)
        assert torch.equal(own.attributions, explanation.attributions)
        assert (own.explainer, own.class_names) == (explanation.explainer, explanation.class_names)


def test_the_plan_is_made_once_a_process(shop, monkeypatch):
    import pnpx.plan

    todo, plans, plan = shop.jobs(), [], pnpx.plan.plan
    monkeypatch.setattr("pnpx.plan.plan", lambda *arguments: plans.append(1) or plan(*arguments))
    for job in todo[:3]:
        work(job)
    assert len(plans) == 1
    _plan.cache_clear()
    shop.config.write_text("model: 3")
    for job in todo[:3]:
        with pytest.raises(ConfigError):
            work(job)
    assert len(plans) == 2


def test_a_sample_that_fails_takes_no_other_along_and_is_left_out(shop):
    todo = [job for job in shop.jobs() if job.indices == (4, 5)]
    shop.set("failing")
    assert [work(job).saved for job in todo] == [((task, 5),) for task in TASKS]
    outcome = run(shop.plan(), quiet=True)
    assert (outcome.made, outcome.found, len(outcome.failures)) == (12, 3, 3)


def test_warnings_come_along(shop):
    shop.set("warning")
    done = [work(job) for job in shop.jobs() if job.task == TASKS[0]]
    assert [one.warned for one in done] == [(), (), (("the fourth is near", "RuntimeWarning"),)]


@pytest.mark.parametrize("kind, shown", [("RuntimeWarning", RuntimeWarning), ("TheirOwn", UserWarning),
                                         ("KeyError", UserWarning)])
def test_warnings_are_said_again(shop, kind, shown):
    told = []
    with pytest.warns(shown, match="^near$"):
        Tally(told.append).note(shop.jobs()[0], Done((), (("near", kind),)))
    assert told == [2]


def test_another_configuration_than_that_of_the_run_is_refused(shop):
    job = shop.jobs()[0]
    shop.config.write_text(shop.config.read_text().replace("n_iter: 3", "n_iter: 4"))
    for _ in range(2):
        with raises(ValueError, f"{shop.config} has changed since the run started"):
            work(job)
    _plan.cache_clear()
    shop.config.write_text("model: 3")
    with pytest.raises(ConfigError):
        work(job)
    assert not shop.output.exists() or not shop.files()


def test_engines_go_by_names():
    assert engine("local", workers=3) == Local(3) and engine("ray") == Ray()
    assert all(issubclass(kind, Engine) for kind in ENGINES.values())
    with raises(LookupError, "no engine 'locale'; the nearest: 'local'"):
        engine("locale")
    with raises(TypeError, "the engine 'local' has no parameter 'worker'; the nearest: 'workers'"):
        engine("local", worker=3)
    for kind in ENGINES.values():
        with raises(ValueError, "`workers >= 1` must hold, but got workers=0"):
            kind(workers=0)
        with raises(TypeError, "workers must be an int, but got '4'"):
            kind(workers="4")
    with raises(TypeError, "address must be text or None, but got 6379"):
        Ray(6379)
