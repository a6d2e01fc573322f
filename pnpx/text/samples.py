"""Texts to explain, with what is known of them: of the zoo, written in a configuration, or in a file."""

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from pnpx.suggest import nearest

Rows: TypeAlias = Iterator[tuple[int, Mapping[str, Any]]]
"""What stands on lines of a file, by their numbers from 1."""

SUFFIXES = (".txt", ".csv", ".tsv", ".jsonl", ".ndjson")


@dataclass(frozen=True)
class TextSample:
    """A text, or a pair of them, and what is known of it."""

    text: str
    pair: str | None = None
    label: str | int | None = None
    """The true class, by name or number."""
    target: Any = None
    """What is explained: a class by name or number, several of them, a text to be generated; None: what is said for all
    texts."""

    @property
    def given(self) -> str | tuple[str, str]:
        """What an explainer is given."""
        return self.text if self.pair is None else (self.text, self.pair)

    @property
    def texts(self) -> tuple[str, ...]:
        """The text, or both texts of the pair."""
        return (self.text,) if self.pair is None else (self.text, self.pair)


@dataclass(frozen=True, eq=False)
class TextSamples:
    """Texts, by the name of where they are from; ``inputs[i]`` is text i."""

    name: str
    inputs: Sequence[TextSample]

    def label(self, index: int) -> str | None:
        """The true class of a text, in words."""
        label = self.inputs[index].label
        return None if label is None else str(label)

    def identity(self, index: int) -> tuple[object, ...]:
        """What an explanation of text ``index`` depends on."""
        sample = self.inputs[index]
        return sample.text, sample.pair, sample.target

    def take(self, indices: Sequence[int]) -> list[str | tuple[str, str]]:
        """These texts, for an explainer."""
        return [self.inputs[index].given for index in indices]


def read_file(path: Path, columns: Mapping[str, str] | None = None) -> TextSamples:
    """The texts in a file.

    A ``.txt`` file has one on each line; lines of white space alone are left out. A ``.csv`` or ``.tsv`` file names its
    columns in its first row. A ``.jsonl`` file has on each line a mapping, or a text.

    Args:
        path: a file in UTF-8.
        columns: what the columns are called that hold the "text", and the "pair", "label" and "target"; where the
            latter are not given, columns of these names are taken if they are there.

    Raises:
        ValueError: in one line, with the line of the file, if it cannot be read as texts.
    """
    columns = columns or {}
    if path.suffix.lower() not in SUFFIXES:
        raise ValueError(f"a file of texts must be one of {', '.join(SUFFIXES)}, but is {path.name!r}")
    content = _content(path)
    if path.suffix.lower() == ".txt":
        for name in columns:
            raise ValueError(f"a file of lines has no columns, but {name!r} is said to be one; use a .csv or .jsonl")
        rows = _lines(content)
    elif path.suffix.lower() in (".csv", ".tsv"):
        rows = _table(content, "\t" if path.suffix.lower() == ".tsv" else ",", path, columns)
    else:
        rows = _json_lines(content, path, columns.get("text", "text"))
    samples = [_sample(row, f"{path.name}:{number}", columns) for number, row in rows]
    if not samples:
        raise ValueError(f"{path.name} must hold at least one text, but holds none")
    absent = [column for name, column in columns.items() if all(getattr(one, name) is None for one in samples)]
    if absent:
        raise ValueError(f"{path.name} must have something in the column {absent[0]!r}, but has nothing in any line")
    return TextSamples(path.name, samples)


def _content(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise ValueError(f"there is no file {str(path)!r}") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"{path.name} must be UTF-8 text, but byte {error.start} is none") from None
    except OSError as error:
        raise ValueError(f"{str(path)!r} cannot be read: {error.strerror}") from None


def _lines(content: str) -> Rows:
    return ((number, {"text": line}) for number, line in enumerate(content.splitlines(), 1) if line.strip())


def _table(content: str, delimiter: str, path: Path, columns: Mapping[str, str]) -> Rows:
    before = csv.field_size_limit(max(len(content), 1))  # texts may be longer than what is allowed by default
    try:
        reader = csv.DictReader(io.StringIO(content, newline=""), delimiter=delimiter, strict=True)
        names = list(reader.fieldnames or [])
        for name, column in {"text": "text", **columns}.items():
            if column not in names:
                said = "; say which it is: columns: {text: ...}" if name == "text" and not columns.get(name) else ""
                raise ValueError(f"{path.name} must have the column {column!r} in its first row; "
                                 f"{nearest(column, names)}{said}")
        for row in reader:
            if None in row:
                raise ValueError(f"{path.name}:{reader.line_num}: must have {len(names)} columns, as the first row "
                                 "has, but has more; put texts with commas into quotes")
            yield reader.line_num, {key: value if value != "" else None for key, value in row.items()}
    except csv.Error as error:
        raise ValueError(f"{path.name}: no valid table: {error}") from None
    finally:
        csv.field_size_limit(before)


def _json_lines(content: str, path: Path, text: str) -> Rows:
    for number, line in enumerate(content.split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            said = getattr(error, "msg", "nested too deep")
            raise ValueError(f"{path.name}:{number}: must be a line of JSON: {said}") from None
        if isinstance(row, str):
            row = {text: row}
        if not isinstance(row, dict):
            raise ValueError(f"{path.name}:{number}: must be a mapping or a text, but is a {type(row).__name__}")
        yield number, row


def _sample(row: Mapping[str, Any], place: str, columns: Mapping[str, str]) -> TextSample:
    found: dict[str, Any] = {name: row.get(columns.get(name, name)) for name in ("text", "pair", "label", "target")}
    text, column = found["text"], columns.get("text", "text")
    if text is None:
        there = [str(name) for name, value in row.items() if value is not None]
        said = "is empty" if column in row else f"is not there; {nearest(column, there)}"
        raise ValueError(f"{place}: must have a text in {column!r}, but it {said}")
    for name in ("text", "pair"):
        if found[name] is not None and not isinstance(found[name], str):
            raise ValueError(f"{place}: {columns.get(name, name)!r} must be a text, but is {found[name]!r:.60}")
    if not f"{text}{found['pair'] or ''}".strip():
        raise ValueError(f"{place}: must have a text in {column!r}, but it is empty")
    for name in ("label", "target"):
        several = found[name] if name == "target" and isinstance(found[name], list) else [found[name]]
        for one in several:
            if one is not None and (isinstance(one, bool) or not isinstance(one, (str, int))):
                raise ValueError(f"{place}: {columns.get(name, name)!r} must be the name or the number of a class, "
                                 f"but is {one!r:.60}")
    return TextSample(**found)
