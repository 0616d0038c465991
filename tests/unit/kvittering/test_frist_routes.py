from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from fastapi import FastAPI

from broker.web import FiksError, install_fiks_errors
from kvittering.frist_routes import PATH, frist_router
from kvittering.store import StatusStore

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class Door:
    """The overdue list over a store that tests fill, called in memory."""

    def __init__(self, kit: Any, store: StatusStore) -> None:
        self.kit, self.store, self.log = kit, store, kit.log()
        self.now: datetime = kit.now
        app = FastAPI()
        install_fiks_errors(app)
        app.include_router(frist_router(store, self.check, lambda: self.now))
        self.http = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://kvittering")

    async def check(self, authorization: str | None) -> None:
        if authorization != "Bearer avsender":
            raise FiksError(403, "nei")

    async def put(self, *records: Any) -> None:
        await self.store.apply([self.kit.read(self.log.transport(one)) for one in records], self.kit.now)

    async def ask(self, hours: float, **params: Any) -> httpx.Response:
        self.now = self.kit.now + timedelta(hours=hours)
        return await self.http.get(PATH, params=params, headers={"Authorization": "Bearer avsender"})


@pytest.fixture
async def door(kit: Any, tmp_path: Path) -> AsyncIterator[Door]:
    async with StatusStore(tmp_path / "k.sqlite") as store:
        made = Door(kit, store)
        async with made.http:
            yield made


async def test_the_sender_sees_who_has_waited_longest_where_and_why(door: Door, kit: Any) -> None:
    late, later = kit.soknad(), kit.soknad(kommunenummer=kit.bergen)
    await door.put(
        later.transport("AKSEPTERT", 3600),
        late.transport("AKSEPTERT"),
        late.transport("IKKE_SENDT", 7200, kanal="PRINT", kode="ingen-kanal"),
    )
    answer = await door.ask(26)
    assert answer.headers["cache-control"] == "no-store"
    view = answer.json()
    assert view["antall"] == 2
    assert view["kommuner"] == [
        {"kommunenummer": "0301", "arsak": "kanal-feil", "antall": 1},
        {"kommunenummer": "4601", "arsak": "ikke-sendt", "antall": 1},
    ]
    assert [one["digisosId"] for one in view["frister"]] == [late.digisos_id, later.digisos_id]
    assert view["frister"][0] == {
        "digisosId": late.digisos_id,
        "meldingId": late.melding_id,
        "kommunenummer": "0301",
        "kanal": "PRINT",
        "arsak": "kanal-feil",
        "kode": "ingen-kanal",
        "akseptert": "2026-11-23T12:00:00.000Z",
        "forfall": "2026-11-24T12:00:00.000Z",
        "ventetS": 26 * 3600,
        "overS": 2 * 3600,
    }
    assert late.eier() not in answer.text


async def test_what_is_near_is_shown_when_it_is_asked_for_and_not_counted(door: Door, kit: Any) -> None:
    await door.put(kit.soknad().transport("AKSEPTERT"))
    assert (await door.ask(20)).json()["frister"] == []
    view = (await door.ask(20, innen="6h")).json()
    assert (view["antall"], view["kommuner"]) == (0, [])
    assert [one["overS"] for one in view["frister"]] == [-4 * 3600]


async def test_a_list_is_of_one_kommune_and_of_no_more_than_was_asked_for(door: Door, kit: Any) -> None:
    await door.put(*(kit.soknad().transport("AKSEPTERT", nr) for nr in range(3)))
    await door.put(kit.soknad(kommunenummer=kit.bergen).transport("AKSEPTERT"))
    assert len((await door.ask(30, kommunenummer="0301")).json()["frister"]) == 3
    assert len((await door.ask(30, antall=2)).json()["frister"]) == 2
    assert (await door.ask(30, kommunenummer="5001")).json()["frister"] == []


@pytest.mark.parametrize("params", [{"kommunenummer": "Oslo"}, {"innen": "snart"}, {"antall": 0}, {"antall": 1001}])
async def test_what_is_asked_wrongly_is_refused(door: Door, params: dict[str, Any]) -> None:
    assert (await door.ask(0, **params)).status_code == 400


async def test_nobody_but_the_sender_is_told(door: Door) -> None:
    assert (await door.http.get(PATH)).status_code == 403
    assert (await door.http.get(PATH, headers={"Authorization": "Bearer kommune"})).status_code == 403
