from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from typing import Any

import pytest

from producers.checks import Delivered, FilMetadata
from producers.envelopes import SeenKeys, Sender
from producers.http_client import encrypted
from producers.parts import FilePart, JsonPart
from schemas.errors import RefusedError
from schemas.names import Eier, NavEksternRefId

PDF = b"%PDF-1.4 " + b"innhold " * 1000


def make_file_part(
    keys: Any, *, clear_files: bool = False, storrelse: int = len(PDF), nr: int = 2
) -> tuple[FilePart, Any]:
    seen: Any = {"out": bytearray(), "sizes": [], "done": None}

    def done(file: Delivered) -> None:
        seen["done"] = file

    part = FilePart(
        nr,
        FilMetadata(filnavn="Kari.pdf", mimetype="application/pdf", storrelse=storrelse),
        keys=keys.mottak_keys,
        clear_files=clear_files,
        check_size=seen["sizes"].append,
        out=seen["out"].extend,
        done=done,
        seen=SeenKeys(),
        sender=Sender(Eier("1" * 64), NavEksternRefId("ref-1")),
        now=datetime(2026, 11, 23, 12, 0, tzinfo=UTC),
    )
    return part, seen


def feed(part: FilePart, content: bytes, cut: int) -> None:
    for start in range(0, len(content), cut):
        if part.write(content[start : start + cut]):
            part.unwrap()
    part.end()


@pytest.mark.parametrize("cut", [1, 33, 5000, 10**6])
def test_an_encrypted_file_is_handed_on_in_clear_with_its_digest(keys: Any, cut: int) -> None:
    part, seen = make_file_part(keys)
    feed(part, b"".join(encrypted([PDF], keys.mottak)), cut)
    assert bytes(seen["out"]) == PDF
    assert seen["done"] == Delivered(2, hashlib.sha512(PDF).hexdigest(), encrypted=True)
    assert seen["sizes"][-1] == len(PDF)


def test_nothing_is_handed_on_of_a_file_of_another_type(keys: Any) -> None:
    part, seen = make_file_part(keys, clear_files=True)
    with pytest.raises(RefusedError, match="fil nr 2") as refused:
        feed(part, b"<html>" * 100, 50)
    assert refused.value.status == 415
    assert seen["done"] is None


def test_a_file_shorter_than_a_signature_is_judged_at_its_end(keys: Any) -> None:
    part, _ = make_file_part(keys, clear_files=True, storrelse=3)
    part.write(b"%PD")
    with pytest.raises(RefusedError, match="er ikke PDF"):
        part.end()


@pytest.mark.parametrize("damage", ["not for us", "garbage"])
def test_an_envelope_that_anybody_sees_is_not_for_us_is_told_by_its_number(keys: Any, damage: str) -> None:
    part, seen = make_file_part(keys)
    sealed = b"".join(encrypted([PDF], keys.kommune if damage == "not for us" else keys.mottak))
    raw = {"not for us": sealed, "garbage": b"\x30" + b"x" * 100}[damage]
    with pytest.raises(RefusedError, match="fil nr 2 kan ikke dekrypteres") as refused:
        feed(part, raw, 1000)
    assert refused.value.status == 400
    assert "Kari" not in str(refused.value)
    assert seen["done"] is None


@pytest.mark.parametrize("fault", ["truncated", "padding", "size", "type"])
def test_a_fault_inside_of_an_envelope_is_noted_and_the_work_goes_on(keys: Any, fault: str) -> None:
    content = b"<html>" * 2000 if fault == "type" else PDF
    part, seen = make_file_part(keys, storrelse=len(content) + (fault == "size"))
    sealed = bytearray(b"".join(encrypted([content], keys.mottak)))
    if fault == "truncated":
        del sealed[-40:]
    if fault == "padding":
        sealed[-30] ^= 1  # in the last block, in front of the end-of-contents octets
    feed(part, bytes(sealed), 1000)
    assert (seen["done"].encrypted, seen["done"].as_stated) == (True, False)
    assert len(seen["out"]) >= len(content) - 48


def test_an_envelope_that_never_shows_its_key_is_refused(keys: Any) -> None:
    part, seen = make_file_part(keys)
    with pytest.raises(RefusedError, match="kan ikke dekrypteres"):
        feed(part, b"".join(encrypted([PDF], keys.mottak))[:50], 1000)
    assert seen["done"] is None


def test_an_empty_part_is_not_encrypted(keys: Any) -> None:
    part, _ = make_file_part(keys)
    with pytest.raises(RefusedError, match="er ikke kryptert"):
        part.end()


def test_json_is_gathered_up_to_its_limit() -> None:
    taken: list[bytes] = []
    part = JsonPart("soknadJson", 4, taken.append)
    part.write(b"ab")
    part.write(b"cd")
    part.end()
    assert taken == [b"abcd"]
    with pytest.raises(RefusedError, match="soknadJson er større enn 4 byte"):
        part.write(b"e")
