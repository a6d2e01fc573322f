"""Files of texts: what they may hold, and one line for what is wrong with them."""

import json

import pytest

from pnpx.text.samples import TextSample, TextSamples, read_file


@pytest.fixture
def write(tmp_path):
    def write(name, content):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
        return path

    return write


def test_lines(write):
    found = read_file(write("a.TXT", "\ufeffOne, two.\n\n  \n  Zoë: 日本\r\nlast"))
    assert found.name == "a.TXT"
    assert list(found.inputs) == [TextSample("One, two."), TextSample("  Zoë: 日本"), TextSample("last")]


@pytest.mark.parametrize("suffix, delimiter", [("csv", ","), ("tsv", "\t")])
def test_tables(write, suffix, delimiter):
    names = ["id", "text", "label", "pair", "target"]
    rows = [["1", '"a, b\n""c"""', "GOOD", "p", "BAD"], ["2", "d", "", "", ""]]
    content = "\n".join(delimiter.join(row) for row in [names, *rows])
    assert list(read_file(write(f"a.{suffix}", content)).inputs) == [
        TextSample('a, b\n"c"', "p", "GOOD", "BAD"), TextSample("d")]


def test_tables_with_columns_of_other_names_and_long_texts(write):
    long = "word " * 60_000
    found = read_file(write("a.csv", f"x,y,text\n{long},3,no\n"), {"text": "x", "label": "y"})
    assert list(found.inputs) == [TextSample(long, None, "3")]


def test_lines_of_json(write):
    rows = [{"text": "a\nb\u2028c", "label": 1}, "only a text", {"text": "c", "target": ["GOOD", 0], "more": {"x": 1}}]
    path = write("a.jsonl", "\n\n".join(json.dumps(row, ensure_ascii=False) for row in rows) + "\n")
    assert list(read_file(path).inputs) == [
        TextSample("a\nb\u2028c", label=1), TextSample("only a text"), TextSample("c", target=["GOOD", 0])]
    found = read_file(write("b.ndjson", '{"t": "x"}\n"y"'), {"text": "t"})
    assert [sample.text for sample in found.inputs] == ["x", "y"]


@pytest.mark.parametrize("name, content, columns, message", [
    ("a.parquet", "x", {}, "a file of texts must be one of .txt, .csv, .tsv, .jsonl, .ndjson, but is 'a.parquet'"),
    ("a.txt", "", {}, "a.txt must hold at least one text, but holds none"),
    ("a.txt", "x", {"text": "a"}, "a file of lines has no columns, but 'text' is said to be one; use a .csv or .jsonl"),
    ("a.txt", b"abc\xff", {}, "a.txt must be UTF-8 text, but byte 3 is none"),
    ("a.csv", "", {}, "a.csv must have the column 'text' in its first row; there are none; say which it is: "
                      "columns: {text: ...}"),
    ("a.csv", "texts\nx", {}, "a.csv must have the column 'text' in its first row; the nearest: 'texts'; say which it "
                              "is: columns: {text: ...}"),
    ("a.csv", "text\nx", {"label": "gold"},
     "a.csv must have the column 'gold' in its first row; there are: 'text'"),
    ("a.csv", "text\n", {}, "a.csv must hold at least one text, but holds none"),
    ("a.csv", "text,label\na,b\nOne, two,b\n", {},
     "a.csv:3: must have 2 columns, as the first row has, but has more; put texts with commas into quotes"),
    ("a.csv", "text,label\n,b\n", {}, "a.csv:2: must have a text in 'text', but it is empty"),
    ("a.csv", "text,label\n  ,b\n", {}, "a.csv:2: must have a text in 'text', but it is empty"),
    ("a.csv", 'text\n"a\n', {}, "a.csv: no valid table: unexpected end of data"),
    ("a.jsonl", '{"text": "a"}\n{"text: 1}\n', {}, "a.jsonl:2: must be a line of JSON: Unterminated string"),
    ("a.jsonl", "[" * 100_000, {}, "a.jsonl:1: must be a line of JSON: "),
    ("a.jsonl", "[1]", {}, "a.jsonl:1: must be a mapping or a text, but is a list"),
    ("a.jsonl", '{"txt": "a"}', {}, "a.jsonl:1: must have a text in 'text', but it is not there; the nearest: 'txt'"),
    ("a.jsonl", '{"text": 3}', {}, "a.jsonl:1: 'text' must be a text, but is 3"),
    ("a.jsonl", '{"text": "a", "label": 1.5}', {},
     "a.jsonl:1: 'label' must be the name or the number of a class, but is 1.5"),
    ("a.jsonl", '{"text": "a", "target": [true]}', {},
     "a.jsonl:1: 'target' must be the name or the number of a class, but is True"),
    ("a.jsonl", '{"text": "a"}', {"label": "gold"},
     "a.jsonl must have something in the column 'gold', but has nothing in any line"),
])
def test_what_is_wrong(write, name, content, columns, message):
    with pytest.raises(ValueError) as error:
        read_file(write(name, content), columns)
    assert str(error.value).startswith(message)


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(ValueError, match=r"there is no file '.*a.txt'"):
        read_file(tmp_path / "a.txt")
    (tmp_path / "b.txt").mkdir()
    with pytest.raises(ValueError, match=r"b.txt' cannot be read: "):
        read_file(tmp_path / "b.txt")


def test_what_an_explainer_is_given():
    samples = TextSamples("here", [TextSample("a", label=1), TextSample("b", "c", target="GOOD")])
    assert samples.take([1, 0]) == [("b", "c"), "a"]
    assert [samples.label(0), samples.label(1)] == ["1", None]
    assert samples.identity(0) != samples.identity(1)
