"""Reading and following log files."""

from __future__ import annotations

from pathlib import Path

from retia.cli.tail import Tail, last_lines, prefixed, shorten


def test_last_lines_of_small_large_and_no_files(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text("".join(f"line {n}\n" for n in range(20_000)))
    assert last_lines(path, 2) == ["line 19998", "line 19999"]
    assert len(last_lines(path, 15_000)) == 15_000
    assert last_lines(path, 0) == []
    assert last_lines(tmp_path / "none", 5) == []


def test_following_gives_whole_lines_only(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text("old\n")
    tail = Tail(path)
    with path.open("a") as file:
        file.write("one\ntw")
        file.flush()
        assert list(tail.read()) == ["one"]
        file.write("o\n")
    assert list(tail.read()) == ["two"]
    assert list(tail.read()) == []


def test_an_emptied_file_is_read_from_its_beginning(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text("a long first line\n")
    tail = Tail(path)
    path.write_text("new\n")
    assert list(tail.read()) == ["new"]


def test_a_file_that_appears_later_is_followed(tmp_path: Path) -> None:
    tail = Tail(tmp_path / "later", from_start=True)
    assert list(tail.read()) == []
    (tmp_path / "later").write_text("x\n")
    assert list(tail.read()) == ["x"]


def test_a_log_that_grew_too_large_is_emptied_under_its_writer(tmp_path: Path) -> None:
    path = tmp_path / "workloads" / "web-0.log"
    path.parent.mkdir()
    with path.open("a") as writer:
        writer.write("x" * 100)
        writer.flush()
        shorten(tmp_path, limit_bytes=200)
        assert path.stat().st_size == 100
        shorten(tmp_path, limit_bytes=50)
        writer.write("new\n")
    assert path.read_text() == "new\n"
    assert path.with_suffix(".log.1").read_text() == "x" * 100


def test_prefixes() -> None:
    assert prefixed("web", "hello", 5) == "web   | hello"
    assert prefixed("web", "hello", 3, 36) == "\x1b[36mweb |\x1b[0m hello"
