from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

import pytest

from crypto.envelope import check_forsendelse
from producers.checks import UNREADABLE, IntakeLimits
from producers.dokument import Dokument
from schemas.errors import InvalidDocumentError, RefusedError
from schemas.forsendelse import Forsendelse
from schemas.names import Enhetsnummer, Sha256

if TYPE_CHECKING:
    from collections.abc import Callable


def test_a_submission_becomes_a_package_that_only_the_kommune_opens(intake: Any, sending: Any) -> None:
    accepted = intake.take(sending)
    package = intake.package(accepted)
    files = intake.keys.open(package)
    assert files.pop("soknad.json") == sending.soknad_json
    assert files.pop("vedlegg.json") == sending.vedlegg_json
    forsendelse = json.loads(files.pop("forsendelse.json"))
    assert files == sending.content
    assert forsendelse["meldingId"] == accepted.soknad.melding_id
    assert forsendelse["kommunenummer"] == "0301"
    assert (forsendelse["navEksternRefId"], forsendelse["enhetsnummer"]) == ("ref-1", "0301")
    assert forsendelse["hastegrad"] == "VANLIG"
    check_forsendelse(Forsendelse.from_json(json.dumps(forsendelse).encode()), accepted.soknad.forsendelse())
    assert accepted.soknad.sha256 == Sha256.of(package)
    assert accepted.soknad.storrelse == len(package)
    assert accepted.files == 3


def test_the_records_agree_and_name_the_owner_without_the_person(intake: Any, sending: Any) -> None:
    accepted = intake.take(sending)
    soknad, transport = accepted.soknad, accepted.transport
    assert (transport.digisos_id, transport.melding_id) == (soknad.digisos_id, soknad.melding_id)
    assert (transport.type, transport.sha256) == ("AKSEPTERT", soknad.sha256)
    assert transport.eier is not None
    assert sending.fodselsnummer not in f"{accepted!r}{soknad!r}{transport!r}"


@pytest.mark.parametrize("cut", [1, 7, 100, 4096, 10**9])
def test_how_the_body_was_cut_makes_no_difference(intake: Any, sending: Any, cut: int) -> None:
    files = intake.keys.open(intake.package(intake.take(sending, cut=cut)))
    assert {name: files[name] for name in sending.content} == sending.content


def test_a_large_package_goes_to_the_dokumentlager(keys: Any, intake: Any, make_sending: Any) -> None:
    sending = make_sending(encrypt_for=keys.mottak, sizes=(2_000_000, 3000, 2500))
    accepted = intake.take(sending)
    assert accepted.soknad.pakke is None
    assert accepted.soknad.storrelse == intake.dokumentlager.size(accepted.soknad.dokumentlager_id)
    assert intake.keys.open(intake.package(accepted))["Soknad.pdf"] == sending.content["Soknad.pdf"]


def test_the_office_comes_from_tilleggsinformasjon_before_soknad_json(intake: Any, sending: Any) -> None:
    assert intake.take(sending).soknad.enhetsnummer == "0301"
    sending.enhetsnummer = Enhetsnummer("0315")
    assert intake.take(sending).soknad.enhetsnummer == "0315"


def test_nodhjelp_is_told_in_clear(keys: Any, intake: Any, make_sending: Any) -> None:
    assert intake.take(make_sending(encrypt_for=keys.mottak)).soknad.hastegrad == "VANLIG"
    assert intake.take(make_sending(encrypt_for=keys.mottak, kind="nodhjelp")).soknad.hastegrad == "NODHJELP"


def test_files_in_clear_need_a_setting(intake: Any, sending: Any) -> None:
    sending.encrypt_for = None
    with pytest.raises(RefusedError, match="fil nr 1 er ikke kryptert") as refused:
        intake.take(sending)
    assert refused.value.status == 400
    intake.clear_files = True
    assert intake.take(sending).files == 3


def test_an_encrypted_file_is_opened_even_where_clear_files_are_allowed(intake: Any, sending: Any) -> None:
    intake.clear_files = True
    files = intake.keys.open(intake.package(intake.take(sending)))
    assert files["Soknad.pdf"] == sending.content["Soknad.pdf"]


def pdf(nr: int, size: int = 2000) -> bytes:
    return b"%PDF-1.4\n" + bytes([nr]) * (size - 9)


def soknad(sending: Any, change: Callable[[dict[str, Any]], None]) -> None:
    document = json.loads(sending.soknad_json)
    change(document)
    sending.soknad_json = json.dumps(document).encode()


def other_kommune(sending: Any) -> None:
    soknad(sending, lambda document: document["mottaker"].update(kommunenummer="4601"))


def broken_soknad(sending: Any) -> None:
    soknad(sending, lambda document: document["data"]["personalia"].pop("navn"))


def not_json(sending: Any) -> None:
    sending.vedlegg_json = b"{'Kari': 1}"


def sha512_differs(sending: Any) -> None:
    sending.files[1] = Dokument.of_bytes("Lønnslipp.png", b"\x89PNG\r\n\x1a\nandre bytes enn dem")


def file_missing(sending: Any) -> None:
    del sending.files[2]


def replace(nr: int, **changes: Any) -> Callable[[Any], None]:
    def change(sending: Any) -> None:
        old = sending.files[nr]
        values = {name: getattr(old, name) for name in ("filnavn", "mimetype", "storrelse", "read")} | changes
        sending.files[nr] = Dokument(**values)

    return change


def add(name: str, content: bytes = pdf(7), mimetype: str | None = None) -> Callable[[Any], None]:
    return lambda sending: sending.files.append(Dokument.of_bytes(name, content, mimetype))


def no_files(sending: Any) -> None:
    sending.files = []


def first_is_png(sending: Any) -> None:
    sending.files[0], sending.files[1] = sending.files[1], sending.files[0]


def encrypted_for_another(sending: Any) -> None:
    sending.encrypt_for = sending.other_certificate


def two_digests(sending: Any) -> None:
    document = json.loads(sending.vedlegg_json)
    document["vedlegg"].append(
        {"status": "LastetOpp", "filer": [{"filnavn": "Lønnslipp.png", "sha512": hashlib.sha512(b"x").hexdigest()}]}
    )
    sending.vedlegg_json = json.dumps(document).encode()


BAD: dict[str, tuple[Callable[[Any], None], int, str]] = {
    "another kommune in the søknad": (other_kommune, 400, "mottaker.kommunenummer"),
    "a required field missing": (broken_soknad, 400, "data.personalia.navn"),
    "vedlegg.json is not JSON": (not_json, 400, "vedlegg.json"),
    "another sha512": (sha512_differs, 400, UNREADABLE),
    "a listed file is missing": (file_missing, 400, "vedleggJson: fil nr 2"),
    "two digests for one name": (two_digests, 400, "vedlegg.json"),
    "no files": (no_files, 400, "fil nr 1"),
    "the first file is no PDF": (first_is_png, 415, "fil nr 1"),
    "a type that is not taken": (replace(1, mimetype="text/html"), 415, "fil nr 2"),
    "content other than declared": (replace(1, mimetype="image/jpeg"), 400, UNREADABLE),
    "content that is no PDF": (add("x.pdf", b"<html>" * 50, "application/pdf"), 400, UNREADABLE),
    "an empty file": (add("x.pdf", b"", "application/pdf"), 400, UNREADABLE),
    "stated size is wrong": (replace(2, storrelse=2501), 400, UNREADABLE),
    "stated size is too large": (replace(2, storrelse=10 * 1024 * 1024 + 1), 413, "fil nr 3"),
    "stated size is negative": (replace(2, storrelse=-1), 400, "storrelse"),
    "a name twice but for case": (add("SOKNAD.PDF"), 400, "fil nr 4"),
    "a name with a slash": (add("a/b.pdf"), 400, "fil nr 4"),
    "a name with a colon": (add("a:b.pdf"), 400, "fil nr 4"),
    "a name that climbs": (add("..pdf"), 400, "fil nr 4"),
    "a hidden name": (add(".pdf"), 400, "fil nr 4"),
    "a name with a line break": (add("a\nb.pdf"), 400, "fil nr 4"),
    "a name that is too long": (add("x" * 223 + ".pdf"), 400, "fil nr 4"),
    "the package's own name": (add("Forsendelse.JSON"), 400, "fil nr 4"),
    "META-INF": (add("META-INF"), 400, "fil nr 4"),
    "encrypted for another": (encrypted_for_another, 400, "fil nr 1"),
}


@pytest.mark.parametrize(("break_it", "status", "names"), BAD.values(), ids=BAD)
def test_bad_input_is_refused_and_leaves_nothing(
    intake: Any, sending: Any, break_it: Any, status: int, names: str
) -> None:
    sending.other_certificate = intake.keys.kommune
    break_it(sending)
    with pytest.raises((RefusedError, InvalidDocumentError)) as refused:
        intake.take(sending)
    error = refused.value
    assert getattr(error, "status", 400) == status
    assert names in str(error)
    assert list(intake.folder.iterdir()) == []
    secrets = [sending.fodselsnummer, "Lønnslipp", "Kontoutskrift", "SOKNAD.PDF", "Kari"]
    assert not [secret for secret in secrets if secret in str(error)]


IN_CLEAR: dict[str, tuple[Callable[[Any], None], int, str]] = {
    "another sha512": (sha512_differs, 400, "fil nr 2"),
    "content other than declared": (replace(1, mimetype="image/jpeg"), 415, "fil nr 2"),
    "content that is no PDF": (add("x.pdf", b"<html>" * 50, "application/pdf"), 415, "fil nr 4"),
    "an empty file": (add("x.pdf", b"", "application/pdf"), 415, "fil nr 4"),
    "stated size is wrong": (replace(2, storrelse=2501), 400, "fil nr 3"),
}


@pytest.mark.parametrize(("break_it", "status", "names"), IN_CLEAR.values(), ids=IN_CLEAR)
def test_what_is_wrong_inside_of_a_file_in_clear_is_told_by_its_number(
    intake: Any, sending: Any, break_it: Any, status: int, names: str
) -> None:
    intake.clear_files = True
    sending.encrypt_for = None
    break_it(sending)
    with pytest.raises(RefusedError, match=names) as refused:
        intake.take(sending)
    assert refused.value.status == status
    assert list(intake.folder.iterdir()) == []


def test_another_persons_token_is_refused(intake: Any, sending: Any) -> None:
    with pytest.raises(RefusedError) as refused:
        intake.take(sending, person="01010112345")
    assert refused.value.status == 403


@pytest.mark.parametrize(
    ("limits", "names"),
    [
        (IntakeLimits(max_file_bytes=4095), "fil nr 1"),
        (IntakeLimits(max_total_bytes=9000), "til sammen"),
        (IntakeLimits(max_files=2), "flere enn 2 filer"),
        (IntakeLimits(max_json_bytes=1000), "soknadJson"),
        (IntakeLimits(max_metadata_bytes=10), "metadata for fil nr 1"),
    ],
)
def test_each_limit_is_told_as_413(intake: Any, sending: Any, limits: IntakeLimits, names: str) -> None:
    intake.limits = limits
    with pytest.raises(RefusedError, match=names) as refused:
        intake.take(sending)
    assert refused.value.status == 413


def test_a_file_that_holds_more_than_it_stated_is_stopped_at_the_limit(intake: Any, sending: Any) -> None:
    intake.limits = IntakeLimits(max_file_bytes=5000)
    big = Dokument.of_bytes("x.pdf", pdf(1, 400_000))
    sending.files.append(Dokument(big.filnavn, big.mimetype, 10, big.read))
    with pytest.raises(RefusedError, match="fil nr 4 er større") as refused:
        intake.take(sending)
    assert refused.value.status == 413


@pytest.mark.parametrize("left", range(1, 9))
def test_a_body_that_ends_after_any_part_is_refused(intake: Any, sending: Any, left: int) -> None:
    body = sending.body()
    marker = b"--grense\r\n"
    cut = body.split(marker)
    whole = marker.join(cut[: left + 1]) + b"--grense--\r\n"
    if left == 8:
        assert intake.take(sending, body=whole).files == 3
        return
    with pytest.raises(RefusedError, match=r"mangler|ikke med") as refused:
        intake.take(sending, body=whole)
    assert refused.value.status == 400


def damaged(body: bytes, file: int = 0) -> bytes:
    changed = bytearray(body)
    at = body.index(f"dokument:{file}".encode())
    end = body.index(b"\r\n--grense", at)
    changed[end - 30] ^= 1  # in the last block of ciphertext, in front of the end-of-contents octets
    return bytes(changed)


def told(intake: Any, sending: Any, body: bytes, **given: Any) -> tuple[int, str, str]:
    with pytest.raises(RefusedError) as refused:
        intake.take(sending, body=body, **given)
    return refused.value.status, refused.value.reason, str(refused.value)


def test_every_fault_inside_of_an_envelope_is_told_in_the_same_way(intake: Any, sending: Any) -> None:
    answers = {told(intake, sending, damaged(sending.body(), nr), ref=f"padding-{nr}") for nr in range(3)}
    original = list(sending.files)
    for nr, (break_it, _, names) in enumerate(BAD.values()):
        if names != UNREADABLE:
            continue
        sending.files = list(original)
        break_it(sending)
        answers.add(told(intake, sending, sending.body(), ref=f"content-{nr}"))
    assert answers == {(400, "kryptering", UNREADABLE)}


LATER_FAULTS: dict[str, Callable[[bytes], bytes]] = {
    "metadata of the next file": lambda body: body.replace(b'"storrelse":3000', b'"storrelse":-1'),
    "a name that is not allowed": lambda body: body.replace("Lønnslipp.png".encode(), b"L:nnslipp.png"),
    "a type that is not taken": lambda body: body.replace(b"image/png", b"text/html"),
    "a file too little": lambda body: b"--grense\r\n".join(body.split(b"--grense\r\n")[:-2]) + b"--grense--\r\n",
    "no last boundary": lambda body: body[:-12],
    "no metadata for the last": lambda body: body[: body.rindex(b"--grense\r\n")] + b"--grense--\r\n",
}


@pytest.mark.parametrize("break_it", LATER_FAULTS.values(), ids=LATER_FAULTS)
def test_a_fault_that_comes_later_does_not_tell_whether_a_file_was_decrypted(
    intake: Any, sending: Any, break_it: Callable[[bytes], bytes]
) -> None:
    body = sending.body()
    assert break_it(body) != body
    whole = told(intake, sending, break_it(body))
    assert whole[1] != "kryptering"
    assert told(intake, sending, break_it(damaged(sending.body())), ref="ref-2") == whole


def test_a_file_that_cannot_be_decrypted_is_not_told_before_the_body_has_ended(intake: Any, sending: Any) -> None:
    pieces: list[int] = []
    write = intake.dokumentlager.create

    def count() -> Any:
        pieces.append(1)
        return write()

    intake.dokumentlager.create = count
    big = pdf(1, 900_000)
    sending.files.append(Dokument.of_bytes("x.pdf", big))
    told(intake, sending, damaged(sending.body()))
    assert pieces == [1]  # the files after the damaged one were sealed all the same


def test_the_same_bytes_may_come_again_and_nothing_else_under_their_keys(intake: Any, sending: Any) -> None:
    body = sending.body()
    intake.take(sending, body=body)
    intake.take(sending, body=body)
    for given in ({"ref": "ref-2"}, {"body": damaged(body)}):
        with pytest.raises(RefusedError, match="fil nr 1 kan ikke dekrypteres") as refused:
            intake.take(sending, **({"body": body} | given))
        assert (refused.value.status, refused.value.reason) == (400, "kryptering")


def test_another_person_cannot_ask_about_an_envelope_that_was_sent_before(
    keys: Any, intake: Any, sending: Any, make_sending: Any
) -> None:
    victims = sending.body()
    intake.take(sending, body=victims)
    other = make_sending(seed=2, encrypt_for=keys.mottak)
    stolen = b"--grense\r\n".join(other.body().split(b"--grense\r\n")[:4] + victims.split(b"--grense\r\n")[4:])
    assert "fil nr 1 kan ikke dekrypteres" in told(intake, other, stolen)[2]


def test_a_retry_after_a_body_that_broke_off_is_taken(intake: Any, sending: Any) -> None:
    body = sending.body()
    assert told(intake, sending, body[:-200])[1] == "multipart"
    assert intake.take(sending, body=body).files == 3
