"""The certificate authority of a trust domain.

At the first start it makes itself a root (ten years) and an intermediate (one year) in
``controller/authority/``; every later start reads them. The intermediate is renewed at half its life by the
root's key. A user's own authority is read from the user's files instead (:mod:`retia.authority.own`) and is
never written.

What exists is never replaced silently: a missing file, another trust domain or another root is an error,
because a fresh root would cut off every host. All files are written whole, with mode 0600; the directory
appears by one rename.

An object of this class is used from one event loop or thread; signing takes about half a millisecond.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

from cryptography import x509

from retia.authority import own
from retia.authority.certificates import (
    Issuer,
    fingerprint,
    from_pem,
    life_of,
    make_intermediate,
    make_leaf,
    make_root,
    to_pem,
)
from retia.authority.errors import AuthorityError
from retia.authority.keys import (
    PublicKey,
    key_from_pem,
    key_to_pem,
    make_key,
    public_bytes,
    sync_directory,
    write_private,
)
from retia.authority.requests import read_request
from retia.identity.profiles import DEFAULT_LIFETIME, INTERMEDIATE, ROOT, leaf
from retia.identity.rotation import Life, is_due
from retia.identity.secret import Secret
from retia.identity.spiffe import Identity, TrustDomain, controller_identity, host_identity, workload_identity
from retia.model.ids import SpiffeId

FORMAT: Final = 1
_MANIFEST = "authority.json"
_ROOT, _ROOT_KEY = "root.pem", "root.key"
_INTERMEDIATE, _INTERMEDIATE_KEY = "intermediate.pem", "intermediate.key"
SELF_MADE, OWN = "self-made", "own"


@dataclass(frozen=True, slots=True)
class Signed:
    """A certificate, ready to be sent."""

    identity: SpiffeId
    chain_pem: bytes
    """The certificate first, then those between it and the root."""
    life: Life
    serial: int


@dataclass(frozen=True, slots=True)
class Pair:
    """A chain with its private key, in PEM."""

    chain_pem: bytes
    key_pem: Secret
    life: Life


class Authority:
    """Signs for one trust domain. Made by :meth:`open`."""

    def __init__(
        self,
        trust_domain: TrustDomain,
        loaded: own.Loaded,
        lifetime: timedelta,
        renew: Callable[[datetime], Issuer] | None = None,
    ) -> None:
        self.trust_domain = trust_domain
        self.bundle_pem: bytes = to_pem(*loaded.roots)
        """All trusted roots."""
        self.fingerprint: bytes = fingerprint(loaded.roots[0])
        """SHA-256 of the root in use; join tokens pin it."""
        self.notes = loaded.notes
        """What a person should know, for the log."""
        self._root = loaded.roots[0]
        self._renew = renew
        self._profiles = {kind: leaf(kind, lifetime) for kind in ("host", "workload", "controller")}
        self._use(loaded.issuer, loaded.between)

    @classmethod
    def open(
        cls,
        directory: Path,
        trust_domain: TrustDomain,
        now: datetime,
        *,
        lifetime: timedelta = DEFAULT_LIFETIME,
        own_directory: Path | None = None,
    ) -> Authority:
        """The authority in ``directory``, made there if there is none, or the user's own.

        ``lifetime`` is that of the certificates it signs (two seconds to 90 days; in doubt 24 h). Raises
        :class:`~retia.authority.errors.AuthorityError` with the file and the remedy, or ``ValueError`` for
        the lifetime.
        """
        leaf("workload", lifetime)
        if own_directory is not None:
            loaded = own.load(own_directory, now)
            _check_same_authority(directory, trust_domain, OWN, loaded.roots)
            return cls(trust_domain, loaded, lifetime)
        if not directory.exists() or not any(directory.iterdir()):
            _create(directory, trust_domain, now)
        loaded, root = _load(directory, trust_domain, now)

        def renew(at: datetime) -> Issuer:
            return _write_intermediate(directory, root, trust_domain, at)

        authority = cls(trust_domain, loaded, lifetime, renew)
        authority.maintain(now)
        return authority

    @property
    def life(self) -> Life:
        """Of the certificate that signs."""
        return life_of(self._issuer.certificate)

    @property
    def root_life(self) -> Life:
        return life_of(self._root)

    def maintain(self, now: datetime) -> bool:
        """Renews the intermediate when it is due; whether it did. To be called at least once a day."""
        if self._renew is None or not is_due(self.life, 0.0, now):
            return False
        issuer = self._renew(now)
        self._use(issuer, (issuer.certificate,))
        return True

    def sign_host(self, csr_der: bytes, host: str, now: datetime) -> Signed:
        """A certificate for a host's agent. Raises RequestError, or IdentityError for the host's id."""
        return self._sign("host", host_identity(self.trust_domain, host), read_request(csr_der), now)

    def sign_workload(self, csr_der: bytes, namespace: str, service_account: str, now: datetime) -> Signed:
        """A certificate for a workload. The caller has made sure that the workload runs on the asking host.
        Raises RequestError, or IdentityError for the names."""
        identity = workload_identity(self.trust_domain, namespace, service_account)
        return self._sign("workload", identity, read_request(csr_der), now)

    def controller_pair(self, now: datetime) -> Pair:
        """A certificate and a fresh key for the controller's own listener. The chain ends with the root
        itself, so that a joining host, which knows only its fingerprint, can find it there."""
        key = make_key()
        signed = self._sign("controller", controller_identity(self.trust_domain), key.public_key(), now)
        return Pair(signed.chain_pem + to_pem(self._root), key_to_pem(key), signed.life)

    def _sign(self, kind: str, identity: Identity, public: PublicKey, now: datetime) -> Signed:
        certificate = make_leaf(self._profiles[kind], identity.uri, public, self._issuer, now)
        return Signed(
            identity=identity.uri,
            chain_pem=to_pem(certificate) + self._between_pem,
            life=life_of(certificate),
            serial=certificate.serial_number,
        )

    def _use(self, issuer: Issuer, between: tuple[x509.Certificate, ...]) -> None:
        self._issuer = issuer
        self._between_pem = to_pem(*between)


def _create(directory: Path, trust_domain: TrustDomain, now: datetime) -> None:
    """Makes root and intermediate in a directory beside, then renames it."""
    fresh = directory.with_name(f".{directory.name}.{os.getpid()}.new")
    shutil.rmtree(fresh, ignore_errors=True)
    try:
        fresh.mkdir(mode=0o700, parents=True)
        key = make_key()
        root = Issuer(make_root(ROOT, f"root of {trust_domain}", key, now), key)
        write_private(fresh / _ROOT_KEY, key_to_pem(key))
        write_private(fresh / _ROOT, to_pem(root.certificate))
        _write_intermediate(fresh, root, trust_domain, now)
        _write_manifest(fresh, trust_domain, SELF_MADE, root.certificate)
        if directory.exists():
            directory.rmdir()
        fresh.rename(directory)
        sync_directory(directory.parent)
    except OSError as error:
        raise AuthorityError(
            f"the authority cannot be made in {directory}: {error.strerror or error}"
        ) from error
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def _write_intermediate(directory: Path, root: Issuer, trust_domain: TrustDomain, now: datetime) -> Issuer:
    """A new intermediate; the key is written first and may, after a crash between the two, lie there without
    its certificate, which :func:`_load` recognises."""
    key = make_key()
    name = f"intermediate of {trust_domain} {now:%Y-%m-%d}"
    certificate = make_intermediate(INTERMEDIATE, name, key.public_key(), root, now)
    try:
        write_private(directory / _INTERMEDIATE_KEY, key_to_pem(key))
        write_private(directory / _INTERMEDIATE, to_pem(certificate))
    except OSError as error:
        raise AuthorityError(f"{directory}: the intermediate cannot be written: {error.strerror}") from error
    return Issuer(certificate, key)


def _load(directory: Path, trust_domain: TrustDomain, now: datetime) -> tuple[own.Loaded, Issuer]:
    files = {name: directory / name for name in (_ROOT, _ROOT_KEY, _MANIFEST)}
    missing = sorted(name for name, path in files.items() if not path.exists())
    if missing:
        raise AuthorityError(
            f"authority {directory} is incomplete ({', '.join(missing)} missing); restore it from a backup "
            f"with "
            "'retia restore'. A new one would cut off every host, so none is made"
        )
    root = _issuer(files[_ROOT], files[_ROOT_KEY])
    _check_same_authority(directory, trust_domain, SELF_MADE, (root.certificate,))
    if now >= root.certificate.not_valid_after_utc:
        raise AuthorityError(f"{files[_ROOT]} expired at {root.certificate.not_valid_after_utc:%F %T} UTC")
    if now < root.certificate.not_valid_before_utc:
        raise AuthorityError(
            f"{files[_ROOT]} is valid only from {root.certificate.not_valid_before_utc:%F %T} UTC; "
            f"this clock says {now:%F %T}: set it right"
        )
    notes = _repair_modes(directory)
    try:
        intermediate = _issuer(directory / _INTERMEDIATE, directory / _INTERMEDIATE_KEY)
        intermediate.certificate.verify_directly_issued_by(root.certificate)
    except Exception as error:  # noqa: BLE001 - whatever is wrong, the root can make another
        notes += (f"the intermediate was unusable ({error}) and has been made anew",)
        intermediate = _write_intermediate(directory, root, trust_domain, now)
    loaded = own.Loaded(intermediate, (intermediate.certificate,), (root.certificate,), notes)
    return loaded, root


def _issuer(certificate_file: Path, key_file: Path) -> Issuer:
    try:
        certificate = from_pem(certificate_file.read_bytes(), str(certificate_file))[0]
        key = key_from_pem(Secret(key_file.read_bytes()), str(key_file))
    except OSError as error:
        raise AuthorityError(f"{error.filename} cannot be read: {error.strerror}") from error
    if public_bytes(key.public_key()) != public_bytes(certificate.public_key()):
        raise AuthorityError(f"{key_file} is not the key of {certificate_file}; restore both from a backup")
    return Issuer(certificate, key)


def _repair_modes(directory: Path) -> tuple[str, ...]:
    notes = []
    for path in sorted(directory.glob("*.key")):
        mode = path.stat().st_mode & 0o777
        if mode & 0o077:
            path.chmod(0o600)
            notes.append(f"{path} could be read by others (mode {mode:04o}); it is 0600 now")
    return tuple(notes)


def _write_manifest(directory: Path, trust_domain: TrustDomain, kind: str, root: x509.Certificate) -> None:
    manifest = {
        "format": FORMAT,
        "kind": kind,
        "trust_domain": trust_domain,
        "root_sha256": fingerprint(root).hex(),
    }
    write_private(directory / _MANIFEST, json.dumps(manifest, indent=2).encode() + b"\n")


def _check_same_authority(
    directory: Path, trust_domain: TrustDomain, kind: str, roots: tuple[x509.Certificate, ...]
) -> None:
    """That the authority is the one the mesh began with; notes which one that is at the first start."""
    path = directory / _MANIFEST
    if not path.exists() and kind == OWN:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        _write_manifest(directory, trust_domain, kind, roots[0])
        return
    known = _read_manifest(path)
    if known.get("trust_domain") != trust_domain:
        raise AuthorityError(
            f"authority {directory} is that of trust domain {known.get('trust_domain')!r}, but the settings "
            f"say "
            f"{trust_domain!r}; a mesh keeps its trust domain: use another RETIA_HOME for another mesh"
        )
    if known.get("kind") != kind:
        raise AuthorityError(
            f"authority {directory} is {known.get('kind')}, but the settings ask for one that is {kind}; "
            f"every "
            "host would have to join again: use another RETIA_HOME, or remove that directory first"
        )
    if known.get("root_sha256") not in {fingerprint(r).hex() for r in roots}:
        raise AuthorityError(
            f"authority {directory} began with the root of SHA-256 {known.get('root_sha256')}, which is no "
            f"longer "
            "among the trusted ones; keep it in root-cert.pem until every host has the new one"
        )


def _read_manifest(path: Path) -> Mapping[str, Any]:
    try:
        known = json.loads(path.read_bytes())
        if not isinstance(known, dict) or not isinstance(known.get("format"), int):
            raise ValueError("it holds no format")
    except (OSError, ValueError) as error:
        raise AuthorityError(f"{path} cannot be read ({error}); restore it from a backup") from error
    if known["format"] > FORMAT:
        raise AuthorityError(
            f"{path} has format {known['format']}, written by a newer Retia; upgrade this one"
        )
    return known
