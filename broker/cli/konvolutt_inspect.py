"""``formidler konvolutt inspect``: what a sealed file is, who it is for, what is in it, and what is wrong with it.

Whether a receiver accepts it is asked of ``open_package`` itself; the findings explain that answer, and never make it.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from broker.cli.konvolutt_files import reading
from broker.cli.konvolutt_keys import NamedRing, certificate_document
from broker.clock import timestamp
from crypto import Limits, Spool, Trust, open_package
from crypto.diagnosis import Diagnosis, Finding, diagnose_package
from crypto.inspection import (
    ENVELOPED,
    PREFIX_BYTES,
    Envelope,
    Recipient,
    StructureProbe,
    describe_envelope,
    foreign_form,
    unwraps,
)
from crypto.spool import READ_AHEAD_BYTES, CbcView
from schemas.errors import UnsealError

_OUR_CIPHER = "AES-256-CBC"


def inspect(path: Path, *, rings: Sequence[NamedRing], trust: Trust | None, now: datetime) -> dict[str, Any]:
    """Return everything there is to say about a sealed file.

    Args:
        path: The file, or ``-``.
        rings: Keys to look inside with; none to look at the envelope alone.
        trust: Whose signature counts; None leaves that open.
        now: Aware UTC.

    Raises:
        ConfigurationError: The file cannot be read.
        StoreError: The ciphertext cannot be kept.
    """
    limits = Limits()
    probe = StructureProbe(limits.max_header_bytes)
    prefix = bytearray()
    with Spool(limits=limits) as spool:
        with reading(path, "leser") as chunks:
            for chunk in chunks:
                prefix += chunk[: max(PREFIX_BYTES - len(prefix), 0)]
                probe.feed(chunk)
                spool.write(chunk)
        probe.finish()
        spool.finish()
        envelope = describe_envelope(bytes(prefix))
        findings = _envelope_findings(envelope, bytes(prefix), probe.problem, spool.size, limits)
        opened_with, matches = _match(envelope, rings)
        diagnosis = None
        if rings and not findings:
            diagnosis = _look_inside(spool, opened_with, trust, now, findings)
    return {
        "ok": not any(finding.wrong for finding in findings),
        "fil": str(path),
        "storrelse": spool.size,
        "sha256": spool.sha256,
        "konvolutt": _envelope_document(envelope, matches) if envelope else None,
        "pakke": None if diagnosis is None else _package_document(diagnosis),
        "funn": [{"hvor": each.step, "feil": each.wrong, "tekst": each.text} for each in findings],
    }


def _envelope_findings(
    envelope: Envelope | None, prefix: bytes, problem: str | None, size: int, limits: Limits
) -> list[Finding]:
    def wrong(text: str) -> Finding:
        return Finding("konvolutt", wrong=True, text=text)

    if not size:
        return [wrong("filen er tom")]
    if envelope is None:
        form = foreign_form(prefix)
        return [wrong(f"filen er ikke CMS i BER eller DER{f', men ser ut som {form}' if form else ''}")]
    if envelope.content_type != ENVELOPED:
        return [wrong(f"filen er CMS {envelope.content_type}; avtalen er {ENVELOPED} med {_OUR_CIPHER}")]
    found: list[Finding] = []
    if problem:
        found.append(wrong(problem))
    if envelope.content_cipher != _OUR_CIPHER:
        found.append(wrong(f"innholdet er kryptert med {envelope.content_cipher}; avtalen er {_OUR_CIPHER}"))
    if all(recipient.unwrapping is None for recipient in envelope.recipients):
        found.append(wrong("ingen mottaker har en nøkkeltransport som leses (RSAES-OAEP eller RSA PKCS#1 v1.5)"))
    if size > limits.max_package_bytes:
        found.append(
            wrong(f"pakken er større enn {limits.max_package_bytes >> 20} MiB, som er det meste en mottaker tar")
        )
    return found


def _match(
    envelope: Envelope | None, rings: Sequence[NamedRing]
) -> tuple[list[NamedRing], dict[int, list[tuple[str, bool | None]]]]:
    """Return the keys that open the envelope, or may, surest first; and for each recipient what each key does."""
    surest: dict[str, tuple[int, NamedRing]] = {}
    matches: dict[int, list[tuple[str, bool | None]]] = {}
    for number, recipient in enumerate(envelope.recipients if envelope else ()):
        for each in rings:
            fits = unwraps(recipient, each.private_key)
            matches.setdefault(number, []).append((str(each.file), fits))
            if fits is not False:
                rank = 0 if fits else 1
                surest[str(each.file)] = min(
                    surest.get(str(each.file), (rank, each)), (rank, each), key=lambda it: it[0]
                )
    return [each for _, each in sorted(surest.values(), key=lambda it: it[0])], matches


def _look_inside(
    spool: Spool, rings: Sequence[NamedRing], trust: Trust | None, now: datetime, findings: list[Finding]
) -> Diagnosis | None:
    """Diagnose the package with the surest key, and with the next while it is refused; add what is found to ``findings``."""
    if not rings:
        findings.append(Finding("nokkel", wrong=True, text="ingen av nøklene åpner konvolutten: den er til en annen"))
        return None
    best: Diagnosis | None = None
    for each in rings:
        found, refused = _diagnose(spool, each, trust, now)
        best = found if best is None or not refused else best
        if not refused:
            break
    findings.extend(best.findings if best is not None else ())
    return best


def _diagnose(spool: Spool, keys: NamedRing, trust: Trust | None, now: datetime) -> tuple[Diagnosis, bool]:
    """Return what is found with one key, and whether a receiver with it refuses."""
    limits = Limits()
    try:
        view = spool.plaintext(keys.ring)
    except UnsealError:
        diagnosis = Diagnosis()
        diagnosis.wrong(
            "nokkel", f"{keys.file}: sertifikatet er ikke blant mottakerne, eller lengden er ikke hele blokker"
        )
        return diagnosis, True
    padded = _is_padded(view)
    with io.BufferedReader(view, READ_AHEAD_BYTES) as stream:
        found = diagnose_package(stream, view.size, trust=trust, now=now, limits=limits)
    if not padded:
        text = "utfyllingen i siste blokk er feil: feil nøkkel, eller chifferteksten er endret eller avkortet"
        found.findings.insert(0, Finding("innhold", wrong=True, text=text))
    explained = any(finding.wrong for finding in found.findings)
    refused = not padded or _is_refused(spool, keys, trust or _trust_in(found), now)
    if refused and not explained:
        found.wrong("pakke", "pakken ville blitt avvist, uten at noen enkelt kontroll her viser hvorfor")
    return found, refused or explained


def _is_padded(view: CbcView) -> bool:
    try:
        view.check_padding()
    except UnsealError:
        return False
    return True


def _trust_in(diagnosis: Diagnosis) -> Trust:
    """Trust those who say that they signed: for when nobody said whom to trust, and only to ask about everything else."""
    return Trust(pinned=[signer.certificate for signer in diagnosis.signers if signer.certificate is not None])


def _is_refused(spool: Spool, keys: NamedRing, trust: Trust, now: datetime) -> bool:
    try:
        open_package(spool, keys=keys.ring, trust=trust, now=now, require_forsendelse=False).close()
    except UnsealError:
        return True
    return False


def _envelope_document(envelope: Envelope, matches: dict[int, list[tuple[str, bool | None]]]) -> dict[str, Any]:
    return {
        "type": envelope.content_type,
        "koding": envelope.encoding,
        "versjon": envelope.version,
        "innholdskryptering": envelope.content_cipher,
        "mottakere": [
            _recipient_document(recipient, matches.get(number, []))
            for number, recipient in enumerate(envelope.recipients)
        ],
    }


def _recipient_document(recipient: Recipient, matches: Sequence[tuple[str, bool | None]]) -> dict[str, Any]:
    return {
        "utsteder": recipient.issuer,
        "serienummer": None if recipient.serial is None else f"{recipient.serial:x}",
        "nokkelIdentifikator": recipient.key_identifier.hex() if recipient.key_identifier else None,
        "nokkeltransport": recipient.transport,
        "nokkelBit": len(recipient.encrypted) * 8,
        "nokler": [{"fil": file, "passer": fits} for file, fits in matches],
    }


def _package_document(diagnosis: Diagnosis) -> dict[str, Any]:
    return {
        "filer": [
            {
                "navn": file.name,
                "mimetype": file.mimetype,
                "storrelse": file.size,
                "sha256": file.sha256,
                "feil": file.problem,
            }
            for file in diagnosis.files
        ],
        "underskrivere": [
            {
                "sertifikat": certificate_document(signer.certificate) if signer.certificate else None,
                "digest": signer.digest,
                "signatur": signer.signature,
                "tidspunkt": timestamp(signer.signing_time) if signer.signing_time else None,
            }
            for signer in diagnosis.signers
        ],
        "forsendelse": diagnosis.forsendelse.model_dump(mode="json", by_alias=True, exclude_none=True)
        if diagnosis.forsendelse
        else None,
    }
