from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from random import Random
from typing import Any

import pytest

from broker.record import soknad_of
from consumers.opening import IN_LOOP_BYTES, Opener, check_record
from crypto import Trust
from schemas.errors import (
    CertificateError,
    DecodeError,
    InvalidDocumentError,
    MismatchError,
    PackageMissingError,
    UnsealError,
)
from schemas.names import (
    DigisosId,
    DokumentlagerId,
    Enhetsnummer,
    Kommunenummer,
    MeldingId,
    NavEksternRefId,
    Organisasjonsnummer,
    Sha256,
)

NUMBER = Kommunenummer("4601")
SIGNED = {"nav_ekstern_ref_id": NavEksternRefId("ref-1"), "hastegrad": "VANLIG"}
ORGNR, OTHER = Organisasjonsnummer("889640782"), Organisasjonsnummer("974760673")


async def content(opened: Any) -> dict[str, bytes]:
    leveranse = opened.leveranse()
    return {f.name: b"".join([piece async for piece in leveranse.read(f.name)]) for f in leveranse.files}


async def test_a_package_opens_and_its_files_are_released(opener: Opener, make_record: Any, clock: Any) -> None:
    files = {"a.pdf": b"%PDF", "tom.pdf": b"", "stor.pdf": bytes(IN_LOOP_BYTES + 10)}
    record = make_record(files=files)
    with await opener.open(record, clock()) as opened:
        leveranse = opened.leveranse()
        assert await content(opened) == files
        assert opened.warnings == ()
    assert (leveranse.melding_id, leveranse.digisos_id) == (record.melding_id, record.digisos_id)
    assert leveranse.kommunenummer == NUMBER
    assert "forsendelse.json" not in {file.name for file in leveranse.files}


async def test_a_large_package_is_fetched_by_reference(
    opener: Opener, make_record: Any, clock: Any, lager: Any
) -> None:
    record = make_record(files={"stor.pdf": Random(1).randbytes(400_000)})
    where = DokumentlagerId.new()
    lager.packages[where] = record.pakke
    by_reference = record.model_copy(update={"pakke": None, "dokumentlager_id": where})
    with await opener.open(by_reference, clock()) as opened:
        assert len((await content(opened))["stor.pdf"]) == 400_000


async def test_what_the_dokumentlager_says_comes_through(
    opener: Opener, make_record: Any, clock: Any, lager: Any
) -> None:
    lager.error = PackageMissingError("borte")
    record = make_record().model_copy(update={"pakke": None, "dokumentlager_id": DokumentlagerId.new()})
    with pytest.raises(PackageMissingError):
        await opener.open(record, clock())


@pytest.mark.parametrize("change", ["flip", "cut", "longer", "digest", "size", "empty"])
async def test_an_altered_package_is_refused_with_one_text(
    opener: Opener, make_record: Any, clock: Any, change: str
) -> None:
    record = make_record()
    package = bytearray(record.pakke)
    if change == "flip":
        package[len(package) // 2] ^= 1
    elif change == "cut":
        del package[-100:]
    elif change == "longer":
        package += b"\0"
    elif change == "empty":
        package.clear()
    altered = {"pakke": bytes(package), "sha256": Sha256.of(bytes(package)), "storrelse": len(package)}
    if change == "digest":
        altered["sha256"] = Sha256.of(b"another")
    if change == "size":
        altered["storrelse"] += 1
    with pytest.raises(UnsealError) as raised:
        await opener.open(record.model_copy(update=altered), clock())
    assert str(raised.value) == UnsealError.TEXT


@pytest.mark.parametrize(
    "stated",
    [
        {"digisos_id": DigisosId.new()},
        {"melding_id": MeldingId.new()},
        {"kommunenummer": Kommunenummer("0301")},
        {"type": "ETTERSENDELSE"},
        {"nav_ekstern_ref_id": NavEksternRefId("ref-2")},
        {"hastegrad": "VANLIG"},
        {"enhetsnummer": Enhetsnummer("1201")},
        SIGNED | {"hastegrad": "NODHJELP"},
        SIGNED | {"enhetsnummer": Enhetsnummer("1201")},
    ],
)
async def test_a_package_that_was_moved_or_altered_in_clear_is_refused(
    opener: Opener, make_record: Any, clock: Any, stated: Any
) -> None:
    record = make_record(stated=stated)
    clear = "NODHJELP" if stated == {"hastegrad": "VANLIG"} else "VANLIG"
    with pytest.raises(MismatchError):
        await opener.open(record.model_copy(update={"hastegrad": clear}), clock())


async def test_a_package_whose_sender_signed_every_clear_field_opens(
    opener: Opener, make_record: Any, clock: Any
) -> None:
    with await opener.open(make_record(stated=SIGNED), clock()) as opened:
        assert opened.leveranse().hastegrad == "VANLIG"


async def test_a_package_in_another_senders_name_is_refused(opener: Opener, make_record: Any, clock: Any) -> None:
    record = make_record().model_copy(update={"avsender": OTHER})
    with pytest.raises(MismatchError, match="avsender"):
        await opener.open(record, clock())


async def test_a_package_of_somebody_without_an_organisation_is_refused(
    opener: Opener, make_record: Any, clock: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(_: Any) -> Any:
        raise CertificateError("x")

    monkeypatch.setattr("consumers.opening.organisasjonsnummer", none)
    with pytest.raises(MismatchError, match="avsender"):
        await opener.open(make_record(), clock())


async def test_a_package_without_forsendelse_is_let_through_from_whom_a_setting_names_with_a_warning(
    opener: Opener, make_record: Any, clock: Any
) -> None:
    foreign = make_record(foreign=True)
    with pytest.raises(UnsealError):
        await opener.open(foreign, clock())
    with pytest.raises(MismatchError, match="forsendelse"):
        await replace(opener, without_forsendelse_from=frozenset({OTHER})).open(foreign, clock())
    with await replace(opener, without_forsendelse_from=frozenset({ORGNR})).open(foreign, clock()) as opened:
        assert opened.warnings == ("uten-forsendelse",)
        assert (await content(opened)).keys() == {"soknad.json", "vedlegg.json"}


async def test_a_package_that_was_moved_is_refused_also_from_whom_may_leave_forsendelse_out(
    opener: Opener, make_record: Any, clock: Any
) -> None:
    lenient = replace(opener, without_forsendelse_from=frozenset({ORGNR}))
    with pytest.raises(MismatchError):
        await lenient.open(make_record(stated={"digisos_id": DigisosId.new()}), clock())


async def test_a_package_of_somebody_not_trusted_is_refused(
    opener: Opener, make_record: Any, clock: Any, keys: Any
) -> None:
    distrustful = replace(opener, trust=Trust(pinned=[keys.other[0]]))
    with pytest.raises(UnsealError):
        await distrustful.open(make_record(), clock())


@pytest.mark.parametrize("name", ["soknad.json", "vedlegg.json"])
async def test_a_document_that_breaks_its_format_is_refused(
    opener: Opener, make_record: Any, clock: Any, name: str
) -> None:
    with pytest.raises(InvalidDocumentError) as raised:
        await opener.open(make_record(files={name: b'{"vedlegg": 7, "hemmelig": "Kari"}'}), clock())
    assert "Kari" not in str(raised.value)


async def test_a_pool_of_one_is_enough(opener: Opener, make_record: Any, clock: Any) -> None:
    with ThreadPoolExecutor(1) as pool, await replace(opener, pool=pool).open(make_record(), clock()) as opened:
        assert (await content(opened)).keys() == {"soknad.json", "vedlegg.json"}


def test_a_record_belongs_where_it_lies(make_record: Any) -> None:
    record = make_record()
    check_record(record, record.digisos_id.encode(), NUMBER)
    with pytest.raises(MismatchError):
        check_record(record, record.digisos_id.encode(), Kommunenummer("0301"))
    with pytest.raises(MismatchError):
        check_record(record, DigisosId.new().encode(), NUMBER)


@pytest.mark.parametrize("change", [{"pakke": None}, {"dokumentlager_id": DokumentlagerId.new()}])
def test_a_record_has_its_package_in_one_place(make_record: Any, change: Any) -> None:
    record = make_record().model_copy(update=change)
    with pytest.raises(DecodeError):
        check_record(record, record.digisos_id.encode(), NUMBER)


@pytest.mark.parametrize("key", [b"", b"\xff\xfe", b"0301", b"A" * 36])
def test_a_key_that_is_no_digisos_id_is_nobodys(key: bytes) -> None:
    assert soknad_of(key) is None
