"""The intake's core: part events in, a sealed package and two records out.

Rules:

1. Parts are told by their position: ``soknadJson``, ``vedleggJson``, then metadata and file in turn, ``soknad.pdf`` first. Only
   an optional first part is told by its name as well: NAV's v2 clients send ``tilleggsinformasjonJson`` before the others.
2. A file comes CMS-encrypted for our own certificate. It is decrypted, checked and sealed for the kommune piece by piece: no
   piece of plaintext outlives the call that brought it.
3. Every check is done before ``finish`` returns, and nothing is anybody's until then.
4. What is inside of encrypted files decides one thing alone: whether a submission with no other fault is accepted. A fault that
   anybody can see (names, metadata, what is missing, the envelope's structure) is told at once and as it is, also when a file
   before it could not be decrypted. A fault inside of an envelope (padding, size, type, digest) is told at the very end, after
   all the same work, in one text for all of them that names no file. CBC has no tag, and anything more would be an oracle.
5. So accepted or not is still an answer, for whoever holds somebody else's envelope. ``producers.envelopes`` makes it expensive.
"""

from __future__ import annotations

import unicodedata
from contextlib import ExitStack
from dataclasses import dataclass
from enum import Enum, auto
from typing import TYPE_CHECKING, Final, Literal

from pydantic import ValidationError

from crypto.envelope import PackageWriter
from producers import checks
from producers.envelopes import Sender
from producers.multipart import End, PartBegin, PartData, PartEnd
from producers.parts import FilePart, JsonPart
from producers.versions import known_version
from schemas.errors import RefusedError
from schemas.forsendelse import FILENAME as FORSENDELSE
from schemas.forsendelse import Forsendelse
from schemas.model import WireModel
from schemas.names import Enhetsnummer
from schemas.records import SOKNAD, TRANSPORT_AKSEPTERT, SoknadRecord, TransportRecord
from schemas.soknad_json import FILENAME as SOKNAD_JSON
from schemas.soknad_json import parse_soknad
from schemas.vedlegg_json import FILENAME as VEDLEGG_JSON
from schemas.vedlegg_json import parse_vedlegg

if TYPE_CHECKING:
    from datetime import datetime

    from cryptography import x509

    from crypto.content_key import ContentKey
    from crypto.keys import KeyRing, Signer
    from producers.checks import Delivered, FilMetadata, IntakeLimits
    from producers.envelopes import SeenKeys
    from producers.multipart import Event
    from producers.parts import Part
    from producers.spill import Spill
    from schemas.names import (
        DigisosId,
        Eier,
        Fodselsnummer,
        Kommunenummer,
        MeldingId,
        NavEksternRefId,
        Organisasjonsnummer,
        Uuid,
    )
    from schemas.soknad_json import SoknadJson

TILLEGGSINFORMASJON: Final = "tilleggsinformasjonJson"
JSON_TYPE: Final = "application/json"


@dataclass(frozen=True, slots=True)
class Innsending:
    """What is known of a submission before its body: who, to whom, and the ids that it gets if it is accepted.

    Attributes:
        kommunenummer: Of the path.
        nav_ekstern_ref_id: Of the path.
        person: Of the token.
        eier: The person as a HMAC, for the topics.
        digisos_id: New; kept if this is the first submission of its reference.
        melding_id: New.
        hendelse_id: New, of the event AKSEPTERT.
        tidspunkt: Aware UTC; when it came.
        avsenderversjon: Version of the sender's program, if it said so.
        gyldig_til: Until when the receiver may begin; aware UTC, None for ever.
    """

    kommunenummer: Kommunenummer
    nav_ekstern_ref_id: NavEksternRefId
    person: Fodselsnummer
    eier: Eier
    digisos_id: DigisosId
    melding_id: MeldingId
    hendelse_id: Uuid
    tidspunkt: datetime
    avsenderversjon: str | None = None
    gyldig_til: datetime | None = None


@dataclass(frozen=True, slots=True)
class Sealing:
    """How packages are made.

    Attributes:
        recipient: The kommune's certificate, judged already.
        signer: Who signs.
        avsender: The signer's organisation.
        keys: Open what clients encrypted for us.
        clear_files: Whether files may come in clear.
        limits: How much there may be.
        seen: Whose the wrapped keys of clients' envelopes are.
    """

    recipient: x509.Certificate
    signer: Signer
    avsender: Organisasjonsnummer
    keys: KeyRing
    clear_files: bool
    limits: IntakeLimits
    seen: SeenKeys


@dataclass(frozen=True, slots=True)
class Accepted:
    """A submission that satisfies every check, sealed.

    Attributes:
        soknad: The record for the kommune's topic.
        transport: AKSEPTERT, for ``fiks.transport.v1``.
        files: How many files the sender delivered.
        content_key: Opens the package, for the sender's copy.
    """

    soknad: SoknadRecord
    transport: TransportRecord
    files: int
    content_key: ContentKey


class Tilleggsinformasjon(WireModel):
    """``tilleggsinformasjonJson``: the receiving NAV office."""

    enhetsnummer: Enhetsnummer | None = None


class _Place(Enum):
    FIRST = auto()
    SOKNAD = auto()
    VEDLEGG = auto()
    METADATA = auto()
    FILE = auto()


class Submission:
    """One submission on its way in. Feed it events in order, then ``finish``. Used once, by one thread at a time.

    Args:
        innsending: What is known already.
        sealing: How to make the package.
        spill: Takes the package's bytes.

    The caller calls ``abort`` when anything is raised here, or nothing more comes.
    """

    def __init__(self, innsending: Innsending, sealing: Sealing, spill: Spill) -> None:
        self._innsending = innsending
        self._sealing = sealing
        self._limits = sealing.limits
        self._spill = spill
        self._package = PackageWriter(
            spill.write, recipient=sealing.recipient, signer=sealing.signer, now=innsending.tidspunkt
        )
        self._place = _Place.FIRST
        self._part: Part | None = None
        self._ended = False
        self._soknad: SoknadJson | None = None
        self._enhetsnummer: Enhetsnummer | None = None
        self._expected: dict[str, str | None] = {}
        self._metadata: FilMetadata | None = None
        self._names: set[str] = set()
        self._delivered: dict[str, Delivered] = {}
        self._total = 0

    def feed(self, event: Event) -> bool:
        """Take the next event.

        Returns:
            Whether ``unwrap`` must be called before the next one.

        Raises:
            RefusedError: A check failed; the text names the part or field.
            InvalidDocumentError: ``soknad.json`` or ``vedlegg.json`` breaks its format.
            StoreError: The package cannot be written.
        """
        match event:
            case PartBegin():
                self._part = self._begin(event)
            case PartData():
                return self._current().write(event.data)
            case PartEnd():
                self._current().end()
                self._part = None
            case End():
                self._ended = True
        return False

    def unwrap(self) -> None:
        """Open the envelope of the file under way: a private RSA operation, which others need not wait for.

        Raises:
            RefusedError: It cannot be opened, or what is in it breaks a rule.
            StoreError: The package cannot be written.
        """
        self._current().unwrap()

    def finish(self) -> Accepted:
        """Return the accepted submission; a large package is durable in the dokumentlager by now.

        Raises:
            RefusedError: A part is missing, or a file is not what ``vedlegg.json`` says.
            StoreError: The package cannot be written.
        """
        if self._place is not _Place.METADATA or not self._ended:
            raise RefusedError(400, f"{self._missing()} mangler", reason="mangler")
        if not self._delivered:
            raise RefusedError(400, "soknad.pdf (fil nr 1) mangler", reason="mangler")
        checks.check_complete(self._expected, self._delivered)
        self._add(FORSENDELSE, self._forsendelse().to_json())
        summary = self._package.finish()
        stored = self._spill.store()
        who = self._innsending
        soknad = SoknadRecord(
            melding_id=who.melding_id,
            digisos_id=who.digisos_id,
            kommunenummer=who.kommunenummer,
            nav_ekstern_ref_id=who.nav_ekstern_ref_id,
            enhetsnummer=self._enhetsnummer,
            hastegrad=self._hastegrad,
            innsendt=who.tidspunkt,
            avsender=self._sealing.avsender,
            avsenderversjon=who.avsenderversjon,
            skjemaversjon=None if self._soknad is None else known_version(self._soknad.version),
            nokkel_id=summary.nokkel_id,
            sha256=summary.sha256,
            storrelse=summary.size,
            pakke=stored.pakke,
            dokumentlager_id=stored.dokumentlager_id,
            gyldig_til=who.gyldig_til,
        )
        return Accepted(soknad, self._transport(soknad), len(self._delivered), self._package.content_key)

    def abort(self) -> None:
        """Give the submission up, and its package. May be called at any time, and twice."""
        self._package.abort()
        self._spill.abort()

    def _forsendelse(self) -> Forsendelse:
        who = self._innsending
        return Forsendelse(
            digisos_id=who.digisos_id,
            melding_id=who.melding_id,
            kommunenummer=who.kommunenummer,
            type=SOKNAD,
            opprettet=who.tidspunkt,
            enhetsnummer=self._enhetsnummer,
            nav_ekstern_ref_id=who.nav_ekstern_ref_id,
            hastegrad=self._hastegrad,
        )

    @property
    def _hastegrad(self) -> Literal["VANLIG", "NODHJELP"]:
        return "VANLIG" if self._soknad is None else self._soknad.hastegrad()

    def _transport(self, soknad: SoknadRecord) -> TransportRecord:
        who = self._innsending
        return TransportRecord(
            hendelse_id=who.hendelse_id,
            melding_id=who.melding_id,
            digisos_id=who.digisos_id,
            kommunenummer=who.kommunenummer,
            type=TRANSPORT_AKSEPTERT,
            tidspunkt=who.tidspunkt,
            nav_ekstern_ref_id=who.nav_ekstern_ref_id,
            eier=who.eier,
            sha256=soknad.sha256,
            gyldig_til=who.gyldig_til,
        )

    def _current(self) -> Part:
        if self._part is None:
            raise RuntimeError("data outside of a part")
        return self._part

    def _missing(self) -> str:
        match self._place:
            case _Place.FIRST | _Place.SOKNAD:
                return "soknadJson"
            case _Place.VEDLEGG:
                return "vedleggJson"
            case _:
                return f"fil nr {self._nr} (eller slutten av sendingen)"

    @property
    def _nr(self) -> int:
        """Number of the file that comes next or is under way."""
        return len(self._delivered) + 1

    def _begin(self, part: PartBegin) -> Part:
        match self._place:
            case _Place.FIRST if part.name == TILLEGGSINFORMASJON:
                return JsonPart(TILLEGGSINFORMASJON, self._limits.max_metadata_bytes, self._take_tilleggsinformasjon)
            case _Place.FIRST | _Place.SOKNAD:
                return JsonPart("soknadJson", self._limits.max_json_bytes, self._take_soknad)
            case _Place.VEDLEGG:
                return JsonPart("vedleggJson", self._limits.max_json_bytes, self._take_vedlegg)
            case _Place.METADATA:
                if self._nr > self._limits.max_files:
                    raise RefusedError(413, f"flere enn {self._limits.max_files} filer", reason="antall")
                return JsonPart(f"metadata for fil nr {self._nr}", self._limits.max_metadata_bytes, self._take_metadata)
            case _Place.FILE:
                return self._begin_file()

    def _take_tilleggsinformasjon(self, data: bytes) -> None:
        try:
            self._enhetsnummer = Tilleggsinformasjon.model_validate_json(data).enhetsnummer
        except ValidationError:
            raise RefusedError(
                400, "tilleggsinformasjonJson: enhetsnummer skal være fire siffer i et JSON-objekt", reason="json"
            ) from None
        self._place = _Place.SOKNAD

    def _take_soknad(self, data: bytes) -> None:
        soknad = parse_soknad(data)
        checks.check_soknad(soknad, self._innsending.kommunenummer, self._innsending.person)
        self._enhetsnummer = self._enhetsnummer or soknad.enhetsnummer()
        self._soknad = soknad
        self._add(SOKNAD_JSON, data)
        self._place = _Place.VEDLEGG

    def _take_vedlegg(self, data: bytes) -> None:
        self._expected = checks.expected_digests(parse_vedlegg(data).expected_files())
        self._add(VEDLEGG_JSON, data)
        self._place = _Place.METADATA

    def _take_metadata(self, data: bytes) -> None:
        nr = self._nr
        metadata = checks.parse_metadata(data, nr)
        name = checks.check_name(metadata.filnavn, nr)
        if name in self._names:
            raise RefusedError(400, f"fil nr {nr}: filnavnet er brukt før i samme sending", reason="filnavn")
        checks.declared_type(metadata.mimetype, nr)
        self._check_size(metadata.storrelse)
        self._names.add(name)
        self._metadata = metadata
        self._place = _Place.FILE

    def _check_size(self, size: int) -> None:
        if size > self._limits.max_file_bytes:
            raise RefusedError(
                413, f"fil nr {self._nr} er større enn {self._limits.max_file_bytes} byte", reason="storrelse"
            )
        if self._total + size > self._limits.max_total_bytes:
            raise RefusedError(
                413, f"filene er til sammen større enn {self._limits.max_total_bytes} byte", reason="storrelse"
            )

    def _begin_file(self) -> Part:
        metadata = self._metadata
        if metadata is None:
            raise RuntimeError("a file without metadata")
        in_package = ExitStack()
        mimetype = checks.declared_type(metadata.mimetype, self._nr)
        writer = in_package.enter_context(self._package.add(metadata.filnavn, mimetype))

        def done(file: Delivered) -> None:
            in_package.close()
            self._delivered[unicodedata.normalize("NFC", metadata.filnavn)] = file
            self._total += metadata.storrelse  # what was stated, and not what a padding makes of it
            self._place = _Place.METADATA

        return FilePart(
            self._nr,
            metadata,
            keys=self._sealing.keys,
            clear_files=self._sealing.clear_files,
            check_size=self._check_size,
            out=writer.write,
            done=done,
            seen=self._sealing.seen,
            sender=Sender(self._innsending.eier, self._innsending.nav_ekstern_ref_id),
            now=self._innsending.tidspunkt,
        )

    def _add(self, name: str, data: bytes) -> None:
        with self._package.add(name, JSON_TYPE) as file:
            file.write(data)
