"""A configuration and its output folder, as the tests of runs have one each."""

import io
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

import pnpx
from pnpx.explanation import Explanation
from pnpx.pipeline import run
from pnpx.plan import plan
from pnpx.report.png import FINGERPRINT
from pnpx.text import TextExplanation

KILLED = """
import os, signal
from pnpx.cli import main

replace, count = os.replace, 0

def killed(source, target):
    global count
    if str(target).endswith({suffix!r}):
        count += 1
        if count == {fatal} and {before}:
            os.kill(os.getpid(), signal.SIGKILL)
    replace(source, target)
    if count == {fatal} and str(target).endswith({suffix!r}):
        os.kill(os.getpid(), signal.SIGKILL)

os.replace = killed
main()
"""


@dataclass(frozen=True)
class Space:
    """A configuration and its output folder, with the suffix of the explanations that are stored there."""

    config: Path
    folder: Path
    suffix: str

    def run(self, *overrides, force=False):
        now = lambda: datetime(2026, 1, 2, 3, 4)  # noqa: E731
        return run(plan(self.config, overrides), force=force, quiet=True, now=now)

    def run_killed(self, fatal, before):
        """A run by a process that is killed at its ``fatal``-th explanation, before or after that is in place."""
        code = KILLED.format(suffix=self.suffix, fatal=fatal, before=before)
        environment = {**os.environ, "PYTHONPATH": str(Path(pnpx.__file__).parents[1])}
        command = [sys.executable, "-c", code, "explain", str(self.config), "--quiet"]
        assert subprocess.run(command, env=environment).returncode == -signal.SIGKILL

    def stamps(self, pattern=None):
        """When each file was last written, by its path in the folder: explanations, or what matches the pattern."""
        found = self.folder.glob(pattern or f"**/*{self.suffix}")
        return {str(path.relative_to(self.folder)): path.stat().st_mtime_ns for path in found}


def dot(figure, fingerprint):
    """The bytes of a picture of a dot, of nothing else, that is known by the fingerprint."""
    content = io.BytesIO()
    known = {} if fingerprint is None else {FINGERPRINT: fingerprint}
    FigureCanvasAgg(Figure(figsize=(0.01, 0.01))).print_png(content, metadata=known)
    return content.getvalue()


def space_fixture(config, suffix):
    """A fixture: a space of its own for each test; pictures are a dot each, for speed, but where a test is of them."""

    @pytest.fixture
    def space(tmp_path, monkeypatch, request):
        if "pictures" not in request.node.name:
            monkeypatch.setattr("pnpx.report.drawing.png", dot)
            for kind in (Explanation, TextExplanation):
                monkeypatch.setattr(kind, "plot", lambda self: None)
            monkeypatch.setattr("pnpx.plots.plot_input", lambda explanation: None)
        path, folder = tmp_path / "run.yaml", tmp_path / "out"
        path.write_text(config.replace("{folder}", str(folder)))
        return Space(path, folder, suffix)

    return space


def changed(before, after):
    return sorted(name for name in after if before.get(name) != after[name])
