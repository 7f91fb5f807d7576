"""apply, get, delete: arguments, request, table, JSON and exact errors."""

from __future__ import annotations

import io
from pathlib import Path
from types import SimpleNamespace

import pytest

from retia.api import schema
from tests.unit.api.fakes import FakeBackend
from tests.unit.cli.conftest import Run

VS = "kind: VirtualService\nmetadata: {{name: {}}}\nspec: {{}}\n"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "reviews.yaml"
    path.write_text(VS.format("reviews"))
    return path


def test_apply_says_what_became_of_each_object(run: Run, backend: FakeBackend, file: Path) -> None:
    assert run("apply", "-f", str(file)).out == "VirtualService/default/reviews created\n"
    assert run("apply", "-f", str(file)).out == "VirtualService/default/reviews unchanged\n"
    assert backend.calls[-1] == ("apply", [str(file)], False)


def test_a_dry_run_is_passed_on_and_said(run: Run, backend: FakeBackend, file: Path) -> None:
    ran = run("apply", "-f", str(file), "--dry-run")
    assert ran.out == "VirtualService/default/reviews created (dry run)\n"
    assert backend.calls == [("apply", [str(file)], True)]
    assert not backend.objects


def test_a_folder_is_read_with_its_sub_folders_in_order(
    run: Run, backend: FakeBackend, tmp_path: Path
) -> None:
    for name in ("b.yaml", "a/z.yml", ".hidden/x.yaml", "notes.txt"):
        path = tmp_path / "config" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(VS.format("x"))
    run("apply", "-f", str(tmp_path / "config"))
    assert backend.calls[0][1] == [str(tmp_path / "config" / n) for n in ("a/z.yml", "b.yaml")]


def test_standard_input_is_a_dash(run: Run, backend: FakeBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    text = io.BytesIO(VS.format("piped").encode())
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=text))
    assert run("apply", "-f", "-").out == "VirtualService/default/piped created\n"
    assert backend.calls[0][1] == ["-"]


def test_wrong_configuration_is_shown_with_file_and_line_and_nothing_is_applied(
    run: Run, backend: FakeBackend, file: Path
) -> None:
    file.write_text("bad: true\n")
    ran = run("apply", "-f", str(file))
    assert (ran.code, ran.out) == (1, "")
    assert ran.err == (
        f"error: {file}:3: VirtualService/default/x: spec.bad: unknown field; remove it [RT0001]\n"
        "nothing was applied: 1 error\n"
    )


def test_the_result_as_json(run: Run, backend: FakeBackend, file: Path) -> None:
    ran = run("apply", "-f", str(file), "-o", "json")
    assert ran.json["items"][0]["action"] == "created"
    assert ran.json["applied"] is True


@pytest.mark.parametrize(
    ("name", "message"),
    [("none.yaml", "retia: cannot read {}/none.yaml: No such file or directory\n")],
)
def test_a_file_that_cannot_be_read_is_said_before_any_request(
    run: Run, backend: FakeBackend, tmp_path: Path, name: str, message: str
) -> None:
    ran = run("apply", "-f", str(tmp_path / name))
    assert (ran.code, ran.err) == (1, message.format(tmp_path))
    assert not backend.calls


def test_an_empty_folder_is_an_error(run: Run, backend: FakeBackend, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    ran = run("apply", "-f", str(tmp_path / "empty"))
    assert ran.code == 1
    assert "no file ending in .yaml, .yml, .json" in ran.err


def test_get_lists_and_shows_one_with_its_delivery(run: Run, backend: FakeBackend, file: Path) -> None:
    run("apply", "-f", str(file))
    header, row = run("get", "vs").out.splitlines()
    assert header.split() == ["KIND", "NAMESPACE", "NAME", "REVISION", "FINDINGS"]
    assert row.split() == ["VirtualService", "default", "reviews", "1", "-"]
    key = "VirtualService/default/reviews"
    pending = schema.DeliveryProxy(proxy="default/web-0", resource="VHDS x", wanted="2", state="pending")
    backend.deliveries[key] = schema.Delivery(object=key, acked=2, pending=1, proxies=[pending])
    ran = run("get", "VirtualService", "reviews")
    assert "2/3" in ran.out
    assert ran.err == "default/web-0: VHDS x: pending\n"


def test_get_as_yaml_can_be_applied_again(run: Run, backend: FakeBackend, file: Path) -> None:
    run("apply", "-f", str(file))
    text = run("get", "all", "-o", "yaml").out
    file.write_text(text)
    assert run("apply", "-f", str(file)).out == "VirtualService/default/reviews unchanged\n"


def test_get_of_nothing_is_empty_json_and_a_message(run: Run, backend: FakeBackend) -> None:
    assert run("get", "vs", "-o", "json").json == []
    ran = run("get", "vs", "-n", "shop")
    assert (ran.code, ran.out, ran.err) == (0, "", "nothing found in namespace shop\n")


def test_get_of_an_unknown_kind_fails_with_the_controllers_words(run: Run, backend: FakeBackend) -> None:
    ran = run("get", "pods")
    assert (ran.code, ran.err) == (1, "retia: there is no kind 'pods'\n")


def test_delete_by_name_and_by_file(run: Run, backend: FakeBackend, file: Path) -> None:
    run("apply", "-f", str(file))
    assert run("delete", "VirtualService", "reviews").out == "VirtualService/default/reviews deleted\n"
    run("apply", "-f", str(file))
    assert run("delete", "-f", str(file)).out == "VirtualService/default/reviews deleted\n"
    ran = run("delete", "-f", str(file))
    assert (ran.code, ran.err) == (1, "VirtualService/default/reviews was not there\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["vs", "x", "-f", "y"], "retia: -f and KIND NAME contradict each other; use one of them\n"),
        (["vs"], "retia: say what to delete: KIND NAME, or -f FILE\n"),
    ],
    ids=["both", "half"],
)
def test_delete_refuses_contradictions_before_any_work(
    run: Run, home: Path, arguments: list[str], message: str
) -> None:
    ran = run("delete", *arguments)
    assert (ran.code, ran.err) == (2, message)
