from __future__ import annotations

from typing import Any

import httpx
import pytest

from producers.dokument import Dokument
from producers.http_client import SoknadClient, multipart_body, parts, refused
from producers.library import duplicate_text
from producers.multipart import End, MultipartReader, PartBegin, PartData
from schemas.errors import RefusedError
from schemas.names import DigisosId, Enhetsnummer, Kommunenummer, NavEksternRefId

ID = DigisosId("3fa85f64-5717-4562-b3fc-2c963f66afa6")
REF = NavEksternRefId("ref-1")


async def send(answer: httpx.Response, certificate: Any) -> Any:
    async def handle(request: httpx.Request) -> httpx.Response:
        await request.aread()
        return answer

    async with httpx.AsyncClient(transport=httpx.MockTransport(handle)) as http:
        return await SoknadClient("https://mottak.test/", http).send(
            Kommunenummer("0301"),
            REF,
            soknad_json=b"{}",
            vedlegg_json=b"{}",
            files=[Dokument.of_bytes("a.pdf", b"%PDF-")],
            token="t",
            encrypt_for=certificate,
        )


async def test_the_answer_is_the_id_in_quotes(keys: Any) -> None:
    sent = await send(httpx.Response(202, json=ID), keys.mottak)
    assert (sent.digisos_id, sent.duplicate) == (ID, False)


async def test_fiks_own_text_for_a_duplicate_is_a_success(keys: Any) -> None:
    answer = httpx.Response(400, json={"message": duplicate_text(REF, ID), "status": 400})
    sent = await send(answer, keys.mottak)
    assert (sent.digisos_id, sent.duplicate) == (ID, True)


@pytest.mark.parametrize(
    "message", [duplicate_text(NavEksternRefId("en-annen"), ID), "Soknad finnes allerede", "noe annet er galt"]
)
async def test_any_other_text_is_a_refusal(keys: Any, message: str) -> None:
    with pytest.raises(RefusedError) as error:
        await send(httpx.Response(400, json={"message": message}), keys.mottak)
    assert (error.value.status, error.value.message) == (400, message)


@pytest.mark.parametrize("content", [b"", b"<html>", b"[]", b'{"message": 1}'])
def test_an_answer_that_is_not_fiks_error_object_is_told_by_its_status(content: bytes) -> None:
    error = refused(httpx.Response(502, content=content))
    assert (error.status, error.message) == (502, "HTTP 502")


def test_the_parts_are_named_as_ks_client_names_them(keys: Any) -> None:
    files = [Dokument.of_bytes("a.pdf", b"%PDF-1"), Dokument.of_bytes("b.pdf", b"%PDF-2")]
    made = parts(b"{}", b"{}", files, keys.mottak, enhetsnummer=Enhetsnummer("0315"))
    reader = MultipartReader("multipart/form-data; boundary=g", max_parts=9)
    events = reader.feed(b"".join(multipart_body("g", made)))
    assert [event.name for event in events if isinstance(event, PartBegin)] == [
        "tilleggsinformasjonJson", "soknadJson", "vedleggJson", "metadata:0", "dokument:0", "metadata:1", "dokument:1",
    ]  # fmt: skip
    assert events[-1] == End()
    data = b"".join(event.data for event in events if isinstance(event, PartData))
    assert b"%PDF" not in data
