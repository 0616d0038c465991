from __future__ import annotations

import hashlib
import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from typer.testing import CliRunner

from producers import cli
from producers.library import duplicate_text
from producers.multipart import MultipartReader, PartBegin, PartData
from schemas.errors import ConfigurationError, RefusedError
from schemas.names import DigisosId, NavEksternRefId
from schemas.soknad_json import parse_soknad
from schemas.vedlegg_json import parse_vedlegg

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator
    from pathlib import Path

ID = DigisosId("3fa85f64-5717-4562-b3fc-2c963f66afa6")


class Portal:
    """Both addresses as one application: what it was sent, and what it shall answer."""

    def __init__(self, certificate: Any) -> None:
        self.parts: list[tuple[str, bytes]] = []
        self.answer: Response = JSONResponse(ID, status_code=202)
        self.tokens: set[str] = set()
        self.views: list[dict[str, Any]] = []
        self.unknown_for = 0
        self.app = FastAPI()

        self._add_intake(certificate)
        self._add_status()

    def _add_intake(self, certificate: Any) -> None:
        @self.app.get("/digisos/api/v1/dokumentlager-public-key")
        async def key() -> Response:
            return Response(certificate.public_bytes(Encoding.DER))

        @self.app.post("/digisos/api/v1/soknader/{kommunenummer}/{ref}")
        async def post(request: Request) -> Response:
            self.tokens.add(request.headers["authorization"])
            reader = MultipartReader(request.headers["content-type"], max_parts=50)
            for event in reader.feed(await request.body()):
                if isinstance(event, PartBegin):
                    self.parts.append((event.name, b""))
                elif isinstance(event, PartData):
                    name, content = self.parts[-1]
                    self.parts[-1] = (name, content + event.data)
            return self.answer

        _ = key, post

    def _add_status(self) -> None:
        @self.app.get("/innsyn/v1/soknader/{digisos_id}")
        async def status() -> dict[str, Any]:
            return self.views[-1]

        @self.app.get("/innsyn/v1/soknader/{digisos_id}/hendelser")
        async def hendelser(request: Request) -> Response:
            if self.unknown_for:
                self.unknown_for -= 1
                return JSONResponse({"message": "ukjent"}, status_code=404)
            after = int(request.headers.get("last-event-id", "0"))

            async def events() -> AsyncIterator[str]:
                yield ": hjerteslag\n\n"
                for nr, view in list(enumerate(self.views, 1))[after : after + 2]:
                    yield f"id: {nr}\nevent: status\ndata: {json.dumps(view)}\n\n"

            return StreamingResponse(events(), media_type="text/event-stream")

        _ = status, hendelser

    @asynccontextmanager
    async def http(self) -> AsyncGenerator[httpx.AsyncClient]:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(self.app)) as http:
            yield http


def make_view(status: str, *lines: str) -> dict[str, Any]:
    return {
        "digisosId": ID,
        "kommunenummer": "0301",
        "status": status,
        "oppdatert": "2026-11-23T12:00:00.000Z",
        "historikk": [{"tidspunkt": "2026-11-23T12:00:00.000Z", "type": "status", "verdi": line} for line in lines],
        "kvitteringer": [],
    }


@pytest.fixture
def portal(keys: Any, monkeypatch: pytest.MonkeyPatch) -> Portal:
    portal = Portal(keys.mottak)
    monkeypatch.setattr(cli, "_http", portal.http)
    monkeypatch.setenv("FORMIDLER_TOKEN", "hemmelig")
    return portal


@pytest.fixture
def files(tmp_path: Path, sending: Any) -> list[str]:
    contents = {"soknad.json": sending.soknad_json} | sending.content
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    return [str(tmp_path / name) for name in ("soknad.json", "Lønnslipp.png", "Soknad.pdf", "Kontoutskrift.jpg")]


def run(*arguments: str) -> Any:
    return CliRunner().invoke(cli.app, list(arguments))


SEND = ("--kommune", "0301", "--ref", "abc-1", "--intake-url", "https://mottak.test")
STATUS = ("--status-url", "https://innsyn.test")


def test_send_puts_soknad_pdf_first_and_makes_vedlegg_json_with_digests(
    portal: Portal, files: list[str], sending: Any
) -> None:
    result = run("send", *files, *SEND, "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout) == {
        "digisosId": ID, "kommunenummer": "0301", "navEksternRefId": "abc-1", "duplikat": False,
    }  # fmt: skip
    assert portal.tokens == {"Bearer hemmelig"}
    names = [name for name, _ in portal.parts]
    assert names[:2] == ["soknadJson", "vedleggJson"]
    metadata = [json.loads(content) for name, content in portal.parts if name.startswith("metadata")]
    assert [one["filnavn"] for one in metadata] == ["Soknad.pdf", "Lønnslipp.png", "Kontoutskrift.jpg"]
    assert [one["mimetype"] for one in metadata] == ["application/pdf", "image/png", "image/jpeg"]
    vedlegg = json.loads(portal.parts[1][1])["vedlegg"]
    listed = {fil["filnavn"]: fil["sha512"] for row in vedlegg for fil in row["filer"]}
    given = {
        fil["filnavn"]: fil["sha512"] for row in json.loads(sending.vedlegg_json)["vedlegg"] for fil in row["filer"]
    }
    assert listed == given
    documents = [content for name, content in portal.parts if name.startswith("dokument")]
    assert not [content for content in documents if b"%PDF" in content[:1000]]


def test_a_duplicate_has_been_sent_already(portal: Portal, files: list[str]) -> None:
    text = duplicate_text(NavEksternRefId("abc-1"), ID)
    portal.answer = JSONResponse({"status": 400, "message": text}, status_code=400)
    result = run("send", *files, *SEND)
    assert result.exit_code == 0, result.output
    assert "er sendt før" in result.stdout
    assert ID in result.stdout


def test_a_refusal_is_told_in_the_intakes_own_words(portal: Portal, files: list[str]) -> None:
    portal.answer = JSONResponse({"status": 413, "message": "fil nr 2 er for stor"}, status_code=413)
    result = run("send", *files, *SEND)
    assert isinstance(result.exception, RefusedError)
    assert (result.exception.status, str(result.exception)) == (413, "fil nr 2 er for stor")


@pytest.mark.parametrize(
    "arguments",
    [
        ("send", "finnes-ikke.json", *SEND),
        ("send", *SEND),
        ("status", "ikke-en-id", "--token", "x"),
    ],
)
def test_wrong_usage_is_told_with_exit_code_2(
    portal: Portal, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]
) -> None:
    monkeypatch.delenv("FORMIDLER_TOKEN")
    assert run(*arguments).exit_code == 2
    assert portal.parts == []


@pytest.mark.usefixtures("portal")
@pytest.mark.parametrize(("option", "value"), [("--kommune", "301"), ("--ref", "a b"), ("--enhet", "x")])
def test_an_option_of_another_form_is_wrong_usage(files: list[str], option: str, value: str) -> None:
    result = run("send", *files, *SEND, option, value)
    assert result.exit_code == 2
    assert option in result.output


@pytest.mark.usefixtures("portal")
def test_a_soknad_without_its_json_or_documents_is_wrong_usage(files: list[str]) -> None:
    assert run("send", *files[1:], *SEND).exit_code == 2
    assert run("send", files[0], *SEND).exit_code == 2


def test_an_address_that_does_not_answer_is_exit_code_3(files: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORMIDLER_TOKEN", "hemmelig")
    result = run("send", *files, *SEND, "--intake-url", "http://127.0.0.1:9")
    assert result.exit_code == 3
    assert "svarer ikke" in result.output


def test_status_is_shown_once_with_its_history(portal: Portal) -> None:
    portal.views = [make_view("SENDT", "AKSEPTERT", "SENDT")]
    result = run("status", ID, *STATUS)
    assert result.exit_code == 0, result.output
    assert [word for word in ("AKSEPTERT", "SENDT", "0301") if word not in result.stdout] == []
    assert json.loads(run("status", ID, *STATUS, "--json").stdout)["status"] == "SENDT"


def test_status_is_followed_over_broken_streams_until_the_case_is_closed(
    portal: Portal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("producers.status_client.RETRY_S", 0)
    portal.unknown_for = 2
    steps = ["SENDT", "MOTTATT", "UNDER_BEHANDLING", "FERDIGBEHANDLET"]
    portal.views = [make_view(step, *steps[: nr + 1]) for nr, step in enumerate(steps)]
    result = run("status", ID, *STATUS, "--follow", "--json")
    assert result.exit_code == 0, result.output
    assert [json.loads(line)["status"] for line in result.stdout.splitlines()] == steps


def test_a_line_of_the_history_is_shown_once(portal: Portal) -> None:
    portal.views = [make_view("SENDT", "AKSEPTERT"), make_view("FERDIGBEHANDLET", "AKSEPTERT", "VEDTATT")]
    result = run("status", ID, *STATUS, "--follow")
    assert result.stdout.count("AKSEPTERT") == 1
    assert result.stdout.count("VEDTATT") == 1


def test_what_came_too_late_is_said_to_be_so(portal: Portal) -> None:
    view = make_view("SENDT_PA_PAPIR", "UTSKREVET", "MOTTATT")
    view["historikk"][-1]["forSent"] = True
    portal.views = [view]
    lines = run("status", ID, *STATUS).stdout.splitlines()
    assert [("for sent" in line) for line in lines if "UTSKREVET" in line or "MOTTATT" in line] == [False, True]
    assert "SENDT_PA_PAPIR" in lines[-1]


def test_without_a_token_the_senders_key_is_looked_for_and_its_absence_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("FORMIDLER_TOKEN", raising=False)
    result = run("status", ID, *STATUS, "--data", str(tmp_path))
    assert isinstance(result.exception, ConfigurationError)
    assert "formidler up" in str(result.exception)


def test_an_example_keeps_the_formats_rules_and_can_be_sent_as_it_is(tmp_path: Path) -> None:
    result = run("eksempel", "--mappe", str(tmp_path / "e"), "--kommune", "4601", "--json")
    assert result.exit_code == 0
    files = {path.name: path.read_bytes() for path in (tmp_path / "e").iterdir()}
    assert json.loads(result.output)["filer"] == sorted(files)
    assert parse_soknad(files["soknad.json"]).kommunenummer() == "4601"
    (listed,) = parse_vedlegg(files["vedlegg.json"]).expected_files()
    assert listed.sha512 == hashlib.sha512(files[listed.filnavn]).hexdigest()


def test_an_example_never_overwrites_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "soknad.json").write_text("min egen")
    result = run("eksempel", "--mappe", str(tmp_path))
    assert isinstance(result.exception, ConfigurationError)
    assert [path.name for path in tmp_path.iterdir()] == ["soknad.json"]
