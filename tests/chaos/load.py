"""The load: citizens who send søknader over HTTP, senders of ettersendelser, and somebody who lays rubbish on topics.

What is sent is drawn from the seed. Everything is written to the journal before and after it is done.
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar

import httpx
from journal import Entry, Journal, Poison
from waiting import until

from broker.clock import system_clock
from broker.kafka.publisher import KafkaPublisher
from broker.record import Outgoing, cloud_event_headers
from broker.routing import TRANSPORT, soknad_topic
from crypto import Signer, load_certificate, load_private_key, organisasjonsnummer, seal_package
from producers.dokument import Dokument
from producers.http_client import SoknadClient
from schemas.codec import encode
from schemas.errors import RefusedError, TransportError
from schemas.examples import make_pdf, make_png, make_soknad, make_vedlegg, synthetic_fodselsnummer
from schemas.forsendelse import FILENAME
from schemas.names import (
    DigisosId,
    Kommunenummer,
    MeldingId,
    NavEksternRefId,
    Uuid,
)
from schemas.records import ETTERSENDELSE, SOKNAD, Record, SoknadRecord, TransportRecord

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from datetime import datetime
    from random import Random

    from environment import World
    from journal import Ventet

T = TypeVar("T")
Slag = Literal["stoy", "fremmed-konvolutt", "endret-pakke", "annet-skjema"]
SLAG: Final[tuple[Slag, ...]] = ("stoy", "fremmed-konvolutt", "endret-pakke", "annet-skjema")

PATIENCE_S: Final = 60.0
"""How long a citizen tries before giving up."""
LOOK_EVERY_S: Final = 0.1
LARGE_BYTES: Final = 700_000
"""More than goes into a record, so that the package goes to the dokumentlager."""
_BUSY: Final = 429
_SERVER_ERROR: Final = 500


@dataclass(frozen=True)
class Prepared:
    """A submission as it is sent, each time it is sent."""

    entry: Entry
    soknad_json: bytes
    vedlegg_json: bytes
    files: tuple[Dokument, ...]


class Load:
    """Sends to one world.

    Args:
        world: Where to.
        journal: Written before and after each step.
        rng: Decides all content.
    """

    def __init__(self, world: World, journal: Journal, rng: Random) -> None:
        self._world = world
        self._journal = journal
        self._rng = rng
        layout = world.layout
        self._http = httpx.AsyncClient(timeout=30, limits=httpx.Limits(max_connections=400))
        self._client = SoknadClient(layout.address("producers"), self._http)
        self._mottak = load_certificate(layout.certificate("mottak"))
        self._signer = Signer(
            load_certificate(layout.certificate("avsender")), load_private_key(layout.key("avsender"))
        )
        self._publisher = KafkaPublisher(world.admin, client_id="last")
        self._sent = 0

    async def close(self) -> None:
        """Let go of the connections."""
        await self._http.aclose()
        await self._publisher.stop()

    def prepare(
        self, run: str, kommunenummer: Kommunenummer, *, large: bool = False, ventet: Ventet = "MOTTATT"
    ) -> Prepared:
        """Return a new submission; nothing is sent."""
        rng = self._rng
        self._sent += 1
        person = synthetic_fodselsnummer(rng)
        content = {"Soknad.pdf": make_pdf(rng, LARGE_BYTES if large else 4000), "kvittering.png": make_png(rng, 2000)}
        soknad = make_soknad(rng, fodselsnummer=person, kommunenummer=kommunenummer)
        sheet = make_vedlegg(
            [("annet", "annet", "kvittering.png", hashlib.sha512(content["kvittering.png"]).hexdigest())]
        )
        digests = {
            name: _digest(data) for name, data in (content | {"soknad.json": soknad, "vedlegg.json": sheet}).items()
        }
        ref = f"kaos-{self._sent:05d}-{rng.getrandbits(32):08x}"
        entry = Entry(run=run, ref=ref, kommunenummer=kommunenummer, person=person, files=digests, ventet=ventet)
        files = tuple(Dokument.of_bytes(name, data) for name, data in content.items())
        return Prepared(entry, soknad, sheet, files)

    async def send(self, prepared: Prepared, *, patience_s: float = PATIENCE_S) -> Entry:
        """Send until there is an answer, as a client does who knows that the same reference is the same søknad.

        One who loses patience is in the journal as somebody who was promised nothing.
        """
        entry = prepared.entry
        self._journal.sends(entry)
        try:
            async with asyncio.timeout(patience_s):
                digisos_id = await self._until_answered(lambda: self._post(prepared))
        except TimeoutError:
            return self._journal.story.entries[entry.ref]
        except RefusedError as error:
            self._journal.refused(entry.ref, f"{error.status} {error.reason}")
            return self._journal.story.entries[entry.ref]
        self._journal.accepted(entry.ref, digisos_id)
        return self._journal.story.entries[entry.ref]

    async def _post(self, prepared: Prepared) -> str:
        entry = prepared.entry
        sent = await self._client.send(
            Kommunenummer(entry.kommunenummer),
            NavEksternRefId(entry.ref),
            soknad_json=prepared.soknad_json,
            vedlegg_json=prepared.vedlegg_json,
            files=prepared.files,
            token=await self._token(entry.person),
            encrypt_for=self._mottak,
        )
        return str(sent.digisos_id)

    async def _token(self, person: str) -> str:
        url = f"{self._world.layout.issuer_url}/utvikling/borgertoken"
        answer = await self._http.post(url, json={"pid": person})
        return str(answer.raise_for_status().json()["access_token"])

    async def _until_answered(self, call: Callable[[], Awaitable[T]]) -> T:
        while True:
            try:
                return await call()
            except httpx.HTTPError:
                pass
            except RefusedError as error:
                if error.status < _SERVER_ERROR and error.status != _BUSY:
                    raise
            await asyncio.sleep(LOOK_EVERY_S)

    async def send_more(self, soknad: Entry) -> Entry | None:
        """Send an ettersendelse for a søknad, as soon as the søknad is on its topic; None if nobody answered for that one.

        There is no ettersendelse over HTTP: this is a second sender, with the sender's keys, straight to the topics.
        Its AKSEPTERT names no owner, so that producers do not miss it in their own register.
        """
        if soknad.digisos_id is None or not await self.is_sent(soknad):
            return None
        rng = self._rng
        content = make_pdf(rng, 3000)
        siblings = [one for one in self._journal.story.entries.values() if one.digisos_id == soknad.digisos_id]
        entry = Entry(
            run=soknad.run, ref=f"{soknad.ref}-{len(siblings)}", kommunenummer=soknad.kommunenummer, person=soknad.person,
            files={"ettersendelse.pdf": _digest(content)}, ventet=soknad.ventet, digisos_id=soknad.digisos_id,
            nr=len(siblings),
        )  # fmt: skip
        self._journal.sends(entry)
        record = self._record(entry, ETTERSENDELSE, [("ettersendelse.pdf", "application/pdf", content)])
        for outgoing in (
            self._event(record, "AKSEPTERT"),
            self._message(record),
            self._event(record, "SENDT"),
        ):
            await self._publish(outgoing)
        self._journal.accepted(entry.ref, soknad.digisos_id)
        return self._journal.story.entries[entry.ref]

    async def is_sent(self, soknad: Entry) -> bool:
        """Wait until the status says that the søknad is on its topic, which is what an ettersendelse must come after."""
        url = f"{self._world.layout.address('kvittering')}/innsyn/v1/soknader/{soknad.digisos_id}"

        async def ask() -> str:
            headers = {"Authorization": f"Bearer {await self._token(soknad.person)}"}
            answer = await self._http.get(url, headers=headers)
            return str(answer.json().get("status", "")) if answer.is_success else ""

        async def is_on_topic() -> bool:
            return await self._until_answered(ask) not in {"", "AKSEPTERT"}

        try:
            async with asyncio.timeout(PATIENCE_S):
                return await until(is_on_topic, PATIENCE_S)
        except TimeoutError:
            return False

    def _record(
        self, entry: Entry, kind: str, files: Sequence[tuple[str, str, bytes]], *, sealed_for: str | None = None
    ) -> SoknadRecord:
        now = _now()
        number = Kommunenummer(entry.kommunenummer)
        base: dict[str, Any] = {
            "melding_id": MeldingId.new(),
            "digisos_id": DigisosId(entry.digisos_id or DigisosId.new()),
            "kommunenummer": number,
            "nav_ekstern_ref_id": NavEksternRefId(entry.ref),
            "type": kind,
            "innsendt": now,
            "avsender": organisasjonsnummer(self._signer.certificate),
        }
        recipient = load_certificate(self._world.layout.certificate(f"kommune-{sealed_for or number}"))
        draft = SoknadRecord(**base, nokkel_id="0" * 64, sha256="0" * 64, storrelse=0)
        packed = [(FILENAME, "application/json", draft.forsendelse().to_json()), *files]
        sealed, summary = seal_package(packed, recipient=recipient, signer=self._signer, now=now)
        return SoknadRecord(
            **base, nokkel_id=summary.nokkel_id, sha256=summary.sha256, storrelse=summary.size, pakke=sealed
        )

    def _event(self, record: SoknadRecord, kind: str) -> Outgoing:
        accepted = kind == "AKSEPTERT"
        event = TransportRecord(
            hendelse_id=Uuid.new(),
            melding_id=record.melding_id,
            digisos_id=record.digisos_id,
            kommunenummer=record.kommunenummer,
            type=kind,
            tidspunkt=_now(),
            nav_ekstern_ref_id=record.nav_ekstern_ref_id,
            sha256=record.sha256 if accepted else None,
        )
        return _outgoing(TRANSPORT, event, record)

    def _message(self, record: SoknadRecord) -> Outgoing:
        return _outgoing(soknad_topic(record.kommunenummer), record, record)

    async def _publish(self, outgoing: Outgoing) -> None:
        while True:
            try:
                await self._publisher.publish(outgoing)
            except TransportError:
                await asyncio.sleep(LOOK_EVERY_S)
            else:
                return

    async def poison(self, run: str, kommunenummer: Kommunenummer, slag: Slag) -> None:
        """Lay a record on the kommune's topic that can never be delivered."""
        rng = self._rng
        digisos_id = str(DigisosId.new())
        entry = Entry(
            run,
            f"gift-{rng.getrandbits(24):06x}-{rng.getrandbits(24):06x}",
            kommunenummer,
            synthetic_fodselsnummer(rng),
            {},
            "DOD",
            digisos_id,
        )
        files = [("soknad.pdf", "application/pdf", make_pdf(rng, 3000))]
        match slag:
            case "stoy":
                value = rng.randbytes(rng.randint(0, 300))
            case "annet-skjema":
                record = self._record(entry, SOKNAD, files)
                value = self._event(record, "SENDT").value or b""
            case "fremmed-konvolutt":
                others = [one for one in self._world.layout.setup.kommuner() if one != kommunenummer]
                value = encode(self._record(entry, SOKNAD, files, sealed_for=rng.choice(others)))
            case "endret-pakke":
                record = self._record(entry, SOKNAD, files)
                package = bytearray(record.pakke or b"")
                package[rng.randrange(len(package) // 2, len(package) - 20)] ^= 1 << rng.randrange(8)
                digest = hashlib.sha256(package).hexdigest()
                value = encode(record.model_copy(update={"pakke": bytes(package), "sha256": digest}))
        topic = soknad_topic(kommunenummer)
        self._journal.poisons(Poison(run, topic, _digest(value), digisos_id))
        await self._publish(Outgoing(topic, digisos_id.encode(), value))


def _outgoing(topic: str, value: Record, about: SoknadRecord) -> Outgoing:
    headers = cloud_event_headers(
        event_id=Uuid.new(), event_type="no.fiks.last.v1", source="/last", subject=about.kommunenummer, time=_now()
    )
    return Outgoing(topic, about.digisos_id.encode(), encode(value), headers)


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _now() -> datetime:
    now = system_clock()
    return now.replace(microsecond=now.microsecond // 1000 * 1000)


def new_seed() -> int:
    """Return a seed for a run that was not given one."""
    return secrets.randbelow(1_000_000)
