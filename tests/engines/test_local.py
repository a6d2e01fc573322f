"""Processes on this machine do the jobs, and neither a death among them nor Ctrl-C loses what others did."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from multiprocessing import active_children
from multiprocessing.connection import wait
from pathlib import Path

import pytest

import pnpx
from pnpx.engines import Local
from pnpx.engines.local import _Worker, cores
from pnpx.pipeline import run
from tests.engines.factories import shop_fixture
from tests.errors import raises

shop = shop_fixture()

SCRIPT = """\
import os
import signal
import sys
from pathlib import Path

from pnpx.engines import Local, jobs
from pnpx.plan import plan

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # it may be ignored by who runs the tests
    config, workers = Path(sys.argv[1]), int(sys.argv[2])
    (config.parent / "main").write_text(str(os.getpid()))
    todo = jobs(plan(config, allow_code=True), config, allow_code=True)
    try:
        Local(workers).explain(todo, lambda count: None)
    except KeyboardInterrupt:
        sys.exit("interrupted")
"""


def test_processes_save_what_the_run_then_finds(shop, tmp_path):
    shop.set("warning")
    shop.set("mask")
    told, mask = [], signal.pthread_sigmask(signal.SIG_BLOCK, [])
    with pytest.warns(RuntimeWarning, match="the fourth is near"):
        saved = Local(2).explain(shop.jobs(), told.append)
    assert saved == {(task.folder, index) for task in shop.plan().tasks for index in range(6)} and len(saved) == 18
    assert told == [2] * 9
    assert "SIGINT" in (tmp_path / "mask").read_text()  # they leave Ctrl-C to the run, which ends them
    assert not active_children() and signal.pthread_sigmask(signal.SIG_BLOCK, []) == mask
    outcome = run(shop.plan(), quiet=True)
    assert (outcome.made, outcome.found, outcome.failures) == (0, 18, [])


def test_without_jobs_there_are_no_processes(monkeypatch):
    monkeypatch.setattr("pnpx.engines.local.get_context", None)
    assert Local().explain([], None) == set()


def test_a_process_that_dies_loses_its_job_and_no_other(shop):
    shop.set("deadly")
    told, todo = [], shop.jobs()
    with pytest.warns(UserWarning, match="^3 of 9 jobs were lost by their workers and are left to the run itself; the "
                                         "first: the process died, exit code 9$"):
        saved = Local(1).explain(todo, told.append)
    assert saved == {(job.task, index) for job in todo for index in job.indices if index < 4}
    assert sum(told) == 18
    # What dies only in a worker, the run itself can do.
    outcome = run(shop.plan(), quiet=True)
    assert (outcome.made, outcome.found, outcome.failures) == (6, 12, [])


def test_a_worker_that_died_with_nothing_to_do_is_replaced(shop):
    worker, job = _Worker(1), shop.jobs()[0]
    try:
        for _ in range(2):
            assert worker.give(job) is None
            wait(worker.signs, 60)
            assert worker.outcome().saved == ((job.task, 0), (job.task, 1)) and worker.job is None
            worker._process.kill()
            worker._process.join()
    finally:
        worker.dismiss()
        worker.end()


def test_workers_that_always_die_are_given_up(shop):
    told, todo = [], shop.jobs()
    shop.set("fatal")
    with pytest.warns(UserWarning, match="^9 of 9 jobs were lost by their workers and are left to the run itself; the "
                                         "first: the process died, exit code 7$"):
        assert Local(1).explain(todo, told.append) == set()
    assert told == [2] * 9 and not active_children()


def test_a_job_that_fails_ends_no_worker(shop):
    todo = shop.jobs()
    shop.config.write_text(shop.config.read_text() + "seed: 3\n")
    with pytest.warns(UserWarning, match="9 of 9 jobs were lost .* ValueError: .* has changed since the run started"):
        assert Local(1).explain(todo, lambda count: None) == set()


def test_processes_that_cannot_be_started_are_no_error(shop, monkeypatch):
    def fail(kind):
        raise OSError("no memory")

    monkeypatch.setattr("pnpx.engines.local.get_context", fail)
    with pytest.warns(UserWarning, match="9 of 9 jobs were lost .* it could not be given to a worker: no memory"):
        assert Local(2).explain(shop.jobs(), lambda count: None) == set()


def test_an_error_in_what_is_told_of_progress_ends_the_processes_at_once(shop, tmp_path, monkeypatch):
    def fail(count):
        if (tmp_path / "begun").exists():
            raise RuntimeError("enough")

    monkeypatch.setattr("pnpx.engines.local.PATIENCE", 100)
    shop.set("slow", "300")
    start = time.monotonic()
    with raises(RuntimeError, "enough"):
        Local(2).explain(shop.jobs(), fail)
    assert time.monotonic() - start < 90 and not active_children()


def test_a_script_without_a_guard_is_told_how_to_have_one(shop, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.replace('if __name__ == "__main__":', "if True:"))
    environment = {**os.environ, "PYTHONPATH": str(Path(pnpx.__file__).parents[1])}
    found = subprocess.run([sys.executable, str(script), str(shop.config), "1"], env=environment,
                           capture_output=True, text=True)
    assert found.returncode == 0 and "if __name__ == '__main__':" in found.stderr
    assert "9 of 9 jobs were lost by their workers and are left to the run itself" in found.stderr
    assert "AssertionError" not in found.stderr


@pytest.mark.parametrize("sent, slow, told", [
    (signal.SIGINT, 300, "interrupted\n"), (signal.SIGKILL, 1, ""),
], ids=["interrupted", "killed"])
def test_when_the_run_ends_so_do_its_workers(shop, tmp_path, sent, slow, told):
    """Ctrl-C reaches the workers as well, and they say nothing; who is killed says nothing to them."""
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    environment = {**os.environ, "PYTHONPATH": str(Path(pnpx.__file__).parents[1])}
    shop.set("slow", str(slow))
    with subprocess.Popen([sys.executable, str(script), str(shop.config), "2"], env=environment, text=True,
                          stderr=subprocess.PIPE, start_new_session=True) as process:
        try:
            until(lambda: (tmp_path / "begun").exists() or process.poll() is not None, 120)
            if sent == signal.SIGINT:
                os.killpg(process.pid, sent)
            else:
                process.send_signal(sent)
            assert process.wait(30) in (1, -sent)
            until(lambda: not alive(process.pid), 30)
            said = process.stderr.read()
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    # Of a worker that was only starting, Python's own tracker may say that it left something behind.
    assert said.startswith(told) and not {"Traceback", "KeyboardInterrupt", "Error"} & set(re.findall(r"\w+", said))
    assert shop.files() and not shop.files("**/*.part")


def until(holds, seconds):
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.1)


def alive(group):
    """Whether a process of the group runs; one that has ended counts until its parent has asked how."""
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, of_group, *_ = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(of_group) == group and state != "Z":
            return True
    return False


def test_the_cores_are_shared(shop, monkeypatch):
    threads = []

    class Worker:
        job, deaths, signs = None, 0, ()

        def __init__(self, count):
            threads.append(count)

        def give(self, job):
            return "nothing to do"

        def dismiss(self):
            pass

        end = dismiss

    monkeypatch.setattr("pnpx.engines.local._Worker", Worker)
    monkeypatch.setattr("pnpx.engines.local.cores", lambda: 8)
    todo = shop.jobs()
    for engine, count, share in ((Local(3), 3, 2), (Local(16), 9, 1), (Local(), 8, 1)):
        threads.clear()
        with pytest.warns(UserWarning, match="9 of 9 jobs"):
            engine.explain(todo, lambda count: None)
        assert threads == [share] * count


def test_there_is_a_core():
    assert 1 <= cores() <= os.cpu_count()
