"""Ray does the jobs; here mostly one of paper, and the real one where its processes can be kept from the network."""

import os
import shutil
import subprocess
import sys
from collections import deque
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace

import pytest

import pnpx
from pnpx.engines import Ray
from pnpx.engines.base import Done, Job
from pnpx.pipeline import run
from tests.engines.factories import shop_fixture
from tests.errors import raises

shop = shop_fixture()
JOBS = [Job("c", (), "o", False, "/", False, "s", "task", (number, number + 1)) for number in range(0, 12, 2)]


class FakeRay:
    """What of Ray is asked for, as documented, with what each call of a remote function gives or raises."""

    def __init__(self, outcome, connected=False):
        self.outcome, self.connected = outcome, connected
        self.running, self.calls, self.cancelled, self.most = [], [], [], 0

    def is_initialized(self):
        return self.connected

    def init(self, **options):
        self.calls.append(("init", options))
        self.connected = True

    def shutdown(self):
        self.calls.append(("shutdown", {}))
        self.connected = False

    def cluster_resources(self):
        return {"CPU": 3.0}

    def remote(self, **options):
        self.calls.append(("remote", options))
        return lambda function: SimpleNamespace(remote=self.start)

    def start(self, job):
        assert self.connected
        self.running.append(object.__new__(Reference))
        self.running[-1].job = job
        self.most = max(self.most, len(self.running))
        return self.running[-1]

    def wait(self, references, num_returns):
        assert references == self.running and num_returns == 1
        return references[-1:], references[:-1]

    def get(self, reference):
        self.running.remove(reference)
        outcome = self.outcome(reference.job)
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    def cancel(self, reference, force):
        assert force
        self.cancelled.append(reference.job)


class Reference:
    """An outcome to come."""


def done(job):
    return Done(tuple((job.task, index) for index in job.indices))


def use(monkeypatch, fake):
    monkeypatch.setitem(sys.modules, "ray", fake)
    return fake


@pytest.mark.parametrize("workers, most", [(None, 3), (2, 2), (50, 6)])
def test_all_jobs_are_done_as_many_at_once_as_there_is_room_for(monkeypatch, workers, most):
    fake, told = use(monkeypatch, FakeRay(done)), []
    assert Ray(workers=workers).explain(JOBS, told.append) == {("task", index) for index in range(12)}
    assert told == [2] * 6 and fake.most == most and not fake.cancelled
    own = {"address": "local", "num_cpus": workers, "include_dashboard": False}
    assert fake.calls == [
        ("init", {**own, "log_to_driver": False, "logging_level": "ERROR"}),
        ("remote", {"num_cpus": 1, "max_retries": 0}),
        ("shutdown", {}),
    ]


def test_a_cluster_is_reached_by_its_address(monkeypatch):
    fake = use(monkeypatch, FakeRay(done))
    Ray("10.0.0.1:6379").explain(JOBS, lambda count: None)
    assert fake.calls[0] == ("init", {"address": "10.0.0.1:6379", "log_to_driver": False, "logging_level": "ERROR"})


@pytest.mark.parametrize(("address", "told"), [
    ("nope", "the Ray cluster at 'nope' cannot be reached: ValueError: Invalid address format"),
    (None, "a Ray of its own cannot be reached: ValueError: Invalid address format"),
])
def test_a_cluster_that_cannot_be_reached_is_said_in_a_line(monkeypatch, address, told):
    def refuse(**_):
        raise ValueError("Invalid address format\nand more of it")

    fake = use(monkeypatch, FakeRay(done))
    fake.init = refuse
    with raises(ConnectionError, told):
        Ray(address).explain(JOBS, lambda count: None)


def test_a_cluster_that_is_connected_already_stays_so(monkeypatch):
    fake = use(monkeypatch, FakeRay(done, connected=True))
    Ray("10.0.0.1:6379").explain(JOBS, lambda count: None)
    assert [name for name, _ in fake.calls] == ["remote"] and fake.connected


def test_a_job_that_fails_is_lost_and_no_other(monkeypatch):
    error = RuntimeError("long\nstory")
    error.cause = ValueError("no such\nfolder")
    fake, told = use(monkeypatch, FakeRay(lambda job: error if 4 in job.indices else done(job))), []
    with pytest.warns(UserWarning, match="^1 of 6 jobs were lost by their workers and are left to the run itself; the "
                                         "first: ValueError: no such$"):
        saved = Ray(workers=2).explain(JOBS, told.append)
    assert saved == {("task", index) for index in range(12) if index not in (4, 5)}
    assert told == [2] * 6 and fake.calls[-1] == ("shutdown", {})


def test_ctrl_c_cancels_what_runs(monkeypatch):
    turns = deque([done, lambda job: KeyboardInterrupt()])
    fake = use(monkeypatch, FakeRay(lambda job: turns.popleft()(job)))
    with pytest.raises(KeyboardInterrupt):
        Ray(workers=3).explain(JOBS, lambda count: None)
    assert len(fake.cancelled) == 2 and fake.calls[-1] == ("shutdown", {})


def test_without_jobs_ray_is_not_needed(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    assert Ray().explain([], lambda count: None) == set()


def test_without_ray_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with raises(ImportError, "the engine 'ray' needs ray, which is not installed; install it: pip install ray, or pip "
                             "install '.[ray]' for pnpx with all that it takes"):
        Ray().explain(JOBS, lambda count: None)


REAL = """\
import os, sys, warnings
from pathlib import Path
from pnpx.engines import Ray, jobs
from pnpx.plan import plan

config = Path(sys.argv[1])
(config.parent / "main").write_text(str(os.getpid()))
todo = jobs(plan(config, allow_code=True), config, allow_code=True)
with warnings.catch_warnings(record=True) as heard:
    saved = Ray(workers=2).explain(todo, lambda count: None)
print(len(todo), len(saved), *[one.message for one in heard if "jobs were lost" in str(one.message)])
"""


def alone():
    """A command that runs another without any network; None where that is not possible."""
    command = ["unshare", "--user", "--map-root-user", "--net", "sh", "-c", 'ip link set lo up && exec "$@"', "sh"]
    if find_spec("ray") is None or shutil.which("unshare") is None:
        return None
    return command if subprocess.run([*command, "true"], capture_output=True).returncode == 0 else None


def test_the_real_ray_does_them_and_a_worker_that_dies_loses_its_own(shop, tmp_path):
    command = alone()
    if command is None:
        pytest.skip("needs ray, and a network of its own for it")
    shop.set("deadly")
    (tmp_path / "script.py").write_text(REAL)
    environment = {**os.environ, "PYTHONPATH": str(Path(pnpx.__file__).parents[1])}
    with TemporaryDirectory(prefix="ray") as folder:  # a short path, for sockets
        environment["RAY_TMPDIR"] = folder
        command += [sys.executable, str(tmp_path / "script.py"), str(shop.config)]
        found = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240)
    assert found.returncode == 0, found.stderr
    assert ("9 12 3 of 9 jobs were lost by their workers and are left to the run itself; the first: "
            "WorkerCrashedError: ") in found.stdout
    shop.set("main", str(os.getpid()))
    outcome = run(shop.plan(), quiet=True)
    assert (outcome.made, outcome.found, outcome.failures) == (6, 12, [])
