"""The judge: was every accepted message delivered once, in order, with true receipts and a true status, and nothing else?

It compares what the load wrote down (``journal``) with what a stranger can see (``witness``), and believes nothing that the
product says about itself. Shares no code with the product beyond the Avro schemas.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal

from evidence import Link, check_chain, read_link
from witness import A_LIFE

from schemas.codec import decode
from schemas.errors import MeldingsformidlerError
from schemas.records import DeadLetterRecord, SoknadRecord, StatusRecord, TransportRecord

if TYPE_CHECKING:
    from journal import Entry, Poison, Story
    from witness import Delivery, Observed, Raw, Seen

Kind = Literal["tapt", "doblet", "rekkefolge", "usann", "kjede", "fremmed", "uforklart"]

AT_FAGSYSTEM: Final = frozenset({"MOTTATT", "UNDER_BEHANDLING", "FERDIGBEHANDLET", "BEHANDLES_IKKE"})
"""What a citizen may only be told when the fagsystem has the søknad."""
ON_PAPER: Final = "SENDT_PA_PAPIR"
TRANSPORT: Final = "fiks.transport.v1"
STATUS: Final = "fiks.status.v1"
CENTRAL_DLQ: Final = "fiks.kvittering.v1.dlq"
FORBIDDEN: Final = frozenset({403, 404})


@dataclass(frozen=True)
class Finding:
    """Something that must not be.

    Attributes:
        kind: Which column of the table it counts in.
        ref: Whose, or where.
        text: What, without personal data.
        lasting: Whether it was wrong at the moment when it was seen, whatever comes later.
    """

    kind: Kind
    ref: str
    text: str
    lasting: bool = False


@dataclass
class _Message:
    """One melding as the topics know it."""

    record: SoknadRecord
    first: Raw
    digests: set[str] = field(default_factory=set[str])


@dataclass
class _Topics:
    """What was read, by what it is about."""

    by_ref: dict[str, dict[str, _Message]] = field(default_factory=lambda: defaultdict(dict))
    links: dict[str, list[Link]] = field(default_factory=lambda: defaultdict(list))
    transport: dict[str, list[tuple[Raw, TransportRecord]]] = field(default_factory=lambda: defaultdict(list))
    letters: list[DeadLetterRecord] = field(default_factory=list[DeadLetterRecord])
    status: dict[str, StatusRecord] = field(default_factory=dict[str, StatusRecord])
    life: int = 0
    central_letters: list[DeadLetterRecord] = field(default_factory=list[DeadLetterRecord])
    bad_links: list[tuple[Raw, str]] = field(default_factory=list[tuple["Raw", str]])


class Checker:
    """Judges one set-up, again and again; what it has sorted of the records it does not sort again."""

    def __init__(self) -> None:
        self._topics = _Topics()
        self._sorted = 0

    def judge(self, story: Story, observed: Observed, whole: Story | None = None) -> list[Finding]:
        """Return everything that must not be.

        Args:
            story: What must have been done by now.
            observed: What there is.
            whole: All that was ever sent, when ``story`` is only a part; what is in neither is a stranger's.
        """
        whole = whole or story
        topics = self._sort(observed, {one.digest for one in whole.poison})
        deliveries: dict[str, list[Delivery]] = defaultdict(list)
        for delivery in observed.deliveries:
            deliveries[str(delivery.leveranse.get("navEksternRefId"))].append(delivery)
        case = _Case(whole, observed, topics, deliveries)
        findings = [finding for entry in story.entries.values() for finding in case.judge_entry(entry)]
        findings += case.judge_orders(story)
        findings += case.judge_poison(story.poison)
        findings += case.judge_strangers()
        return findings

    def _sort(self, observed: Observed, poison: set[str]) -> _Topics:
        for raw in observed.records[self._sorted :]:
            if raw.value is not None and hashlib.sha256(raw.value).hexdigest() not in poison:
                _take(self._topics, raw, observed)
        self._sorted = len(observed.records)
        return self._topics


def _take(topics: _Topics, raw: Raw, observed: Observed) -> None:
    if raw.offset // A_LIFE > topics.life:  # whoever reads the statuses now has only what is on their topic now
        topics.life = raw.offset // A_LIFE
        topics.status.clear()
    if raw.topic == TRANSPORT:
        record = decode(TransportRecord, raw.value)
        topics.transport[str(record.melding_id)].append((raw, record))
    elif raw.topic == STATUS:
        topics.status[raw.key.decode("ascii")] = decode(StatusRecord, raw.value)
    elif raw.topic == CENTRAL_DLQ:
        topics.central_letters.append(decode(DeadLetterRecord, raw.value))
    elif raw.topic.endswith(".soknad.v1.dlq"):
        topics.letters.append(decode(DeadLetterRecord, raw.value))
    elif raw.topic.endswith(".soknad.v1"):
        _take_soknad(topics, raw)
    elif raw.topic.endswith(".kvittering.v1"):
        link, problem = read_link(raw, observed.signers.get(raw.topic.split(".")[1], []), observed.root)
        if link is None:
            topics.bad_links.append((raw, problem))
        else:
            topics.links[str(link.claims["digisosId"])].append(link)


def _take_soknad(topics: _Topics, raw: Raw) -> None:
    try:
        record = decode(SoknadRecord, raw.value)
    except MeldingsformidlerError:
        return  # the journal's poison accounts for what it is; anything else shows in what is missing
    if record.type == "TILBAKEKALL":
        return
    messages = topics.by_ref[str(record.nav_ekstern_ref_id)]
    messages.setdefault(str(record.melding_id), _Message(record, raw)).digests.add(str(record.sha256))


@dataclass
class _Case:
    """One judgement."""

    whole: Story
    observed: Observed
    topics: _Topics
    deliveries: dict[str, list[Delivery]]

    def judge_entry(self, entry: Entry) -> Iterator[Finding]:
        """Return what is wrong with one message."""
        delivered = [one for one in self.deliveries[entry.ref] if one.status != "AVVIST"]
        messages = self.topics.by_ref.get(entry.ref, {})
        if entry.refused:
            yield Finding("uforklart", entry.ref, f"ble avslått: {entry.refused}")
            if messages or delivered:
                yield Finding("fremmed", entry.ref, "ble avslått, og kom fram likevel")
            return
        if not entry.accepted and not messages and not delivered:
            return  # nobody was promised anything, and nothing is half done
        yield from self._judge_once(entry, messages, delivered)
        yield from self._judge_end(entry, messages, delivered)
        for one in delivered:
            yield from _judge_delivery(entry, one)
        for melding_id, message in messages.items():
            yield from self._judge_receipts(entry, melding_id, message, delivered)
        if entry.nr == 0:
            yield from self._judge_status(entry, delivered)

    def _judge_end(self, entry: Entry, messages: dict[str, _Message], delivered: list[Delivery]) -> Iterator[Finding]:
        """Return whether a message has ended otherwise than it must."""
        if entry.ventet == "MOTTATT" and not delivered:
            yield Finding("tapt", entry.ref, self._whereabouts(entry, messages))
        if entry.ventet in {"AVVIST", "DOD"} and delivered:
            yield Finding("fremmed", entry.ref, f"skulle ende som {entry.ventet}, og ligger hos fagsystemet")
        if entry.ventet == "PAPIR":
            yield from self._judge_paper(entry, messages, delivered)
        if entry.ventet == "ETT" and not delivered and not self._accounted(messages):
            yield Finding("tapt", entry.ref, self._whereabouts(entry, messages))

    def _judge_once(self, entry: Entry, messages: dict[str, _Message], delivered: list[Delivery]) -> Iterator[Finding]:
        if len(delivered) > 1:
            yield Finding("doblet", entry.ref, f"ligger {len(delivered)} ganger: {[one.place for one in delivered]}")
        if len(messages) > 1:
            yield Finding("doblet", entry.ref, f"har {len(messages)} meldinger på emnet")
        ids = {str(one.record.digisos_id) for one in messages.values()}
        if entry.accepted and ids - {entry.digisos_id}:
            yield Finding("fremmed", entry.ref, "har en annen digisosId på emnet enn i svaret")
        if entry.accepted and not messages:
            yield Finding("tapt", entry.ref, "er akseptert, og ligger ikke på emnet")
        for melding_id, message in messages.items():
            resealed = {
                str(event.sha256)
                for _, event in self.topics.transport[melding_id]
                if event.type in {"AKSEPTERT", "OMFORSEGLET"}
            }
            if message.digests - resealed:
                yield Finding("doblet", entry.ref, "ligger på emnet med en pakke som avsenderen ikke har sagt fra om")

    def _judge_paper(self, entry: Entry, messages: dict[str, _Message], delivered: list[Delivery]) -> Iterator[Finding]:
        """A message that no fagsystem took must be one letter set, with its receipt, and nothing else."""
        if delivered:
            yield Finding("doblet", entry.ref, "er sendt på papir, og ligger hos fagsystemet")
        for melding_id in messages:
            letters = [one for one in self.observed.letters if one.melding_id == melding_id]
            if len(letters) != 1:
                yield Finding(
                    "doblet" if letters else "tapt", entry.ref, f"ligger {len(letters)} ganger i utskriftskøen"
                )
            pdfs = {digest for name, digest in entry.files.items() if name.endswith(".pdf")}
            if any(pdfs - set(one.files.values()) for one in letters):
                yield Finding("tapt", entry.ref, "brevsettet har ikke den PDF-en som ble sendt")
            printed = {
                str(event.hendelse_id) for _, event in self.topics.transport[melding_id] if event.type == "UTSKREVET"
            }
            if letters and len(printed) != 1:
                yield Finding("kjede", entry.ref, f"har {len(printed)} kvitteringer for utskrift")

    def _whereabouts(self, entry: Entry, messages: dict[str, _Message]) -> str:
        for melding_id, message in messages.items():
            codes = [one.kode for one in self.topics.letters if str(one.melding_id) == melding_id]
            answers = [link.claims["status"] for link in self._links_of(message, melding_id)]
            return f"er ikke hos fagsystemet; kvitteringer: {answers or 'ingen'}; døde brev: {codes or 'ingen'}"
        return f"er ikke hos fagsystemet og ikke på emnet ({entry.kommunenummer})"

    def _links_of(self, message: _Message, melding_id: str) -> list[Link]:
        links = self.topics.links.get(str(message.record.digisos_id), [])
        return [link for link in links if link.claims["meldingId"] == melding_id]

    def _accounted(self, messages: dict[str, _Message]) -> bool:
        """Whether a message that is not at the fagsystem has another end that somebody was told of."""
        for melding_id, message in messages.items():
            if any(event.type == "UTSKREVET" for _, event in self.topics.transport[melding_id]):
                return True
            refused = [link for link in self._links_of(message, melding_id) if link.claims["status"] == "AVVIST"]
            dead = any(str(one.melding_id) == melding_id for one in self.topics.letters)
            if any(link.claims["grad"] != "INGEN" or dead for link in refused):
                return True
        return False

    def _judge_receipts(
        self, entry: Entry, melding_id: str, message: _Message, delivered: list[Delivery]
    ) -> Iterator[Finding]:
        links = self._links_of(message, melding_id)
        received = {link.digest for link in links if link.claims["status"] == "MOTTATT"}
        if received and not delivered:
            yield Finding("usann", entry.ref, "har kvitteringen MOTTATT, og ligger ikke hos fagsystemet")
        if delivered and entry.ventet == "MOTTATT" and not received:
            yield Finding("kjede", entry.ref, "ligger hos fagsystemet, og kvitteringen MOTTATT mangler")
        if len(received) > 1:
            yield Finding("kjede", entry.ref, f"har {len(received)} ulike kvitteringer MOTTATT")
        for link in links:
            if link.claims["status"] != "AVVIST" and link.claims["sha256"] not in message.digests:
                yield Finding("kjede", entry.ref, "har en kvittering for en annen pakke enn den som ble sendt")
        if entry.ventet in {"AVVIST", "DOD"} and not any(link.claims["status"] == "AVVIST" for link in links):
            yield Finding("uforklart", entry.ref, "kom ikke fram, og ingen kvittering sier det")
        dead = [one for one in self.topics.letters if str(one.melding_id) == melding_id]
        if dead and not any(link.claims["status"] == "AVVIST" for link in links):
            yield Finding("uforklart", entry.ref, "er et dødt brev uten negativ kvittering")
        yield from self._judge_transport(entry, melding_id, message)

    def _judge_transport(self, entry: Entry, melding_id: str, message: _Message) -> Iterator[Finding]:
        events = self.topics.transport[melding_id]
        accepted = {str(one.hendelse_id) for _, one in events if one.type == "AKSEPTERT"}
        sent = [raw for raw, one in events if one.type == "SENDT" and one.kanal == "KAFKA"]
        if len(accepted) != 1:
            yield Finding("kjede", entry.ref, f"har {len(accepted)} hendelser AKSEPTERT")
        if not sent:
            yield Finding("kjede", entry.ref, "ligger på emnet, og hendelsen SENDT mangler")
        elif min(raw.timestamp_ms for raw in sent) < message.first.timestamp_ms:
            yield Finding("usann", entry.ref, "sto som SENDT før den lå på emnet")

    def _judge_status(self, entry: Entry, delivered: list[Delivery]) -> Iterator[Finding]:
        digisos_id = entry.digisos_id or next(
            (str(one.record.digisos_id) for one in self.topics.by_ref[entry.ref].values()), ""
        )
        for problem in check_chain(self.topics.links.get(digisos_id, [])):
            yield Finding("kjede", entry.ref, problem)
        seen = self.observed.statuses.get(digisos_id)
        published = self.topics.status.get(digisos_id)
        if seen is None:
            if entry.accepted:
                yield Finding("usann", entry.ref, "status ble aldri lest")
            return
        if seen.stranger is not None and seen.stranger not in FORBIDDEN:
            yield Finding("fremmed", entry.ref, f"en annen borger fikk {seen.stranger}")
        yield from _judge_shown(entry, seen, delivered)
        if published is None or published.status != seen.status:
            told = published.status if published else "ingenting"
            yield Finding("usann", entry.ref, f"borgeren ser {seen.status or seen.code}, og emnet sier {told}")

    def judge_orders(self, story: Story) -> Iterator[Finding]:
        """Return where a søknad's messages were delivered in another order than they were sent in."""
        sent: dict[str, list[Entry]] = defaultdict(list)
        for entry in story.entries.values():
            if entry.digisos_id:
                sent[entry.digisos_id].append(entry)
        for entries in sent.values():
            entries.sort(key=lambda one: one.nr)
            offsets = [raw.offset for entry in entries for raw in self._places(entry)]
            if offsets != sorted(offsets):
                yield Finding("rekkefolge", entries[0].ref, "meldingene ligger i feil rekkefølge på emnet")
            times = [one.at_ns for entry in entries for one in self.deliveries[entry.ref] if one.status != "AVVIST"]
            if times != sorted(times):
                yield Finding("rekkefolge", entries[0].ref, "meldingene kom til fagsystemet i feil rekkefølge")

    def _places(self, entry: Entry) -> list[Raw]:
        return [one.first for one in self.topics.by_ref.get(entry.ref, {}).values()]

    def judge_poison(self, poison: Iterable[Poison]) -> Iterator[Finding]:
        """Return which planted records did not become dead letters with a negative kvittering."""
        letters = Counter(
            hashlib.sha256(one.opprinnelig.verdi or b"").hexdigest()
            for one in {str(letter.dead_letter_id): letter for letter in self.topics.letters}.values()
        )
        for one in poison:
            if one.digest not in letters:
                yield Finding("uforklart", one.topic, "en ødelagt melding ble ikke til et dødt brev")
            elif letters[one.digest] > 1:
                yield Finding("doblet", one.topic, f"en ødelagt melding ble {letters[one.digest]} døde brev")
            links = self.topics.links.get(one.digisos_id or "", [])
            if one.digisos_id and not any(link.claims["status"] == "AVVIST" for link in links):
                yield Finding("uforklart", one.topic, "en ødelagt melding fikk ingen negativ kvittering")

    def judge_strangers(self) -> Iterator[Finding]:
        """Return what is there and that nobody sent."""
        for ref, found in self.deliveries.items():
            if ref not in self.whole.entries:
                yield Finding("fremmed", found[0].place, "ligger hos fagsystemet, og ingen har sendt den")
        ours = {one.digest for one in self.whole.poison}
        known = {*self.whole.entries}
        for raw, problem in self.topics.bad_links:
            yield Finding("kjede", f"{raw.topic}/{raw.partition}/{raw.offset}", f"kvitteringen {problem}")
        for letter in self.topics.central_letters:
            if hashlib.sha256(letter.opprinnelig.verdi or b"").hexdigest() not in ours:
                yield Finding("kjede", letter.opprinnelig.topic, f"en kvittering ble underkjent: {letter.kode}")
        for ref in self.topics.by_ref.keys() - known:
            if not any(str(one.record.digisos_id) in self._poisoned() for one in self.topics.by_ref[ref].values()):
                yield Finding("fremmed", ref, "ligger på et søknadsemne, og ingen har sendt den")

    def _poisoned(self) -> set[str]:
        return {one.digisos_id for one in self.whole.poison if one.digisos_id}


def _judge_delivery(entry: Entry, delivery: Delivery) -> Iterator[Finding]:
    if delivery.kommunenummer != entry.kommunenummer:
        yield Finding("fremmed", entry.ref, f"kom til {delivery.kommunenummer}, og skulle til {entry.kommunenummer}")
    if entry.digisos_id and delivery.leveranse.get("digisosId") != entry.digisos_id:
        yield Finding("fremmed", entry.ref, "har en annen digisosId hos fagsystemet enn i svaret")
    for name in sorted(entry.files.keys() | delivery.files.keys()):
        if entry.files.get(name) != delivery.files.get(name):
            what = "mangler" if name not in delivery.files else "er ikke den som ble sendt"
            yield Finding("tapt", entry.ref, f"en fil {what} hos fagsystemet")


def _judge_shown(entry: Entry, seen: Seen, delivered: list[Delivery]) -> Iterator[Finding]:
    if not seen.view:
        yield Finding("usann", entry.ref, f"status er ukjent (HTTP {seen.code})")
    elif seen.status in AT_FAGSYSTEM and not delivered:
        yield Finding("usann", entry.ref, f"borgeren ser {seen.status}, og fagsystemet har den ikke", lasting=True)
    elif delivered and seen.status not in AT_FAGSYSTEM and entry.ventet == "MOTTATT":
        yield Finding("usann", entry.ref, f"borgeren ser {seen.status}, og fagsystemet har den")
    elif entry.ventet == "PAPIR" and seen.status != ON_PAPER:
        yield Finding("usann", entry.ref, f"borgeren ser {seen.status}, og den er sendt på papir")
