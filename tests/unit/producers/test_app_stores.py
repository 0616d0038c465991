"""What a sender is told when a store fails, and what the versions that it tells of become."""

from __future__ import annotations

from typing import Any

import pytest

from producers.app import store_failure
from producers.dokumentlager import _store_error
from schemas.codec import decode
from schemas.errors import OutcomeUnknownError, StoreError, StoreFullError
from schemas.records import SoknadRecord


@pytest.mark.parametrize(
    ("error", "status", "text", "after"),
    [
        (
            StoreFullError("producers.sqlite: disken er full (SQLITE_FULL)"),
            507,
            "ingenting av søknaden er lagret",
            "120",
        ),
        (StoreError("producers.sqlite: databasen er skadet"), 503, "ingenting av søknaden er lagret", "15"),
        (OutcomeUnknownError("forbindelsen gikk"), 503, "uvisst om søknaden ble lagret", "15"),
    ],
)
async def test_a_store_that_fails_is_told_with_what_was_kept_and_when_to_come_back(
    world: Any, sending: Any, monkeypatch: pytest.MonkeyPatch, *, error: StoreError, status: int, text: str, after: str
) -> None:
    async def fail(*_: object) -> None:
        raise error

    with monkeypatch.context() as patched:
        patched.setattr(world.outbox, "accept", fail)
        answer = await world.post(sending)
    assert (answer.status_code, answer.headers["Retry-After"]) == (status, after)
    assert text in answer.json()["message"]
    assert "send på nytt" in answer.json()["message"]
    assert answer.json()["errorCode"] == error.code
    assert await world.queued() == []
    assert (await world.post(sending)).status_code == 202


def test_only_an_unknown_outcome_does_not_promise_that_nothing_was_kept() -> None:
    assert "ingenting" in store_failure(StoreError("x")).message
    assert "ingenting" not in store_failure(OutcomeUnknownError("x")).message


@pytest.mark.parametrize("errno", [28, 122, 27])
def test_no_room_in_the_dokumentlager_is_a_full_disk(errno: int) -> None:
    assert isinstance(_store_error(OSError(errno, "full")), StoreFullError)
    assert not isinstance(_store_error(OSError(5, "i/o")), StoreFullError)


async def test_a_full_dokumentlager_leaves_nothing_behind(
    world: Any, make_sending: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    sending = make_sending(encrypt_for=world.keys.mottak, sizes=(1_000_000, 3000, 2500))

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("producers.dokumentlager.os.fsync", full)
        answer = await world.post(sending)
    assert answer.status_code == 507
    assert (world.stored_files(), await world.queued()) == ([], [])
    assert (await world.post(sending)).status_code == 202


async def test_the_versions_of_program_and_form_stand_in_the_record(world: Any, sending: Any) -> None:
    answer = await world.post(sending, Formidler_Avsenderversjon="soknadsdialog 2026.11")
    assert answer.status_code == 202
    soknad = decode(SoknadRecord, (await world.queued())[1].message.outgoing.value)
    assert soknad.avsenderversjon == "soknadsdialog 2026.11"
    assert soknad.skjemaversjon is not None
    assert f'"version":"{soknad.skjemaversjon}"'.encode() in sending.soknad_json.replace(b" ", b"")


async def test_without_a_version_the_record_has_none(world: Any, sending: Any) -> None:
    await world.post(sending)
    soknad = decode(SoknadRecord, (await world.queued())[1].message.outgoing.value)
    assert soknad.avsenderversjon is None


async def test_a_version_that_could_be_a_person_is_refused(world: Any, sending: Any) -> None:
    answer = await world.post(sending, Formidler_Avsenderversjon="v12345678901")
    assert answer.status_code == 400
    assert "Formidler-Avsenderversjon" in answer.json()["message"]
    assert "12345678901" not in answer.text
    assert await world.queued() == []
