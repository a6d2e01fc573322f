"""The command line: what it prints, where, and with which exit code."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

import pnpx
from pnpx.cli import app
from pnpx.explanation import Explanation

pytestmark = pytest.mark.usefixtures("ours_alone")

ROOT = Path(pnpx.__file__).parents[1]

CONFIG = """\
model: breast_cancer_mlp
data: {samples: 1}
explainers: [Gradient, {name: SmoothGrad, n_iter: 2}]
output: out
"""


@pytest.fixture
def pnpx_command(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run.yaml").write_text(CONFIG)

    def call(*arguments):
        return CliRunner().invoke(app, arguments, prog_name="pnpx")

    return call


def test_explains_then_says_that_all_is_done(pnpx_command, tmp_path):
    result = pnpx_command("explain", "run.yaml")
    assert (result.exit_code, result.stdout) == (0, "2 explanations made\nreport: out/report.html\n")
    assert "2/2" in result.stderr
    assert (tmp_path / "out/report.html").is_file()
    result = pnpx_command("explain", "run.yaml")
    assert (result.exit_code, result.stdout) == (
        0, "all 2 explanations were done before; --force makes them again\nreport: out/report.html\n"
    )
    result = pnpx_command("explain", "run.yaml", "explainers.1.n_iter=3")
    assert result.stdout.startswith("1 explanations made, 1 were done before\n")
    result = pnpx_command("explain", "run.yaml", "explainers.1.n_iter=3", "--force")
    assert result.stdout.startswith("2 explanations made\n")


def test_quiet_and_output(pnpx_command, tmp_path):
    result = pnpx_command("explain", "run.yaml", "--quiet", "--output", "else/where")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "")
    assert (tmp_path / "else/where/report.html").is_file() and not (tmp_path / "out").exists()


def test_an_empty_output_is_refused(pnpx_command, tmp_path):
    result = pnpx_command("explain", "run.yaml", "--output", "")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == "--output must name a folder, but is empty\n"
    assert [path.name for path in tmp_path.iterdir()] == ["run.yaml"]


@pytest.mark.parametrize("arguments", [["output=~/runs/x"], ["--output", "~/runs/x"]], ids=["override", "option"])
def test_the_home_folder_by_its_short_name(pnpx_command, tmp_path, monkeypatch, arguments):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    result = pnpx_command("explain", "run.yaml", *arguments)
    report = tmp_path / "home/runs/x/report.html"
    assert (result.exit_code, result.stdout) == (0, f"2 explanations made\nreport: {report}\n")
    assert report.is_file() and not (tmp_path / "~").exists()


@pytest.mark.parametrize("arguments, place", [
    (["output=~no-such-user/x"], "output=~no-such-user/x: output"),
    (["--output", "~no-such-user/x"], "--output ~no-such-user/x"),
])
def test_the_home_folder_of_nobody(pnpx_command, tmp_path, arguments, place):
    result = pnpx_command("explain", "run.yaml", *arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == (
        f"{place}: the home folder that '~no-such-user' means is not known; write out the path of the folder\n"
    )
    assert [path.name for path in tmp_path.iterdir()] == ["run.yaml"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
@pytest.mark.parametrize("arguments, unbuffered", [
    (["explain", "run.yaml"], ""), (["list", "explainers"], ""), (["list", "explainers"], "1"), (["--help"], ""),
], ids=["explain", "list", "list, unbuffered", "help"])
def test_a_full_standard_output_is_one_line(tmp_path, arguments, unbuffered):
    (tmp_path / "run.yaml").write_text(CONFIG)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": unbuffered}
    with open("/dev/full", "w") as full:
        done = subprocess.run([sys.executable, "-m", "pnpx", *arguments], cwd=tmp_path, env=environment, stdout=full,
                              stderr=subprocess.PIPE, text=True)
    assert done.returncode == 1
    said = [line for line in done.stderr.splitlines() if line and "explanations" not in line]  # without the progress
    assert said == ["cannot write to the standard output: No space left on device"]
    assert (tmp_path / "out/report.html").is_file() is (arguments[0] == "explain")


def test_a_reader_who_goes_away_is_no_error(tmp_path):
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run([sys.executable, "-m", "pnpx", "list", "explainers"], stdout=write, stderr=subprocess.PIPE,
                          text=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
    os.close(write)
    assert (done.returncode, done.stderr) == (1, "")


def test_warnings_are_lines_each_once_and_without_the_code_they_are_from(pnpx_command, monkeypatch):
    import warnings

    explain, shown = pnpx.SmoothGrad.explain, warnings.showwarning

    def warn(self, inputs, targets=None):
        for number in (1, 2, 3):  # each at a place of its own: as Python counts, another warning
            exec(f"{number * chr(10)}import warnings; warnings.warn('too\\n  few steps', RuntimeWarning)", {})
        warnings.warn("too many steps", stacklevel=2)
        return explain(self, inputs, targets)

    monkeypatch.setattr(pnpx.SmoothGrad, "explain", warn)
    result = pnpx_command("explain", "run.yaml", "data.samples=2", "batch_size=1", "--quiet")
    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr == "warning: too few steps\nwarning: too many steps\n"
    assert warnings.showwarning is shown
    result = pnpx_command("explain", "run.yaml", "--force")  # and again in another run
    assert result.stdout == "2 explanations made\nreport: out/report.html\n"
    lines = [line for line in result.stderr.replace("\r", "\n").splitlines() if "warning" in line.lower()]
    assert lines == ["warning: too few steps", "warning: too many steps"]


def test_a_wrong_configuration_is_exit_code_2_and_one_line(pnpx_command, tmp_path):
    result = pnpx_command("explain", "run.yaml", "explainers.0.name=Gradeint")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == (
        "explainers.0.name=Gradeint: explainers.0.name: there is no explainer 'Gradeint'; the nearest: 'Gradient'\n"
    )
    assert not (tmp_path / "out").exists()


def test_a_file_where_the_folder_should_be(pnpx_command, tmp_path):
    (tmp_path / "out").write_text("kept")
    result = pnpx_command("explain", "run.yaml")
    assert result.exit_code == 2
    assert result.stderr.startswith("run.yaml:4: output: must be a folder to write to, but ")
    assert result.stderr.count("\n") == 1
    assert (tmp_path / "out").read_text() == "kept"


@pytest.mark.parametrize("config, line", [
    ("digts", "digts: there is no such file, nor a shipped configuration; the nearest: 'digits'\n"),
    ("x/digits.yaml", "x/digits.yaml: there is no such file, nor a shipped configuration; the nearest: 'digits'\n"),
    (".", ".: must be a YAML file, but is a folder\n"),
    ("/dev/null", "/dev/null: must be a YAML file, but is a device, or the like\n"),
    ("a" * 5000, "a" * 200 + "...: cannot be read: File name too long\n"),
])
def test_no_such_configuration(pnpx_command, config, line):
    result = pnpx_command("explain", config)
    assert (result.exit_code, result.stderr) == (2, line)


@pytest.mark.parametrize("config", ["breast_cancer", "breast_cancer.yaml", "configs/breast_cancer.yaml"])
def test_shipped_configurations_by_name(pnpx_command, config):
    result = pnpx_command("explain", config, "data.samples=0")
    assert (result.exit_code, result.stderr) == (2, "data.samples=0: data.samples: must be at least 1, but is 0\n")


def test_failures_give_exit_code_1_at_the_end(pnpx_command, monkeypatch):
    def fail(*_):
        raise RuntimeError("not today")

    monkeypatch.setattr(pnpx.SmoothGrad, "explain", fail)
    result = pnpx_command("explain", "run.yaml")
    assert result.exit_code == 1
    assert result.stdout == "1 explanations made\nreport: out/report.html\n"
    assert result.stderr.endswith(
        "failed: SmoothGrad at the inputs of breast_cancer_mlp: 1 of 1 samples: RuntimeError: not today\n"
        "tracebacks: out/failures.txt\n"
    )


def test_a_folder_that_cannot_be_written_to(pnpx_command, monkeypatch):
    def full(self, path):
        raise OSError(30, "Read-only file system", str(path))

    monkeypatch.setattr(Explanation, "save", full)
    result = pnpx_command("explain", "run.yaml", "--quiet")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == (
        "cannot write the results: Read-only file system: out/breast_cancer_mlp/Gradient/inputs/0000.safetensors\n"
    )


def test_what_cannot_be_read_is_no_fault_of_the_results(pnpx_command, monkeypatch):
    def unreadable(*_, **__):
        raise OSError(13, "Permission denied", "weights.safetensors")

    monkeypatch.setattr("pnpx.zoo.data", unreadable)
    result = pnpx_command("explain", "run.yaml", "--quiet")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == "cannot read what the run needs: Permission denied: weights.safetensors\n"


def test_an_engine_that_is_not_reached(pnpx_command, monkeypatch):
    def refuse(*_):
        raise ConnectionError("the Ray cluster at 'nope' cannot be reached: no way")

    monkeypatch.setattr("pnpx.engines.Local.explain", refuse)
    result = pnpx_command("explain", "run.yaml", "engine=local", "--quiet")
    assert (result.exit_code, result.stderr) == (1, "the Ray cluster at 'nope' cannot be reached: no way\n")


def test_an_interrupted_run(pnpx_command, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(pnpx.SmoothGrad, "explain", interrupt)
    result = pnpx_command("explain", "run.yaml", "--quiet")
    assert result.exit_code == 130
    assert result.stderr == "interrupted; what was finished is kept: run the same command again to go on\n"


@pytest.mark.parametrize("what, lines", [
    ("explainers", ["Gradient ", "VarGrad "]),
    ("metrics", ["AbPC ", "Sensitivity "]),
    ("models", ["digits_cnn ", "breast_cancer_mlp ",
                "sentiment          77.9% on rated sentences of vaderSentiment==3.3.2 (MIT): a BERT of two layers"]),
    ("data", ["digits ", "breast_cancer  tabular, 143 held-out samples of shape (30,)",
              "sentences      text, 24 sentences"]),
    ("configs", ["digits ", "sentiment ", "zoo "]),
])
def test_lists(pnpx_command, what, lines):
    result = pnpx_command("list", what)
    assert result.exit_code == 0
    for start in lines:
        (line,) = [line for line in result.stdout.splitlines() if line.startswith(start)]
        assert len(line) > 30


def test_recommends_and_says_why(pnpx_command, tmp_path):
    result = pnpx_command("recommend", "run.yaml", "model=[digits_lstm,digits_cnn]", "data={samples: 1}")
    assert result.exit_code == 0, result.stderr
    first, second = result.stdout.split("\n\n")
    assert first.splitlines()[0] == "digits_lstm: LSTM x1, linear x1"
    assert second.splitlines()[0] == "digits_cnn: convolution x2, linear x2, batch norm x2"
    for part in (first, second):
        names = [line.split()[1] for line in part.splitlines()[1:]]
        assert sorted(names) == sorted(set(names)) and {"Gradient", "Lime", "KernelShap"} <= set(names)
        signs = [line[0] for line in part.splitlines()[1:]]
        assert signs == sorted(signs) and 5 <= signs.count("+") <= 9  # the picked ones first
        assert all(len(line.split()) > 4 for line in part.splitlines()[1:])
    assert not (tmp_path / "out").exists()


def test_recommends_without_explainers_and_for_texts(pnpx_command, tmp_path):
    (tmp_path / "texts.yaml").write_text("model: sentiment\ndata: [Fine.]\noutput: out\n")
    result = pnpx_command("recommend", "texts.yaml")
    assert result.exit_code == 0, result.stderr
    assert result.stdout.startswith("sentiment: attention x2, embedding x3, ")
    assert "+ IntegratedGradients" in result.stdout


def test_recommends_nothing_where_the_configuration_is_wrong(pnpx_command):
    result = pnpx_command("recommend", "run.yaml", "model=digits_cn")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("model=digits_cn: model: there is no model 'digits_cn'; the nearest: 'digits_cnn'")


def test_says_which_explainers_are_best(pnpx_command):
    result = pnpx_command("explain", "run.yaml", "metrics=[AbPC]")
    assert result.exit_code == 0, result.stderr
    assert "best by AbPC at the inputs of " in result.stdout


def test_texts_without_transformers_are_exit_code_2_and_one_line(pnpx_command, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    result = pnpx_command("explain", "sentiment")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.endswith(
        "sentiment.yaml:3: model: the zoo's text models need transformers, which is not installed; install it: "
        "pip install transformers tokenizers\n"
    )
    assert result.stderr.count("\n") == 1
    assert "sentiment" in pnpx_command("list", "models").stdout  # what there is can be listed all the same


def test_version(pnpx_command):
    result = pnpx_command("--version")
    assert (result.exit_code, result.stdout) == (0, f"pnpx {pnpx.__version__}\n")


def test_unknown_commands_and_options(pnpx_command):
    assert pnpx_command("explian").exit_code == 2
    result = pnpx_command("explain", "run.yaml", "--ouput", "x")
    assert result.exit_code == 2 and "--output" in result.stderr


def test_as_a_module_without_a_display_and_without_a_traceback(tmp_path):
    """The real thing, in another process, where a graphical backend is asked for and no display is there."""
    (tmp_path / "run.yaml").write_text(CONFIG)
    environment = {key: value for key, value in os.environ.items() if key not in ("DISPLAY", "WAYLAND_DISPLAY")}
    environment |= {"PYTHONPATH": str(ROOT), "MPLBACKEND": "TkAgg"}

    def call(*arguments):
        return subprocess.run(
            [sys.executable, "-m", "pnpx", *arguments], cwd=tmp_path, env=environment, capture_output=True, text=True
        )

    done = call("explain", "run.yaml")
    assert (done.returncode, done.stdout) == (0, "2 explanations made\nreport: out/report.html\n")
    wrong = call("explain", "run.yaml", "explainers.0.layers=[hiden1]")
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert wrong.stderr == (
        "explainers.0.layers=[hiden1]: explainers.0.layers.0: no module 'hiden1' in the model; the nearest: 'hidden1'\n"
    )
