"""Files are written whole or not at all, and nothing but files is replaced."""

import os
from pathlib import Path

import pytest
import torch

from pnpx.atomic import write_whole
from pnpx.explanation import Explanation
from pnpx.text import TextExplanation
from pnpx.text.granularity import Unit

TENSOR = Explanation(torch.ones(1, 2), torch.ones(1, 2), torch.ones(1, 2), None, None, None, None, {}, 0.0)
TEXT = TextExplanation(("a",), (Unit("a", (0, 1), (0,), 0),), torch.ones(1))


def test_a_file_is_made_and_replaced(tmp_path):
    for content in (b"one", b"2"):
        write_whole(tmp_path / "a", content)
        assert (tmp_path / "a").read_bytes() == content
    assert os.listdir(tmp_path) == ["a"]


@pytest.mark.parametrize("explanation", [TENSOR, TEXT])
def test_a_folder_is_neither_written_nor_read(explanation, tmp_path):
    folder = tmp_path / "results"
    folder.mkdir()
    for refused in (explanation.save, type(explanation).load):
        with pytest.raises(IsADirectoryError) as error:
            refused(folder)
        assert str(error.value) == f"{str(folder)!r} must be a file, but is a folder; name a file, such as one in it"
    assert os.listdir(tmp_path) == ["results"] and not os.listdir(folder)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no named pipes")
@pytest.mark.parametrize("name", ["pipe", "link"])
def test_what_is_no_file_is_not_replaced(name, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("pipe")
    with pytest.raises(FileExistsError) as error:
        TENSOR.save(tmp_path / name)
    assert str(error.value).startswith(f"{str(tmp_path / name)!r} must be a file or not exist, but is a device")
    assert (tmp_path / "pipe").is_fifo() and (tmp_path / "link").is_symlink()
    assert sorted(os.listdir(tmp_path)) == ["link", "pipe"]


def test_a_link_is_followed(tmp_path):
    (tmp_path / "of").mkdir()
    link = tmp_path / "link"
    link.symlink_to(os.path.join("of", "file"))
    for content in (b"made", b"replaced"):
        write_whole(link, content)
        assert link.is_symlink() and (tmp_path / "of" / "file").read_bytes() == content
    assert os.listdir(tmp_path / "of") == ["file"]


def test_links_that_lead_in_a_circle_are_left_alone(tmp_path):
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(FileExistsError):
        write_whole(tmp_path / "a", b"one")
    assert os.readlink(tmp_path / "a") == "b" and os.readlink(tmp_path / "b") == "a"


def test_an_error_names_the_path_that_was_given(tmp_path):
    path = tmp_path / ("a" * 250)  # with more around it, the name is longer than any that a file may have
    with pytest.raises(OSError) as error:
        write_whole(path, b"one")
    assert error.value.filename == str(path) and ".part" not in str(error.value)
    assert not os.listdir(tmp_path)


def test_a_full_disk_names_the_path_that_was_given(tmp_path, monkeypatch):
    def full(self, content):
        raise OSError(28, "No space left on device")  # as write(2) says it: of no file

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError) as error:
        write_whole(tmp_path / "a", b"one")
    assert (error.value.errno, error.value.filename) == (28, str(tmp_path / "a"))
    assert not os.listdir(tmp_path)
