"""The command ``pnpx``."""

import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, NoReturn

import typer

WRONG_CONFIG, FAILED, INTERRUPTED = 2, 1, 130
"""Exit codes: the configuration or the command line is wrong; something failed; stopped by the user."""

app = typer.Typer(
    help="Explain what PyTorch models do.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
listing = typer.Typer(
    help="List explainers, metrics, models, data or configs.", no_args_is_help=True, rich_markup_mode=None
)
app.add_typer(listing, name="list")


def main() -> None:
    """Run the command."""
    try:
        app(prog_name="pnpx")
    except OSError as error:
        if error.filename is not None or sys.stdout is None:
            raise
        # It is of no file, but of what was printed. What is left of that would fail again as Python ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        print(f"cannot write to the standard output: {error.strerror or error}", file=sys.stderr)
        sys.exit(FAILED)


def _print_version(wanted: bool) -> None:
    if wanted:
        from pnpx import __version__

        typer.echo(f"pnpx {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Explain what PyTorch models do."""


@app.command()
def explain(
    config: Annotated[str, typer.Argument(metavar="CONFIG", help="A YAML file, or the name of a shipped one: digits.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE ...]", help="Changes, such as explainers.0.n_iter=10.")
    ] = None,
    output: Annotated[
        str | None, typer.Option(metavar="FOLDER", help="The folder to write to, instead of the one in CONFIG.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Explain again what was finished before.")] = False,
    allow_code: Annotated[bool, typer.Option("--allow-code", help="Run the factories that CONFIG names.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress bar, no summary.")] = False,
) -> None:
    """Explain what CONFIG names and write attributions, pictures and report.html; what is finished is kept."""
    from pnpx.source import ConfigError

    if output == "":  # as a shell has it whose variable is not set
        _stop(WRONG_CONFIG, "--output must name a folder, but is empty")
    doing = "read what the run needs"
    try:
        from pnpx.pipeline import run
        from pnpx.plan import plan
        from pnpx.shipped import find

        with _warnings_in_lines():
            work = plan(find(config), overrides or [], None if output is None else Path(output), allow_code)
            doing = "write the results"
            outcome = run(work, force=force, quiet=quiet)
    except ConfigError as error:
        _stop(WRONG_CONFIG, *error.problems)
    except KeyboardInterrupt:
        _stop(INTERRUPTED, "interrupted; what was finished is kept: run the same command again to go on")
    except ConnectionError as error:
        _stop(FAILED, str(error))
    except OSError as error:
        where = f": {error.filename}" if error.filename else ""
        _stop(FAILED, f"cannot {doing}: {error.strerror or error}{where}")
    if not quiet:
        if outcome.made or outcome.failures:
            kept = f", {outcome.found} were done before" if outcome.found else ""
            typer.echo(f"{outcome.made} explanations made{kept}")
        else:
            typer.echo(f"all {outcome.found} explanations were done before; --force makes them again")
        for where, ranking in outcome.rankings:
            best = [row.explainer for row in ranking.rows if row.rank is not None][:3]
            if len(ranking.rows) > 1 and best:
                typer.echo(f"best by {ranking.by} at {where}: {', '.join(best)}")
        typer.echo(f"report: {outcome.report}")
    if outcome.failures:
        lines = [
            f"failed: {failure.explainer} at {failure.layer or 'the inputs'} of {failure.model}: {failure.message}"
            for failure in outcome.failures
        ]
        _stop(FAILED, *lines, f"tracebacks: {work.output / 'failures.txt'}")


@app.command()
def recommend(
    config: Annotated[str, typer.Argument(metavar="CONFIG", help="A YAML file, or the name of a shipped one: digits.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE ...]", help="Changes, such as model=digits_lstm.")
    ] = None,
    allow_code: Annotated[bool, typer.Option("--allow-code", help="Run the factories that CONFIG names.")] = False,
) -> None:
    """Say which explainers suit the models of CONFIG, and why each was, or was not, picked, having tried it."""
    from pnpx.source import ConfigError

    try:
        from pnpx.detector import detect
        from pnpx.plan import recommendations
        from pnpx.shipped import find

        with _warnings_in_lines():
            found = recommendations(find(config), overrides or [], allow_code)
    except ConfigError as error:
        _stop(WRONG_CONFIG, *error.problems)
    except KeyboardInterrupt:
        _stop(INTERRUPTED, "interrupted")
    except OSError as error:
        where = f": {error.filename}" if error.filename else ""
        _stop(FAILED, f"cannot read what is needed: {error.strerror or error}{where}")
    for number, (subject, explainers) in enumerate(found):
        if number:
            typer.echo("")
        typer.echo(f"{subject.name}: {detect(subject.module)}")
        rows = []
        for one in explainers:
            at = "" if one.layer is None else f" at {one.layer}"
            rows.append((f"{'+' if one.picked else '-'} {one.name}{at}", one.reason))
        _table(rows)


@listing.command("explainers")
def list_explainers() -> None:
    """The explainers, and what each computes."""
    from pnpx.explainers import all_explainers

    _table([(name, _first_sentence(kind.__doc__)) for name, kind in all_explainers().items()])


@listing.command("metrics")
def list_metrics() -> None:
    """The metrics that judge explanations, and what each measures."""
    from pnpx.metrics import all_metrics

    better = {True: "higher is better", False: "lower is better"}
    _table(
        [
            (name, f"{_first_sentence(kind.__doc__)} ({better[bool(getattr(kind, 'higher_is_better', True))]})")
            for name, kind in all_metrics().items()
        ]
    )


@listing.command("models")
def list_models() -> None:
    """The models of the zoo, their architecture, and their accuracy on held-out data."""
    from pnpx import zoo

    rows = []
    for entry in map(zoo.entry, [*zoo.names(), *zoo.text_names()]):
        # A text model was trained on other texts than those it is shown on.
        data = str(entry.record["data"]).partition(",")[0] if entry.kind == "text" else entry.data
        rows.append((entry.name, f"{entry.accuracy:.1%} on {data}: {entry.architecture}"))
    _table(rows)


@listing.command("data")
def list_data() -> None:
    """The data sets of the zoo."""
    from pnpx import zoo

    found = [zoo.data(name) for name in zoo.data_names()]
    _table(
        [
            (data.name, f"{data.kind}, {len(data.targets)} held-out samples of shape {tuple(data.inputs.shape[1:])}")
            for data in found
        ]
        + [("sentences", f"text, {len(zoo.sentences())} sentences with their sentiment, for the text models")]
    )


@listing.command("configs")
def list_configs() -> None:
    """The configurations that come with pnpx."""
    from pnpx.shipped import configs, title

    _table([(name, title(path)) for name, path in configs().items()])


def _table(rows: list[tuple[str, str]]) -> None:
    width = max((len(name) for name, _ in rows), default=0)
    for name, text in rows:
        typer.echo(f"{name:{width}}  {text}".rstrip())


def _first_sentence(text: str | None) -> str:
    paragraph = " ".join((text or "").strip().partition("\n\n")[0].split())
    sentence, stop, _ = paragraph.partition(". ")
    return sentence + stop.strip()


@contextmanager
def _warnings_in_lines() -> Iterator[None]:
    """Print each text that is warned of once, in a line above the progress bar and without the code that it is from."""
    from tqdm.auto import tqdm

    said = set()

    def show(message: Warning | str, *_: object, **__: object) -> None:
        text = " ".join(str(message).split())
        if text not in said and sys.stderr is not None:
            said.add(text)
            tqdm.write(f"warning: {text}", file=sys.stderr)

    with warnings.catch_warnings():
        warnings.showwarning = show
        yield


def _stop(code: int, *lines: str) -> NoReturn:
    for line in lines:
        print(line, file=sys.stderr)
    raise typer.Exit(code)
