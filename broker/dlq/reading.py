"""Reading what the dead letters' state is folded from, with the rights of the ``broker`` principal.

Three readings: the kommuner's dead-letter topics; the revisjon from the oldest letter on; and the kvitteringer of the kommuner
that have letters, from each one's oldest letter on. Packages are let go of as they are read.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

from broker.catch_up import read_until_caught_up
from broker.dlq.letters import Letter, read_letter
from broker.dlq.state import Dodebrev, fold
from broker.kafka.admin import KafkaAdmin
from broker.kafka.subscriber import KafkaTail
from broker.revisjon_reading import read_acts
from broker.routing import dead_letter_topic, kvittering_topic, parse_topic
from crypto.jws import verify_jws
from schemas.codec import decode
from schemas.errors import ContractError, SignatureError, WithdrawnError
from schemas.kvittering import AVVIST, GRAD_INGEN, KvitteringClaims
from schemas.names import Kommunenummer, MeldingId
from schemas.records import KvitteringRecord

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Sequence
    from datetime import datetime

    from broker.kafka.settings import KafkaSettings
    from broker.katalog import Katalog
    from broker.operator_register import Register
    from broker.record import Incoming, TopicPartition
    from broker.revisjonskontroll import Act

_Asked: TypeAlias = tuple[Kommunenummer, MeldingId]


@dataclass(frozen=True, slots=True)
class Lest:
    """What was read.

    Attributes:
        brev: How the dead letters stand.
        acts: The revisjon from the oldest letter on.
    """

    brev: Dodebrev
    acts: tuple[Act, ...]


@dataclass
class _Letters:
    """Letters as they come, in the order of each partition."""

    found: list[Letter] = field(default_factory=list[Letter])
    unreadable: Counter[Kommunenummer] = field(default_factory=Counter[Kommunenummer])

    async def take_in(self, batch: Sequence[Incoming]) -> None:
        for record in batch:
            kommunenummer = parse_topic(record.topic).kommunenummer
            if kommunenummer is None:
                continue
            try:
                self.found.append(read_letter(record, kommunenummer))
            except ContractError:
                self.unreadable[kommunenummer] += 1

    def ordered(self) -> list[Letter]:
        return sorted(self.found, key=lambda one: (one.position.topic, one.position.partition, one.position.offset))

    def oldest(self) -> dict[Kommunenummer, int]:
        oldest: dict[Kommunenummer, int] = {}
        for letter in self.found:
            oldest[letter.kommunenummer] = min(letter.at_ms, oldest.get(letter.kommunenummer, letter.at_ms))
        return oldest


async def read_dead_letters(
    settings: KafkaSettings,
    katalog: Katalog,
    register: Register,
    now: datetime,
    *,
    kommuner: Iterable[Kommunenummer] = (),
) -> Lest:
    """Return how the dead letters stand now.

    Args:
        settings: Kafka, as ``broker``.
        katalog: Which kommuner there are, and who signs for them.
        register: Whose acts count, and how many rounds the loop guard allows.
        now: Aware UTC.
        kommuner: Only these; all when none is named.

    Raises:
        TransportError: Kafka does not answer, or refuses.
    """
    wanted = set(kommuner) or {entry.kommunenummer for entry in katalog.all()}
    async with KafkaAdmin(settings) as admin:
        there = await admin.list_topics()
        letters = await _read_letters(settings, sorted({dead_letter_topic(one) for one in wanted} & there))
        oldest = letters.oldest()
        if not oldest:
            return Lest(Dodebrev((), dict(letters.unreadable)), ())
        offsets: dict[TopicPartition, int] = {}
        for kommunenummer, at_ms in oldest.items():
            offsets |= await admin.offsets_from({kvittering_topic(kommunenummer)} & there, at_ms)
    acts = await read_acts(settings, since_ms=min(oldest.values()))
    meldinger = {(letter.kommunenummer, letter.melding_id) for letter in letters.found if letter.melding_id is not None}
    answers = await _read_answers(settings, katalog, offsets, meldinger)
    state = fold(letters.ordered(), acts, answers, now=now, register=register, uleselige=letters.unreadable)
    return Lest(state, tuple(acts))


async def _read_letters(settings: KafkaSettings, topics: Sequence[str]) -> _Letters:
    letters = _Letters()
    if topics:
        async with KafkaTail(settings, topics) as tail:
            await read_until_caught_up(tail, letters.take_in)
    return letters


async def _read_answers(
    settings: KafkaSettings, katalog: Katalog, offsets: dict[TopicPartition, int], meldinger: set[_Asked]
) -> dict[_Asked, int]:
    """Return when Kafka took the latest answer for each melding; only what the kommune's connector has signed counts."""
    answers: dict[_Asked, int] = {}

    async def take_in(batch: Sequence[Incoming]) -> None:
        for record in batch:
            asked = answered(record, katalog, meldinger)
            if asked is not None:
                answers[asked] = max(record.timestamp_ms, answers.get(asked, 0))

    topics = sorted({partition.topic for partition in offsets})
    if topics:
        async with KafkaTail(settings, topics, offsets=offsets) as tail:
            await read_until_caught_up(tail, take_in)
    return answers


def answered(record: Incoming, katalog: Katalog, meldinger: Container[object]) -> _Asked | None:
    """Return the melding of the topic's own kommune that a kvittering answers for, if it is one of ``meldinger``."""
    kommunenummer = parse_topic(record.topic).kommunenummer
    try:
        kvittering = decode(KvitteringRecord, record.value)
        if kommunenummer is None or (kommunenummer, kvittering.melding_id) not in meldinger:
            return None
        claims = KvitteringClaims.from_json(verify_jws(kvittering.jws, katalog.signers(kommunenummer))[0])
    except (ContractError, SignatureError):
        return None  # who follows the status says so aloud
    if claims.melding_id is None or (kommunenummer, claims.melding_id) not in meldinger or not is_answer(claims):
        return None
    return kommunenummer, claims.melding_id


def is_answer(claims: KvitteringClaims) -> bool:
    """Return whether the kvittering says what became of the melding, and not only that we gave up on it."""
    gave_up = claims.status == AVVIST and claims.grad == GRAD_INGEN
    return not gave_up or claims.kode == WithdrawnError.code
