"""Recall: which søknader are affected, and withdrawing or re-sending them as one governed act.

Rules:

1. The question is put to the sender's own register, by kommune, time, sender's version, schema and channel. What somebody has
   received is affected too, and listed as such.
2. An act is for the exact meldinger that the operator saw: their digest is signed, and when they are others by the time of the
   demand nothing is done. Their ids are kept with the demand; what is carried out, then or after an approval, is carried out on
   these. One that is not as it was asked for any more is left alone and told of (``ENDRET``), and none comes in addition.
3. It is signed by an operator; when it reaches more than ``Register.grense``, together with what that operator did alone within
   ``styring.ALONE_FOR``, another operator signs too before anything is done,
   within ``styring.VALID_FOR``. Both signatures are judged here, and kept: in the database, and in the revisjon.
4. ``trekk`` withdraws what nobody has received: out of the outbox if it is there still, and by a TILBAKEKALL on the kommune's
   topic and a TILBAKEKALT, in one transaction. A connector that has handed it over answers as it did: then it is too late, which
   the status shows. What was received, printed or withdrawn before is counted as that.
5. ``send`` sends again from the copies; see ``producers.omsending``.
6. An act that was broken off goes on when it is approved once more, or demanded once more with its id by the same operator;
   nothing is done twice.
7. A selection that limits nothing is refused, and so is a field that nobody knows: neither may mean every søknad.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Final, Self

from pydantic import AwareDatetime, ConfigDict, Field, ValidationError

from broker.krasj import crash_point
from broker.krav import Godkjenning, Krav, verify
from broker.styring import ALONE_FOR, VALID_FOR, needs_approval, selection_digest
from producers import kopi_rows, recall_rows
from producers.omsending import Bestilling
from producers.recall_rows import FORESLATT, GODKJENT, UTFORT, Tilbakekalling
from producers.revisjonsbok import write_act
from producers.withdrawal import I_UTBOKSEN, MOTTATT, SENDT, stand, withdraw_in
from schemas.errors import ApprovalError, GovernedActError, SelectionChangedError, SelectionError
from schemas.model import WireModel
from schemas.names import DigisosId, Kommunenummer, MeldingId, NokkelId, Sha256, Uuid

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from broker.clock import Clock
    from broker.operator_register import Register
    from broker.sql import Connection, Database
    from producers.kopi_rows import Kopi
    from producers.omsending import Omsender
    from producers.recall_rows import Side

ENDRET: Final = "ENDRET"
TREKK: Final = "trekk"
SEND: Final = "send"
MAX_MELDINGER: Final = 500
MAX_TOLD: Final = 1000


class RecallUtvalg(WireModel):
    """Which søknader are affected; what is not said does not limit, and an unknown field is refused. Times are half open.

    Attributes:
        til_nr: Only what had been accepted up to this place: the register's end when the operator looked.
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    kommunenummer: Kommunenummer | None = None
    meldinger: tuple[MeldingId, ...] = Field(default=(), max_length=MAX_MELDINGER)
    digisos_id: DigisosId | None = None
    kanal: str | None = None
    nokkel_id: NokkelId | None = None
    fra: AwareDatetime | None = None
    til: AwareDatetime | None = None
    avsenderversjon: str | None = None
    skjemaversjon: str | None = None
    til_nr: int | None = None

    @property
    def is_empty(self) -> bool:
        """Whether it limits nothing."""
        return self.model_copy(update={"til_nr": None}) == RecallUtvalg()

    def rows(self) -> kopi_rows.Utvalg:
        """Return it as the register takes it."""
        return kopi_rows.Utvalg(**self.model_dump(exclude={"til_nr"}))

    def to_json(self) -> str:
        """Return it as it is signed: what does not limit is left out."""
        return self.model_dump_json(by_alias=True, exclude_defaults=True)

    @classmethod
    def of(cls, text: str) -> Self:
        """Return the selection in a demand.

        Raises:
            SelectionError: It is none, its end is not said, or it limits nothing.
        """
        try:
            utvalg = cls.model_validate_json(text)
        except ValidationError:
            raise SelectionError("utvalget kan ikke leses, eller har felt som ikke finnes") from None
        if utvalg.til_nr is None:
            raise SelectionError("utvalget sier ikke hvor registeret sluttet (tilNr)")
        if utvalg.is_empty:
            raise SelectionError("utvalget er tomt: si hvilke søknader det gjelder")
        return utvalg


@dataclass(frozen=True, slots=True)
class Funn:
    """One affected melding, and how far it has come as the sender knows it."""

    kopi: Kopi
    stand: str


@dataclass(frozen=True, slots=True)
class Oversikt:
    """What a question found.

    Attributes:
        antall: How many are affected.
        digest: Of exactly these, for the demand.
        til_nr: Where the register ended.
        funn: One page of them.
        etter: Where the next page begins.
    """

    antall: int
    digest: Sha256
    til_nr: int
    funn: tuple[Funn, ...]
    etter: int


@dataclass
class Resultat:
    """What a recall did, or that it waits for another operator.

    Attributes:
        id: The recall.
        tilstand: FORESLATT, GODKJENT or UTFORT.
        antall: Meldinger by what became of them.
        for_sent: Those that somebody has received already; at most the first thousand.
        endret: Those that were left alone because they are not as they were asked for; at most the first thousand.
    """

    id: Uuid
    tilstand: str
    antall: Counter[str] = field(default_factory=Counter[str])
    for_sent: list[MeldingId] = field(default_factory=list[MeldingId])
    endret: list[MeldingId] = field(default_factory=list[MeldingId])


class Tilbakekaller:
    """Answers and acts.

    Args:
        database: The sender's.
        omsender: Sends again.
        register: Reads who the operators are; None when this process knows of none, and then nobody acts.
        clock: What the time is.
        wake: Called when something came to the outbox.
    """

    def __init__(
        self,
        database: Database,
        omsender: Omsender,
        register: Callable[[], Register] | None,
        clock: Clock,
        wake: Callable[[], None],
    ) -> None:
        self._database = database
        self._omsender = omsender
        self._register = register
        self._clock = clock
        self._wake = wake

    async def look(self, utvalg: RecallUtvalg, handling: str, *, etter: int = 0, antall: int = 100) -> Oversikt:
        """Return what is affected, a page at a time.

        Args:
            utvalg: The question.
            handling: What the digest is to be for.
            etter: Begin behind this place.
            antall: At most so many.

        Raises:
            StoreError: The database cannot be read.
        """

        def read(connection: Connection) -> Oversikt:
            end = recall_rows.highest(connection) if utvalg.til_nr is None else utvalg.til_nr
            ids = list(recall_rows.affected_ids(connection, utvalg.rows(), til_nr=end))
            page = recall_rows.affected(connection, utvalg.rows(), til_nr=end, etter=etter, antall=antall)
            found = tuple(Funn(kopi, stand(connection, kopi)) for kopi in page)
            return Oversikt(len(ids), selection_digest(handling, ids), end, found, page[-1].nr if page else etter)

        return await self._database.read(read)

    async def demand(self, token: str) -> Resultat:
        """Carry out what an operator demands, or note it as a proposal when it needs another's approval.

        Args:
            token: A signed ``Krav``.

        Raises:
            ApprovalError: It is not signed by an operator, or its id is another demand's.
            SelectionChangedError: The selection is not what the operator saw.
            GovernedActError: It is no act of ours.
            StoreError: It is not known how far it came: demand it once more.
        """
        register, now = self._operators(), self._clock()
        krav = verify(Krav, token, register, now)
        if krav.handling not in {TREKK, SEND}:
            raise GovernedActError("handlingen er verken trekk eller send")
        recall = await self._database.read(lambda connection: recall_rows.get(connection, krav.id))
        if recall is None:
            recall = await self._note(krav, token, register, now)
        if recall is None or _asked(recall) != (krav.aktor, krav.handling, krav.utvalg, krav.digest):
            raise ApprovalError("id-en er brukt av et annet krav")
        return Resultat(recall.id, FORESLATT) if recall.tilstand == FORESLATT else await self._carry_out(recall)

    async def _note(self, krav: Krav, token: str, register: Register, now: datetime) -> Tilbakekalling | None:
        """Note a demand with the exact meldinger that it is for, as an act or a proposal; return what has its id."""
        ids = await self._check(krav.handling, krav.utvalg, krav.digest)
        if krav.antall != len(ids):  # it is what the revisjon and the lists show
            raise SelectionChangedError("kravet sier et annet antall enn utvalget har. Ingenting er gjort")

        def write(connection: Connection) -> Tilbakekalling | None:
            alone = recall_rows.done_alone(connection, krav.aktor, now - ALONE_FOR)
            state = FORESLATT if needs_approval(len(alone.union(ids)), register) else GODKJENT
            if recall_rows.add(connection, krav, token, state, now):
                recall_rows.keep_signed(connection, krav.id, ids)
                details = {"handling": krav.handling, "antall": str(len(ids)), "digest": krav.digest}
                write_act(
                    connection,
                    f"tilbakekalling.{state.lower()}",
                    krav.id,
                    detaljer=details | {"aktor": krav.aktor, "krav": token},
                    begrunnelse=krav.begrunnelse,
                    now=now,
                )
            return recall_rows.get(connection, krav.id)

        recall = await self._database.write(write)
        self._wake()
        return recall

    async def approve(self, recall_id: Uuid, token: str) -> Resultat:
        """Carry out a proposal that another operator approves.

        Args:
            recall_id: Which.
            token: A signed ``Godkjenning``.

        Raises:
            ApprovalError: There is none such, it is too old, or this operator may not, or approved something else.
            StoreError: It is not known how far it came: approve it once more.
        """
        register, now = self._operators(), self._clock()
        given = verify(Godkjenning, token, register, now)
        recall = await self._database.read(lambda connection: recall_rows.get(connection, recall_id))
        if recall is None:
            raise ApprovalError("det er ingen slik tilbakekalling")
        if (given.id, given.digest, given.krav) != (recall.id, recall.digest, Sha256.of(recall.krav.encode())):
            raise ApprovalError("godkjenningen gjelder noe annet")
        if given.aktor == recall.aktor:
            raise ApprovalError("den som foreslo kan ikke godkjenne; en annen operatør må gjøre det")
        if recall.tilstand == FORESLATT and now - recall.tidspunkt > VALID_FOR:
            raise ApprovalError(f"forslaget er mer enn {VALID_FOR.days} dager gammelt; foreslå det på nytt")
        await self._keep(recall)

        def write(connection: Connection) -> None:
            recall_rows.move(connection, recall.id, GODKJENT, given.aktor)
            details = {"digest": str(recall.digest), "aktor": given.aktor, "godkjenning": token}
            write_act(connection, "tilbakekalling.godkjent", recall.id, detaljer=details, now=now)

        if recall.tilstand == FORESLATT:
            await self._database.write(write)
        return await self._carry_out(recall)

    async def recalls(self) -> list[Tilbakekalling]:
        """Return every recall, newest first."""
        return await self._database.read(recall_rows.all_recalls)

    def _operators(self) -> Register:
        if self._register is None:
            raise ApprovalError("denne prosessen vet ikke hvem operatørene er (FORMIDLER_PRODUCERS_OPERATORER)")
        return self._register()

    async def _check(self, handling: str, utvalg_json: str, digest: Sha256) -> list[MeldingId]:
        """Return what is selected; refuse a selection that is not what was signed (rule 2)."""
        utvalg = RecallUtvalg.of(utvalg_json)
        end = utvalg.til_nr or 0
        ids = await self._database.read(
            lambda connection: list(recall_rows.affected_ids(connection, utvalg.rows(), til_nr=end))
        )
        if selection_digest(handling, ids) != digest:
            raise SelectionChangedError("utvalget er ikke det som ble signert; søk på nytt. Ingenting er gjort")
        return ids

    async def _keep(self, recall: Tilbakekalling) -> None:
        """Note what an act is for, when it was signed before that was noted with the demand."""
        if recall.antall and not await self._database.read(
            lambda connection: recall_rows.is_kept(connection, recall.id)
        ):
            ids = await self._check(recall.handling, recall.utvalg, recall.digest)
            await self._database.write(lambda connection: recall_rows.keep_signed(connection, recall.id, ids))

    async def _carry_out(self, recall: Tilbakekalling) -> Resultat:
        await self._keep(recall)
        utvalg, resultat, etter = RecallUtvalg.of(recall.utvalg), Resultat(recall.id, UTFORT), 0
        while side := await self._page(recall, utvalg, etter):
            etter = side.etter
            resultat.antall.update([ENDRET] * len(side.endret))
            resultat.endret += side.endret[: MAX_TOLD - len(resultat.endret)]
            if recall.handling == TREKK:
                await self._withdraw(recall, side.kopier, resultat)
            else:
                await self._send(recall, side.kopier, resultat)
        counts = {name: str(count) for name, count in sorted(resultat.antall.items())}

        def write(connection: Connection) -> None:
            recall_rows.move(connection, recall.id, UTFORT)
            details = counts | {"handling": recall.handling}
            write_act(connection, "tilbakekalling.utfort", recall.id, detaljer=details, now=self._clock())

        await self._database.write(write)
        self._wake()
        return resultat

    async def _page(self, recall: Tilbakekalling, utvalg: RecallUtvalg, etter: int) -> Side | None:
        return await self._database.read(
            lambda connection: recall_rows.signed(connection, recall.id, utvalg.rows(), etter=etter)
        )

    async def _withdraw(self, recall: Tilbakekalling, page: list[Kopi], resultat: Resultat) -> None:
        now = self._clock()

        def write(connection: Connection) -> list[tuple[MeldingId, str]]:
            done = [(kopi.melding_id, withdraw_in(connection, kopi, recall.id, now)) for kopi in page]
            crash_point("producers.recall.before-commit")
            return done

        withdrawn = await self._database.write(write)
        crash_point("producers.recall.withdrawn")
        for melding_id, what in withdrawn:
            resultat.antall[what] += 1
            if what == MOTTATT and len(resultat.for_sent) < MAX_TOLD:
                resultat.for_sent.append(melding_id)
        self._wake()

    async def _send(self, recall: Tilbakekalling, page: list[Kopi], resultat: Resultat) -> None:
        states = await self._database.read(lambda connection: {k.melding_id: stand(connection, k) for k in page})
        ready = tuple(melding_id for melding_id, where in states.items() if where in {SENDT, I_UTBOKSEN})
        resultat.antall.update(where for where in states.values() if where not in {SENDT, I_UTBOKSEN})
        if not ready:
            return
        order = Bestilling(
            kopi_rows.Utvalg(meldinger=ready), recall.id, bedt_av=recall.aktor, begrunnelse=recall.begrunnelse
        )
        step = await self._omsender.send(order)
        resultat.antall["SENDT_IGJEN"] += step.sendt
        resultat.antall.update(step.hoppet_over)


def _asked(recall: Tilbakekalling) -> tuple[str, str, str, Sha256]:
    return recall.aktor, recall.handling, recall.utvalg, recall.digest


def view(funn: Funn) -> dict[str, Any]:
    """Return one affected melding for operators: ids, versions, times, and how far it has come."""
    record = funn.kopi.record
    return {
        "meldingId": funn.kopi.melding_id,
        "digisosId": funn.kopi.digisos_id,
        "kommunenummer": funn.kopi.kommunenummer,
        "type": record.type,
        "innsendt": record.innsendt.isoformat(),
        "kanal": funn.kopi.kanal,
        "avsenderversjon": record.avsenderversjon,
        "skjemaversjon": record.skjemaversjon,
        "stand": funn.stand,
    }
