from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import pytest

from crypto import Limits, Trust
from crypto.diagnosis import Diagnosis, diagnose_package
from schemas.errors import UnsealError

ACCEPTED: list[dict[str, object]] = [
    {},
    {"namespace": "http://uri.etsi.org/2918/v1.2.1#", "manifest_name": "META-INF/asicmanifest.xml"},
    {"digest_uri": "http://www.w3.org/2000/09/xmldsig#sha256"},
    {"digest_uri": "http://www.w3.org/2001/04/xmlenc#sha512", "digest_name": "sha512"},
    {"mimetype": None, "oasis": False, "comment": b""},
    {"mimetype_method": 8},
]
REFUSED: list[dict[str, object]] = [
    {"with_manifest": False},
    {"with_signature": False},
    {"signature_reference": "META-INF/signature-2.p7s"},
    {"extra": {"META-INF/ukjent.bin": b"x"}},
    {"extra": {"umerket.txt": b"x"}},
    {"extra": {"../ut.txt": b"x"}},
    {"extra": {"SOKNAD.json": b"x"}},
    {"extra": {"META-INF/signature-9.p7s": b"x"}},
    {"listed": {"soknad.json": b"annet"}},
    {"listed": {"borte.json": b"annet"}},
    {"mimetype": b"text/plain"},
    {"comment": b"hei"},
    {"namespace": "http://example.org/"},
    {"digest_uri": "http://www.w3.org/2001/04/xmlenc#md5", "digest_name": "md5"},
    {"sign": lambda _content: b"\x30\x00"},
    {"manifest": b"<x/>"},
]


def diagnose(archive: bytes, trust: Trust | None, actors: Any) -> Diagnosis:
    return diagnose_package(io.BytesIO(archive), len(archive), trust=trust, now=actors.now, limits=Limits())


def wrong(found: Diagnosis) -> list[str]:
    return [finding.text for finding in found.findings if finding.wrong]


@pytest.mark.parametrize("parts", ACCEPTED)
def test_finds_nothing_wrong_with_what_is_accepted(
    actors: Any, archive: Callable[..., Any], open_archive: Callable[[bytes], object], parts: dict[str, object]
) -> None:
    built = archive(**parts).build()
    open_archive(built)
    found = diagnose(built, actors.trust, actors)
    assert wrong(found) == []
    assert {file.name for file in found.files} == {"soknad.json", "vedlegg/hus leie.pdf"}


@pytest.mark.parametrize("parts", REFUSED)
def test_finds_something_wrong_with_what_is_refused(
    actors: Any, archive: Callable[..., Any], open_archive: Callable[[bytes], object], parts: dict[str, object]
) -> None:
    built = archive(**parts).build()
    with pytest.raises(UnsealError):
        open_archive(built)
    assert wrong(diagnose(built, actors.trust, actors))


def test_an_open_question_is_said_to_be_one(actors: Any, archive: Callable[..., Any]) -> None:
    found = diagnose(archive().build(), None, actors)
    assert wrong(found) == []
    assert any(finding.step == "avsender" for finding in found.findings)


def test_sha1_is_wrong_unless_the_sender_is_named(
    actors: Any, archive: Callable[..., Any], sha1_signature: Callable[[bytes], bytes]
) -> None:
    built = archive(sign=sha1_signature).build()
    named = Trust(roots=[actors.authority.certificate], allow_sha1_from=frozenset({"889640782"}))  # type: ignore[arg-type]  # a name is a str
    assert any("SHA-1" in text for text in wrong(diagnose(built, actors.trust, actors)))
    assert wrong(diagnose(built, named, actors)) == []


@pytest.mark.parametrize("cut", range(1, 3000, 97))
def test_a_truncated_archive_is_explained(actors: Any, archive: Callable[..., Any], cut: int) -> None:
    built: bytes = archive().build()
    assert wrong(diagnose(built[:-cut], actors.trust, actors))
