"""Each command of the benchmarks takes the options that it uses, those that its page names, and no other."""

import importlib
import re
from pathlib import Path

import pytest

from benchmarks import command
from benchmarks.table import Table
from benchmarks.timing import Pace

PAGE = (Path(__file__).parents[1] / "benchmarks/README.md").read_text("utf-8")
ROWS = re.findall(r"^\| `python -m (\S+)` \| [^|]+ \| ([^|]+) \|$", PAGE, re.MULTILINE)
TIME = "`--threads`, `--seconds`, `--rounds`, `--clock`"
ALL = {"models", "n-iter", "size", "layers", "threads", "seconds", "rounds", "clock"}


def run(monkeypatch, name, arguments):
    """What a command gives the function that makes its tables, after the number of threads that it asks for."""
    path = Path(__file__).parents[1] / name.replace(".", "/")
    path = path / "__main__.py" if path.is_dir() else path.with_suffix(".py")
    given, main = [], command.main
    monkeypatch.setattr("torch.set_num_threads", given.append)

    def short(make, *rest, **named):
        main(lambda options: given.append(options) or [Table("t", ["a"])], *rest, **named, arguments=arguments)

    with monkeypatch.context() as patch:
        patch.setattr(command, "main", short)
        exec(compile(path.read_text("utf-8"), path, "exec"), {"__name__": "__main__", "__doc__": "a table"})
    return given


@pytest.mark.parametrize("name, options", ROWS)
def test_a_command_takes_the_options_that_the_page_says_and_no_other(monkeypatch, capsys, name, options):
    says = set(re.findall("`--([a-z-]+)`", options.replace("those of time", TIME)))
    values = {"models": "lstm", "size": "full", "clock": "wall", "layers": "fc"}
    for option in ALL:
        arguments = [f"--{option}", values.get(option, "7")]
        if option in says:
            assert arguments[1] in str(run(monkeypatch, name, arguments))
        else:
            with pytest.raises(SystemExit):
                run(monkeypatch, name, arguments)
            assert f"unrecognized arguments: --{option}" in capsys.readouterr().err


def test_the_page_has_all_commands():
    found = {f"benchmarks.{path.stem}" for path in (Path(__file__).parents[1] / "benchmarks").glob("*.py")
             if hasattr(importlib.import_module(f"benchmarks.{path.stem}"), "main")}
    assert {name for name, _ in ROWS} == (found - {"benchmarks.command", "benchmarks.__main__"}) | {"benchmarks"}


def test_what_a_command_is_not_told_has_its_default(monkeypatch):
    assert run(monkeypatch, "benchmarks.layers", ["--n-iter", "3", "9"]) == [1, command.Options(Pace(), n_iter=(3, 9))]
    assert run(monkeypatch, "benchmarks", ["--rounds", "5"])[1].pace == Pace(4.0, 5)
