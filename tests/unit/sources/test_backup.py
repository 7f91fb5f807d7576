"""Backup and restore: whole or not at all."""

from __future__ import annotations

import gzip
import io
import json
import stat
import tarfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from retia.model.ids import Namespace
from retia.model.objects import ObjectRef
from retia.sources import backup
from retia.sources.backup import BackupError
from retia.sources.sqlite import MIGRATIONS, SqliteStore
from retia.sources.store import Put

NOW = datetime(2030, 1, 1, 12, tzinfo=UTC)
A = ObjectRef("K", Namespace("n"), "a")


def write_pair(directory: Path, name: str) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([]))
        .issuer_name(x509.Name([]))
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(NOW)
        .not_valid_after(NOW.replace(year=2031))
        .sign(key, hashes.SHA256())
    )
    (directory / f"{name}.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (directory / f"{name}.key").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )


@pytest.fixture
def controller(tmp_path: Path) -> Path:
    """A controller's state with three objects."""
    home = tmp_path / "controller"
    (home / "authority").mkdir(parents=True)
    write_pair(home / "authority", "root")
    (home / "authority/authority.json").write_text("{}")
    with SqliteStore(home / "store.sqlite") as store:
        store.write([Put(ObjectRef("K", Namespace("n"), name), {"x": name}) for name in "abc"])
    return home


@pytest.fixture
def archive(controller: Path, tmp_path: Path) -> Path:
    target = tmp_path / "mesh.tar.gz"
    backup.write(controller, target, "0.1.0", NOW)
    return target


def objects(controller: Path) -> list[str]:
    with SqliteStore(controller / "store.sqlite") as store:
        return [o.ref.name for o in store.list().objects]


def test_what_was_saved_comes_back(archive: Path, controller: Path, tmp_path: Path) -> None:
    manifest = backup.restore(archive, tmp_path / "new")
    assert (manifest.software, manifest.created, manifest.revision, manifest.objects) == (
        "0.1.0",
        int(NOW.timestamp()),
        1,
        3,
    )
    assert manifest == backup.read_manifest(archive)
    assert objects(tmp_path / "new") == ["a", "b", "c"]
    for name in ("root.key", "root.pem", "authority.json"):
        restored = tmp_path / "new/authority" / name
        assert restored.read_bytes() == (controller / "authority" / name).read_bytes()
        assert stat.S_IMODE(restored.stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o700


def test_the_archive_is_its_owners_alone_and_leaves_nothing_beside(archive: Path, tmp_path: Path) -> None:
    assert stat.S_IMODE(archive.stat().st_mode) == 0o600
    assert sorted(p.name for p in tmp_path.iterdir()) == ["controller", "mesh.tar.gz"]


def test_a_running_controller_is_saved_consistently(controller: Path, tmp_path: Path) -> None:
    with SqliteStore(controller / "store.sqlite") as store:
        store.write([Put(A, {"x": "in the log only"})])
        backup.write(controller, tmp_path / "b", "0.1.0", NOW)
        assert store.write([Put(A, {"x": "later"})]).revision == 3
    backup.restore(tmp_path / "b", tmp_path / "new")
    with SqliteStore(tmp_path / "new/store.sqlite") as store:
        found = store.get(A)
        assert found is not None
        assert found.document == {"x": "in the log only"}


def test_an_existing_file_is_not_overwritten(archive: Path, controller: Path) -> None:
    before = archive.read_bytes()
    with pytest.raises(BackupError, match="exists; choose a new file name"):
        backup.write(controller, archive, "0.1.0", NOW)
    assert archive.read_bytes() == before


def test_existing_state_is_replaced_only_when_forced_and_kept(archive: Path, controller: Path) -> None:
    with SqliteStore(controller / "store.sqlite") as store:
        store.write([Put(ObjectRef("K", Namespace("n"), "later"), {})])
    with pytest.raises(BackupError, match="use --force"):
        backup.restore(archive, controller)
    backup.restore(archive, controller, force=True, now=NOW)
    assert objects(controller) == ["a", "b", "c"]
    assert objects(controller.with_name("controller.before-restore-20300101-120000"))[-1] == "later"


def test_an_empty_directory_needs_no_force(archive: Path, tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    backup.restore(archive, tmp_path / "new")
    assert len(objects(tmp_path / "new")) == 3


def test_a_running_controller_is_never_replaced(archive: Path, controller: Path) -> None:
    with SqliteStore(controller / "store.sqlite"), pytest.raises(BackupError, match="is running on"):
        backup.restore(archive, controller, force=True)


@pytest.mark.parametrize("what", ["store.sqlite", "root.key"])
def test_damaged_state_is_not_saved(controller: Path, tmp_path: Path, what: str) -> None:
    (controller / what if "." in what and "root" not in what else controller / "authority" / what).write_text(
        "x"
    )
    with pytest.raises(BackupError):
        backup.write(controller, tmp_path / "b", "0.1.0", NOW)
    assert [p.name for p in tmp_path.iterdir()] == ["controller"]


def test_without_a_store_there_is_nothing_to_save(tmp_path: Path) -> None:
    with pytest.raises(BackupError, match="there is no store"):
        backup.write(tmp_path / "none", tmp_path / "b", "0.1.0", NOW)


Members = dict[str, bytes]


def rewrite(archive: Path, change: Callable[[Members], None], target: Path) -> Path:
    """The archive with other members."""
    with tarfile.open(archive) as old:
        members = {m.name: (old.extractfile(m) or io.BytesIO()).read() for m in old.getmembers()}
    change(members)
    with tarfile.open(target, "w:gz") as new:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            new.addfile(member, io.BytesIO(content))
    return target


def manifest_with(**values: object) -> Callable[[Members], None]:
    def change(members: Members) -> None:
        members["manifest.json"] = json.dumps(json.loads(members["manifest.json"]) | values).encode()

    return change


def flip(name: str) -> Callable[[Members], None]:
    def change(members: Members) -> None:
        content = bytearray(members[name])
        content[-1] ^= 1
        members[name] = bytes(content)

    return change


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (flip("authority/root.key"), "the checksum of authority/root.key is wrong"),
        (flip("store.sqlite"), "the checksum of store.sqlite is wrong"),
        (lambda m: m.pop("store.sqlite"), "store.sqlite missing"),
        (lambda m: m.pop("authority/root.pem"), "authority/root.pem missing"),
        (
            lambda m: m.update({"../../etc/passwd": b"x"}),
            "'../../etc/passwd' is not as manifest.json describes",
        ),
        (lambda m: m.update({"authority/more": b"x"}), "'authority/more' is not as"),
        (manifest_with(format=99), "format 99, written by Retia 0.1.0; this one reads up to 1: upgrade it"),
        (manifest_with(files=[]), "is not as manifest.json describes it"),
        (
            manifest_with(files=[{"path": "../x", "size_bytes": 1, "sha256": ""}]),
            "its manifest.json is damaged",
        ),
        (
            manifest_with(files=[{"path": "authority/../../x", "size_bytes": 1, "sha256": ""}]),
            "its manifest.json is damaged",
        ),
        (manifest_with(files=1), "its manifest.json is damaged"),
        (lambda m: m.update({"manifest.json": b"{"}), "its manifest.json is damaged"),
        (lambda m: m.update({"manifest.json": b"[]"}), "its manifest.json is damaged"),
        (lambda m: m.pop("manifest.json"), "it does not begin with manifest.json"),
    ],
)
def test_a_changed_archive_is_refused_before_anything_is_replaced(
    archive: Path, controller: Path, tmp_path: Path, change: Callable[[Members], None], reason: str
) -> None:
    changed = rewrite(archive, change, tmp_path / "changed")
    with pytest.raises(BackupError, match=reason):
        backup.restore(changed, controller, force=True)
    assert len(objects(controller)) == 3
    assert sorted(p.name for p in tmp_path.iterdir()) == ["changed", "controller", "mesh.tar.gz"]


@pytest.mark.parametrize(
    "content",
    [b"", b"hello", gzip.compress(b""), gzip.compress(b"hello" * 200)],
    ids=["empty", "text", "gzip of nothing", "gzip of text"],
)
def test_what_is_no_archive_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "b").write_bytes(content)
    with pytest.raises(BackupError):
        backup.restore(tmp_path / "b", tmp_path / "new")
    with pytest.raises(BackupError):
        backup.read_manifest(tmp_path / "b")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("part", [0.1, 0.5, 0.9, 0.99])
def test_a_cut_archive_is_refused(archive: Path, tmp_path: Path, part: float) -> None:
    content = archive.read_bytes()
    archive.write_bytes(content[: int(len(content) * part)])
    with pytest.raises(BackupError):
        backup.restore(archive, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_missing_archive_is_named(tmp_path: Path) -> None:
    with pytest.raises(BackupError, match="there is no backup"):
        backup.restore(tmp_path / "b", tmp_path / "new")


def test_a_newer_store_is_refused(controller: Path, tmp_path: Path) -> None:
    SqliteStore(controller / "store.sqlite", migrations=(*MIGRATIONS, ("CREATE TABLE t (x)",))).close()
    backup.write(controller, tmp_path / "b", "9.0", NOW)
    with pytest.raises(BackupError, match=r"the store in .* schema version 3, written by a newer Retia"):
        backup.restore(tmp_path / "b", tmp_path / "new")
