"""What is installed is what lies in the source tree, and ``make`` finds a Python or says why not."""

import ast
import configparser
import os
import shutil
import stat
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import pnpx

ROOT = Path(__file__).parents[1]

pytestmark = pytest.mark.skipif(not (ROOT / "setup.cfg").is_file(), reason="needs the source tree")


@pytest.fixture(scope="module")
def setup():
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg")
    return parser


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel, built from a copy, so that the source tree stays as it is, and without network."""
    folder = tmp_path_factory.mktemp("source")
    for name in ("setup.cfg", "pyproject.toml", "LICENSE", "README.md"):
        if (ROOT / name).is_file():
            shutil.copy(ROOT / name, folder)
    for name in ("pnpx", "configs"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    code = "import sys; from setuptools import build_meta; build_meta.build_wheel(sys.argv[1])"
    subprocess.run([sys.executable, "-c", code, "dist"], cwd=folder, check=True, capture_output=True)
    (path,) = (folder / "dist").glob("pnpx-*.whl")
    return path


def test_every_package_is_on_the_list(setup):
    listed = setup["options"]["packages"].split()
    folders = {path.parent.relative_to(ROOT) for path in (ROOT / "pnpx").rglob("*.py")}
    assert sorted(listed) == sorted([".".join(folder.parts) for folder in folders] + ["pnpx.configs"])


def test_the_version_is_said_once_in_two_places(setup):
    assert setup["metadata"]["version"] == pnpx.__version__


def test_the_wheel_holds_everything(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        (entry_points,) = (archive.read(name).decode() for name in names if name.endswith("entry_points.txt"))
    sources = {path for path in (ROOT / "pnpx").rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    expected = {path.relative_to(ROOT).as_posix() for path in sources}
    expected |= {f"pnpx/configs/{path.name}" for path in (ROOT / "configs").iterdir()}
    assert {name for name in names if ".dist-info/" not in name} == expected
    for needed in ("pnpx/configs/digits.yaml", "pnpx/py.typed", "pnpx/zoo/weights/digits_cnn.safetensors"):
        assert needed in names
    assert any(name.startswith("pnpx/report/templates/") for name in names)
    assert any(name.endswith("LICENSE") for name in names)
    assert "pnpx = pnpx.cli:main" in entry_points


def test_the_wheel_runs_away_from_the_source_tree(wheel, tmp_path):
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    done = subprocess.run(
        [sys.executable, "-m", "pnpx", "explain", "breast_cancer", "data.samples=1", "explainers=[Gradient]"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path / "site")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "1 explanations made\nreport: runs/breast_cancer/report.html\n"


PROVIDED = {"sklearn": "scikit-learn", "yaml": "pyyaml"}
"""Packages whose modules have another name."""


def test_what_is_imported_is_declared(setup):
    """Installed with others by luck, a package may be gone with a later version of them."""
    imported = {}
    for path in (ROOT / "pnpx").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                assert node.level == 0
                names = [node.module]
            imported |= {name.partition(".")[0]: path.name for name in names}
    outside = {PROVIDED.get(name, name): path for name, path in imported.items()
               if name not in sys.stdlib_module_names and name != "pnpx"}
    extras = setup["options.extras_require"]
    declared = {line.partition(">=")[0].strip().lower()
                for lines in (setup["options"]["install_requires"], extras["text"]) for line in lines.split("\n")}
    assert {name: path for name, path in outside.items() if name not in declared} == {}


def test_extras_hold_no_caps(setup):
    lines = setup["options"]["install_requires"].split("\n")
    for extra in setup["options.extras_require"].values():
        lines += extra.split("\n")
    for line in filter(None, map(str.strip, lines)):
        assert line.startswith("#") or not set("<=~!").intersection(line.replace(">=", ""))


TOOLS = ["make", "sh", "sed", "grep", "head", "paste", "mkdir", "rm", "cp", "touch"]
SHIM = "#!/bin/sh\necho 'pyenv: python3.12: command not found' >&2\nexit 127\n"
OLD = """#!/bin/sh
case "$2" in *print*) echo "Python 3.8.1";; esac
exit 1
"""
WITHOUT_VENV = """#!/bin/sh
case "$2" in
*print*) echo "Python 3.11.2"; printf 'Traceback (most recent call last):\\n  File "x"\\n' >&2
         echo "ModuleNotFoundError: No module named 'ensurepip'" >&2;;
esac
exit 1
"""
GOOD = f"""#!/bin/sh
if [ "$1" = -m ]; then mkdir -p .venv/bin; cp "$0" .venv/bin/python; exit 0; fi
exec {sys.executable} "$@"
"""


@pytest.fixture
def make(tmp_path):
    """Runs make in a folder of its own where PATH has but the few tools it needs and the given Pythons."""
    shell = {tool: shutil.which(tool) for tool in TOOLS}
    if not all(shell.values()):
        pytest.skip(f"needs {', '.join(tool for tool, found in shell.items() if not found)}")
    binaries, work = tmp_path / "bin", tmp_path / "a folder"
    binaries.mkdir()
    work.mkdir()
    shutil.copy(ROOT / "Makefile", work)
    for tool, found in shell.items():
        (binaries / tool).symlink_to(found)

    def make(*arguments, **pythons):
        for name, text in pythons.items():
            path = binaries / name.replace("_", ".")
            path.write_text(text)
            path.chmod(path.stat().st_mode | stat.S_IXUSR)
        return subprocess.run(
            ["make", *arguments], cwd=work, env={"PATH": str(binaries)}, capture_output=True, text=True
        )

    return make


def test_make_says_what_is_missing(make):
    done = make(".venv/.place", python3_12=SHIM, python3_11=WITHOUT_VENV, python3=OLD)
    assert done.returncode == 2
    assert done.stderr.splitlines()[:8] == [
        "pnpx needs Python 3.10 to 3.13 with its venv module, and none of these is one:",
        "  python3.13: not found",
        "  python3.12: not found",
        "  python3.11: Python 3.11.2,No module named 'ensurepip'",
        "  python3.10: not found",
        "  python3: Python 3.8.1",
        "  python: not found",
        "Install one (Debian and Ubuntu: python3 and python3-venv), or name it: make PYTHON=/path/to/python3.12",
    ]


def test_make_passes_over_shims_and_keeps_the_environment(make):
    done = make(".venv/.place", python3_12=SHIM, python3_11=GOOD)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("making .venv with python3.11 (3.")
    assert make(".venv/.place").stdout == "make: '.venv/.place' is up to date.\n"
    done = make(".venv/.place", "PYTHON=python3.10", python3_10=GOOD)
    assert done.stdout.startswith("making .venv with python3.10 (3.")
    assert make(".venv/.place").stdout == "make: '.venv/.place' is up to date.\n"


def test_make_help_names_every_target(make):
    done = make("help", python3=OLD)
    assert [line.split()[1] for line in done.stdout.splitlines() if line.startswith("  make")] == [
        "help", "demo", "test", "lint", "types", "bench", "clean"
    ]
