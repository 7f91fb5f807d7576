"""A watched directory of YAML."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from retia.config.codes import Code
from retia.model.finding import Level
from retia.sources import directory as module
from retia.sources.directory import DirectorySource


def service(name: str, port: int = 80, namespace: str = "") -> str:
    where = f"  namespace: {namespace}\n" if namespace else ""
    head = f"apiVersion: v1\nkind: Service\nmetadata:\n  name: {name}\n{where}"
    return f"{head}spec:\n  ports:\n  - port: {port}\n"


@pytest.fixture
def source(tmp_path: Path) -> DirectorySource:
    return DirectorySource(tmp_path)


def names(source: DirectorySource) -> list[str]:
    return [f"{o.ref.namespace}/{o.ref.name}" for o in source.list().objects]


def messages(source: DirectorySource) -> list[str]:
    return [f.message for f in source.findings()]


def port_of(source: DirectorySource, name: str) -> int:
    (found,) = (o for o in source.list().objects if o.ref.name == name)
    return int(found.document["spec"]["ports"][0]["port"])


class TestWhichFilesCount:
    def test_yaml_and_json_at_any_depth(self, source: DirectorySource) -> None:
        (source.root / "deep/er").mkdir(parents=True)
        (source.root / "a.yaml").write_text(service("a"))
        (source.root / "deep/b.yml").write_text(service("b", namespace="shop"))
        ports = {"ports": [{"port": 80}]}
        document = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "c"}, "spec": ports}
        (source.root / "deep/er/c.json").write_text(json.dumps(document))
        assert source.scan()
        assert names(source) == ["default/a", "default/c", "shop/b"]
        assert source.findings() == ()
        assert not source.scan()

    @pytest.mark.parametrize(
        "name",
        [".a.yaml.swp", ".a.yaml", "a.yaml~", "#a.yaml#", "#a.yaml", "4913", "a.yaml.tmp", "a.txt", "README"],
    )
    def test_editors_files_do_not(self, source: DirectorySource, name: str) -> None:
        (source.root / name).write_text("{")
        assert not source.scan()
        assert source.findings() == ()

    def test_hidden_directories_do_not_but_links_into_them_do(self, source: DirectorySource) -> None:
        """As Kubernetes mounts a ConfigMap."""
        (source.root / "..2030").mkdir()
        (source.root / "..2030/a.yaml").write_text(service("a"))
        (source.root / "..data").symlink_to("..2030")
        (source.root / "a.yaml").symlink_to("..data/a.yaml")
        source.scan()
        assert names(source) == ["default/a"]
        (source.root / "..2031").mkdir()
        (source.root / "..2031/a.yaml").write_text(service("a", 81))
        (source.root / "..new").symlink_to("..2031")
        (source.root / "..new").rename(source.root / "..data")
        source.scan()
        assert port_of(source, "a") == 81

    def test_a_link_to_nothing_is_no_file(self, source: DirectorySource) -> None:
        (source.root / "a.yaml").symlink_to("nowhere")
        assert not source.scan()


class TestWhatIsWrong:
    @pytest.mark.parametrize(
        ("content", "code"),
        [
            (b"kind: [", Code.SYNTAX),
            (b"kind: Service\n", Code.NOT_AN_OBJECT),
            (b"hello", Code.NOT_AN_OBJECT),
            (service("a").encode() + b"---\n" + service("b", 70_000).encode(), Code.BAD_VALUE),
            (b"\xff\xfe\xff", Code.UNREADABLE),
            (b"", Code.UNREADABLE),
            (b"x" * (module.MAX_FILE_BYTES + 1), Code.LIMIT),
        ],
        ids=["syntax", "no object", "text", "one of two", "bytes", "empty", "large"],
    )
    def test_a_broken_file_keeps_its_last_good_objects(
        self, source: DirectorySource, content: bytes, code: Code
    ) -> None:
        (source.root / "a.yaml").write_text(service("a") + "---\n" + service("b"))
        (source.root / "c.yaml").write_text(service("c"))
        source.scan()
        (source.root / "a.yaml").write_bytes(content)
        (source.root / "c.yaml").write_text(service("c", 8080))
        assert source.scan()
        assert names(source) == ["default/a", "default/b", "default/c"]
        assert port_of(source, "c") == 8080
        finding = source.findings()[0]
        assert (finding.code, finding.level) == (code, Level.ERROR)
        assert finding.origin.path == str(source.root / "a.yaml")
        assert "the last good version of its 2 objects stays in force" in finding.message
        (source.root / "a.yaml").write_text(service("a", 81))
        assert source.scan()
        assert names(source) == ["default/a", "default/c"]
        assert source.findings() == ()

    def test_a_file_broken_from_the_start_gives_nothing_and_hinders_nobody(
        self, source: DirectorySource
    ) -> None:
        (source.root / "a.yaml").write_text("kind: Service\n  name: [")
        (source.root / "b.yaml").write_text(service("b"))
        source.scan()
        assert names(source) == ["default/b"]
        assert source.findings()[0].origin.line == 2
        assert "none of it is used" in messages(source)[0]

    def test_an_empty_file_from_the_start_is_nothing(self, source: DirectorySource) -> None:
        (source.root / "a.yaml").write_text("# later\n---\n")
        (source.root / "b.yaml").write_text("")
        source.scan()
        assert source.findings() == ()

    def test_an_unreadable_file_keeps_its_objects(
        self, source: DirectorySource, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (source.root / "a.yaml").write_text(service("a"))
        source.scan()
        (source.root / "a.yaml").write_text(service("a", 8080))

        def refuse(_: Path) -> bytes:  # root may read everything, so a mode would not do
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(Path, "read_bytes", refuse)
        source.scan()
        assert "cannot be read: Permission denied" in messages(source)[0]
        assert port_of(source, "a") == 80

    def test_an_object_in_two_files_comes_from_the_first(self, source: DirectorySource) -> None:
        (source.root / "b.yaml").write_text("# two\n" + service("x", 2))
        (source.root / "a.yaml").write_text(service("x", 1))
        source.scan()
        assert port_of(source, "x") == 1
        (finding,) = source.findings()
        assert finding.code == Code.DUPLICATE_OBJECT
        assert str(source.root / "a.yaml") in finding.message
        assert finding.origin.path == str(source.root / "b.yaml")
        (source.root / "a.yaml").unlink()
        source.scan()
        assert port_of(source, "x") == 2
        assert source.findings() == ()
        assert source.origin(source.list().objects[0].ref).line == 2

    def test_a_directory_that_is_gone_keeps_everything(self, source: DirectorySource, tmp_path: Path) -> None:
        root = tmp_path / "conf"
        root.mkdir()
        (root / "a.yaml").write_text(service("a"))
        source = DirectorySource(root)
        source.scan()
        root.rename(tmp_path / "away")
        assert source.scan()
        assert names(source) == ["default/a"]
        assert "1 objects of its last good state stay in force" in messages(source)[0]
        (tmp_path / "away").rename(root)
        source.scan()
        assert source.findings() == ()
        (root / "a.yaml").unlink()
        source.scan()
        assert names(source) == []


@asynccontextmanager
async def running(source: DirectorySource) -> AsyncIterator[None]:
    await asyncio.to_thread(source.scan)
    task = asyncio.create_task(source.run(), name="directory")
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def until(source: DirectorySource, wanted: list[str]) -> None:
    """Waits for the objects; bounded."""
    changed = asyncio.Event()
    loop = asyncio.get_running_loop()
    leave = source.subscribe(lambda: loop.call_soon_threadsafe(changed.set))
    try:
        async with asyncio.timeout(10):
            while names(source) != wanted:
                changed.clear()
                await changed.wait()
    finally:
        leave()


class TestFollowing:
    async def test_files_come_change_and_go(self, source: DirectorySource) -> None:
        async with running(source):
            (source.root / "sub").mkdir()
            (source.root / "sub/a.yaml").write_text(service("a"))
            await until(source, ["default/a"])
            (source.root / "sub/a.yaml").write_text(service("b"))
            await until(source, ["default/b"])
            (source.root / "sub/a.yaml").unlink()
            await until(source, [])

    async def test_an_editors_save_is_never_seen_as_a_deletion(self, source: DirectorySource) -> None:
        file = source.root / "a.yaml"
        file.write_text(service("a"))
        gone: list[int] = []
        async with running(source):
            source.subscribe(lambda: gone.append(1) if not source.list().objects else None)
            for port in range(81, 86):
                file.rename(source.root / "a.yaml~")
                await asyncio.sleep(0.01)
                file.write_text(service("a", port))
                (source.root / "a.yaml~").unlink()
            file.with_suffix(".tmp").write_text(service("a", 90) + "---\n" + service("b"))
            file.with_suffix(".tmp").rename(file)
            await until(source, ["default/a", "default/b"])
            assert port_of(source, "a") == 90
        assert not gone

    async def test_a_directory_may_come_later_and_be_replaced(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(module, "TICK_S", 0.05)
        root = tmp_path / "conf"
        source = DirectorySource(root)
        async with running(source):
            assert "does not exist" in messages(source)[0]
            (tmp_path / "one").mkdir()
            (tmp_path / "one/a.yaml").write_text(service("a"))
            (tmp_path / "one").rename(root)
            await until(source, ["default/a"])
            (tmp_path / "two").mkdir()
            (tmp_path / "two/b.yaml").write_text(service("b"))
            root.rename(tmp_path / "old")
            (tmp_path / "two").rename(root)
            await until(source, ["default/b"])
            (root / "b.yaml").write_text(service("c"))
            await until(source, ["default/c"])
            assert source.findings() == ()
