"""What is wrong with a package, step by step, for the owner of the key who debugs one.

A receiver gets one text for every failure (``UnsealError``), so that a sender learns nothing. Here the same checks are made one
by one, each goes on where it can, and says in Norwegian what it found.

1. Nothing here decides: whether a package is accepted is ``open_package``'s answer alone.
2. Findings must never reach whoever sent the package. They name files, and no content.
"""

from __future__ import annotations

import hashlib
import re
import zipfile
from dataclasses import dataclass, field
from datetime import datetime
from typing import IO, TYPE_CHECKING, Final
from urllib.parse import unquote
from xml.parsers import expat

from cryptography import x509

from crypto import filenames
from crypto.asice import ASIC_MIMETYPE
from crypto.certificates import judge_signer
from crypto.manifest import Manifest, Reference, read_manifest
from crypto.signed import verify_detached
from crypto.signers import SignerReport, explain_signature, read_signers
from crypto.trust import Trust
from crypto.zipread import ASIC_COMMENT, Entry, ZipReader
from schemas.errors import CertificateError, InvalidDocumentError, UnsealError
from schemas.forsendelse import FILENAME, Forsendelse

if TYPE_CHECKING:
    from collections.abc import Iterable

    from crypto.limits import Limits

_SHA1_ADVICE: Final = "signert med SHA-1, som bare godtas der oppsettet navngir avsenderen"
_MAX_LISTED: Final = 2000
_MAX_FORSENDELSE_BYTES: Final = 16 * 1024
_ENCRYPTED_FLAG: Final = 1


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was found.

    Args:
        step: Which check, a stable word: ``arkiv``, ``manifest``, ``signatur``, ``avsender``, ``filer``, ``forsendelse``.
        wrong: True for what makes a receiver refuse; False for what is worth knowing.
        text: For people, Norwegian.
    """

    step: str
    wrong: bool
    text: str


@dataclass(slots=True)
class FileReport:
    """One file in the archive or in the manifest; ``problem`` is None when nothing is wrong with it."""

    name: str
    mimetype: str | None = None
    size: int | None = None
    sha256: str | None = None
    problem: str | None = None


@dataclass(slots=True)
class Diagnosis:
    """Everything that could be found out about a package."""

    findings: list[Finding] = field(default_factory=list[Finding])
    files: list[FileReport] = field(default_factory=list[FileReport])
    signers: list[SignerReport] = field(default_factory=list[SignerReport])
    forsendelse: Forsendelse | None = None

    def wrong(self, step: str, text: str) -> None:
        """Note what makes a receiver refuse."""
        self.findings.append(Finding(step, wrong=True, text=text))

    def note(self, step: str, text: str) -> None:
        """Note what is worth knowing."""
        self.findings.append(Finding(step, wrong=False, text=text))


class _AnySigner(Trust):
    """Trusts whoever signed, so that a signature can be judged apart from who made it."""

    def accepts(self, certificate: x509.Certificate, others: Iterable[x509.Certificate], now: datetime) -> bool:
        """Return True."""
        _ = certificate, others, now
        return True

    def allows_sha1(self, certificate: x509.Certificate) -> bool:
        """Return True."""
        _ = certificate
        return True


def diagnose_package(file: IO[bytes], size: int, *, trust: Trust | None, now: datetime, limits: Limits) -> Diagnosis:
    """Check an archive step by step.

    Args:
        file: The plaintext archive, seekable.
        size: Its bytes.
        trust: Whose signature counts; None leaves that question open, and says so.
        now: Aware UTC time that the signer is judged against.
        limits: As for ``open_package``.
    """
    found = Diagnosis()
    try:
        archive = ZipReader(file, size, limits)
    except UnsealError:
        _explain_archive(found, file, size, limits)
        return found
    parts = _sort(found, archive, limits)
    manifest = _manifest(found, archive, parts, limits)
    _check_files(found, archive, parts.payload, manifest, limits)
    if parts.manifest_bytes is not None and manifest is not None:
        _check_signature(found, archive, parts, manifest, trust=trust, now=now, limits=limits)
    _read_forsendelse(found, archive, parts.payload)
    return found


@dataclass(slots=True)
class _Parts:
    manifests: list[Entry] = field(default_factory=list[Entry])
    signatures: list[Entry] = field(default_factory=list[Entry])
    payload: list[Entry] = field(default_factory=list[Entry])
    manifest_bytes: bytes | None = None


def _explain_archive(found: Diagnosis, file: IO[bytes], size: int, limits: Limits) -> None:
    """Say why ``ZipReader`` refused, with the help of a reader that refuses little."""
    file.seek(0)
    start = file.read(8)
    if not start.startswith(b"PK"):
        kind = "en PDF" if start.startswith(b"%PDF") else "noe annet"
        found.wrong("arkiv", f"innholdet er ikke et zip-arkiv, men {kind}; er det bare CMS, så åpne det med --bare")
        return
    try:
        file.seek(0)
        with zipfile.ZipFile(file) as archive:
            infos, comment = archive.infolist(), archive.comment
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        found.wrong("arkiv", f"zip-arkivet er ødelagt eller avkortet ({type(error).__name__})")
        return
    found.files = [FileReport(info.filename, None, info.file_size) for info in infos[:_MAX_LISTED]]
    reasons = [
        (len(infos) > limits.max_files, f"arkivet har {len(infos)} filer; høyst {limits.max_files} godtas"),
        (comment not in (b"", ASIC_COMMENT), "arkivet har en kommentar som ikke er ASiC sin"),
        (any(info.flag_bits & _ENCRYPTED_FLAG for info in infos), "filer i arkivet er kryptert med zip-passord"),
        (any(info.compress_type not in (0, 8) for info in infos), "en fil er pakket med annet enn lagring og deflate"),
        (size > 0 and min((i.header_offset for i in infos), default=0) > 0, "arkivet har byte foran den første filen"),
    ]
    for applies, text in reasons:
        if applies:
            found.wrong("arkiv", text)
    if not found.findings:
        found.wrong(
            "arkiv",
            "zip-arkivet bryter en regel: zip64, byte som ingen fil eier, eller filhoder som er uenige med katalogen",
        )


def _sort(found: Diagnosis, archive: ZipReader, limits: Limits) -> _Parts:
    parts = _Parts()
    seen: set[str] = set()
    for number, entry in enumerate(archive.entries):
        folded = filenames.same(entry.name)
        if folded in seen:
            found.wrong("arkiv", f"to filer heter det samme: {entry.name}")
        seen.add(folded)
        if folded == "meta-inf/asicmanifest.xml":
            parts.manifests.append(entry)
        elif folded.startswith("meta-inf/signature") and folded.endswith(".p7s"):
            parts.signatures.append(entry)
        elif entry.name == "mimetype":
            if number or _unpack(archive, entry, 256) != ASIC_MIMETYPE:
                found.wrong("arkiv", "mimetype er ikke den første filen, eller har feil innhold")
        elif (reason := filenames.problem(entry.name)) is None:
            parts.payload.append(entry)
        elif folded != "meta-inf/manifest.xml":
            found.wrong("arkiv", f"{entry.name}: {reason}")
    if len(parts.payload) > limits.max_files:
        found.wrong("arkiv", f"pakken har {len(parts.payload)} filer; høyst {limits.max_files} godtas")
    return parts


def _unpack(archive: ZipReader, entry: Entry, limit: int) -> bytes | None:
    try:
        return archive.read_bytes(entry, limit)
    except UnsealError:
        return None


def _manifest(found: Diagnosis, archive: ZipReader, parts: _Parts, limits: Limits) -> Manifest | None:
    if len(parts.manifests) != 1:
        found.wrong(
            "manifest", f"META-INF/ASiCManifest.xml skal finnes én gang, og finnes {len(parts.manifests)} ganger"
        )
        return None
    parts.manifest_bytes = _unpack(archive, parts.manifests[0], limits.max_manifest_bytes)
    if parts.manifest_bytes is None:
        found.wrong("manifest", "manifestet kan ikke pakkes ut, eller er for stort")
        return None
    try:
        return read_manifest(parts.manifest_bytes)
    except UnsealError:
        found.wrong("manifest", _explain_manifest(parts.manifest_bytes))
        return None


def _explain_manifest(data: bytes) -> str:
    if b"<!DOCTYPE" in data:
        return "manifestet har en dokumenttype (DTD), som aldri godtas"
    parser = expat.ParserCreate()
    try:
        parser.Parse(data, True)  # noqa: FBT003 - expat takes its arguments by position only
    except (expat.ExpatError, ValueError) as error:
        return f"manifestet er ikke gyldig XML ({error})"
    algorithms = ", ".join(sorted(set(re.findall(r'Algorithm="([^"]{0,200})"', data.decode("utf-8", "replace")))))
    return (
        "manifestet mangler SigReference eller filer, har feil navnerom, en ukjent digestalgoritme eller en digest av feil "
        f"lengde (algoritmer: {algorithms or 'ingen'})"
    )


def _check_files(
    found: Diagnosis, archive: ZipReader, payload: list[Entry], manifest: Manifest | None, limits: Limits
) -> None:
    waiting = {entry.name: entry for entry in payload}
    left = limits.max_total_bytes
    for reference in manifest.references if manifest else ():
        name = reference.uri if reference.uri in waiting else unquote(reference.uri)
        entry = waiting.pop(name, None)
        if entry is None:
            report = FileReport(reference.uri, reference.mimetype, problem="står i manifestet, men er ikke i arkivet")
        else:
            report = _digest(archive, entry, reference, min(limits.max_file_bytes, left))
        left -= report.size or 0
        found.files.append(report)
    for entry in waiting.values():
        report = _digest(archive, entry, None, min(limits.max_file_bytes, left))
        if manifest is not None:
            report.problem = "står ikke i manifestet, og er altså ikke signert"
        left -= report.size or 0
        found.files.append(report)
    for report in found.files:
        if report.problem:
            found.wrong("filer", f"{report.name}: {report.problem}")


def _digest(archive: ZipReader, entry: Entry, reference: Reference | None, limit: int) -> FileReport:
    report = FileReport(entry.name, reference.mimetype if reference else None)
    sha256, size = hashlib.sha256(), 0
    stated = hashlib.new(reference.algorithm) if reference else None
    try:
        for chunk in archive.read(entry, limit):
            size += len(chunk)
            sha256.update(chunk)
            if stated:
                stated.update(chunk)
    except UnsealError:
        report.problem = (
            f"er større enn det som er igjen av grensen ({limit} byte)"
            if entry.size > limit
            else "kan ikke pakkes ut: skadet, eller ikke så stor som arkivet sier"
        )
        return report
    report.size, report.sha256 = size, sha256.hexdigest()
    if stated and reference and stated.digest() != reference.digest:
        report.problem = f"innholdet er endret etter signering: {reference.algorithm} er ikke den i manifestet"
    return report


def _check_signature(
    found: Diagnosis,
    archive: ZipReader,
    parts: _Parts,
    manifest: Manifest,
    *,
    trust: Trust | None,
    now: datetime,
    limits: Limits,
) -> None:
    names = [entry.name for entry in parts.signatures]
    if names != [manifest.signature_uri]:
        listed = ", ".join(names) or "ingen"
        found.wrong("signatur", f"manifestet viser til {manifest.signature_uri}; signaturer i arkivet: {listed}")
        return
    signature = _unpack(archive, parts.signatures[0], limits.max_manifest_bytes)
    if signature is None:
        found.wrong("signatur", "signaturen kan ikke pakkes ut, eller er for stor")
        return
    content = parts.manifest_bytes or b""
    try:
        certificates, found.signers = read_signers(signature, content)
    except (UnsealError, IndexError, ValueError):
        found.wrong("signatur", "signaturen er ikke en CMS SignedData som kan leses")
        return
    try:
        verify_detached(signature, content, _AnySigner(), now)
    except UnsealError:
        found.wrong("signatur", explain_signature(found.signers))
    _check_trust(found, certificates, trust, now)


def _check_trust(
    found: Diagnosis, certificates: tuple[x509.Certificate, ...], trust: Trust | None, now: datetime
) -> None:
    known = [signer.certificate for signer in found.signers if signer.certificate is not None]
    if any(signer.digest == "SHA-1" for signer in found.signers):
        allowed = trust is not None and all(trust.allows_sha1(certificate) for certificate in known)
        (found.note if allowed else found.wrong)("signatur", _SHA1_ADVICE)
    if trust is not None and any(trust.accepts(certificate, certificates, now) for certificate in known):
        return
    for certificate in known:
        try:
            judge_signer(certificate, now)
        except CertificateError as error:
            found.wrong("avsender", str(error))
            return
    if trust is None:
        found.note(
            "avsender", "hvem som har signert, er ikke kontrollert: gi avsenderens CA eller sertifikat med --rot"
        )
    elif known:
        found.wrong("avsender", "avsenderens sertifikat er verken festet eller utstedt under det som er gitt med --rot")


def _read_forsendelse(found: Diagnosis, archive: ZipReader, payload: list[Entry]) -> None:
    entry = next((entry for entry in payload if entry.name == FILENAME), None)
    if entry is None:
        found.note(
            "forsendelse",
            f"pakken har ingen {FILENAME}: vanlig fra fremmede avsendere, og godtas bare der det er tillatt",
        )
        return
    content = _unpack(archive, entry, _MAX_FORSENDELSE_BYTES)
    if content is None:
        found.wrong("forsendelse", f"{FILENAME} kan ikke pakkes ut, eller er for stor")
        return
    try:
        found.forsendelse = Forsendelse.from_json(content)
    except InvalidDocumentError as error:
        found.wrong("forsendelse", str(error))
