from __future__ import annotations

import io
from dataclasses import replace
from datetime import UTC, datetime
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pypdf import PdfReader

from producers import brev as module
from producers.brev import Forside, Vedlegg, cover_letter, norwegian_time, page_count, picture_page
from schemas.errors import DamagedFileError
from schemas.examples import make_jpeg, make_pdf, make_png

NOW = datetime(2026, 11, 24, 12, 20, tzinfo=UTC)
FORSIDE = Forside(
    mottaker=("Guovdageaidnu kommune", "Bredbuktnesveien 6", "9520 Guovdageaidnu"),
    kontor="NAV Kautokeino",
    nodhjelp=False,
    ettersendelse=False,
    referanser=(("Søknadens id", "3fa85f64"), ("Avsenderens referanse", "nav-1")),
    innsendt=datetime(2026, 11, 23, 12, 0, tzinfo=UTC),
    skrevet=NOW,
    vedlegg=(
        Vedlegg("Soknad.pdf", 3),
        Vedlegg("Lønnslipp.png", 1),
        Vedlegg("x.jpg", None, "skadet, ligger ved som fil"),
    ),
)


def text_of(pdf: bytes) -> str:
    return "\n".join(page.extract_text() for page in PdfReader(io.BytesIO(pdf)).pages)


def picture(width: int, height: int, kind: str = "PNG", orientation: int | None = None) -> bytes:
    out = io.BytesIO()
    exif = Image.Exif()
    if orientation:
        exif[0x0112] = orientation
    Image.new("RGB", (width, height), (10, 120, 200)).save(out, kind, exif=exif)
    return out.getvalue()


def size_of(pdf: bytes) -> tuple[int, int]:
    (page,) = PdfReader(io.BytesIO(pdf)).pages
    return round(float(page.mediabox.width)), round(float(page.mediabox.height))


def test_the_cover_says_to_whom_from_when_by_what_reference_and_what_lies_behind_it() -> None:
    text = text_of(cover_letter(FORSIDE))
    for expected in (
        "Guovdageaidnu kommune",
        "9520 Guovdageaidnu",
        "v/ NAV Kautokeino",
        "23.11.2026 kl. 13.00",
        "24.11.2026 kl. 13.20",
        "Søknadens id: 3fa85f64",
        "1. Soknad.pdf, 3 sider",
        "2. Lønnslipp.png, 1 side",
        "3. x.jpg (skadet, ligger ved som fil)",
    ):
        assert expected in text
    assert "NØDHJELP" not in text


def test_emergency_help_stands_out() -> None:
    assert "NØDHJELP" in text_of(cover_letter(replace(FORSIDE, nodhjelp=True)))


def test_a_long_list_goes_on_to_more_pages() -> None:
    many = replace(FORSIDE, vedlegg=tuple(Vedlegg(f"vedlegg-{nr}.pdf", 1) for nr in range(100)))
    pdf = cover_letter(many)
    assert page_count(pdf) == 3
    assert "100. vedlegg-99.pdf" in text_of(pdf)


def test_letters_that_the_font_lacks_lose_their_marks_and_no_name_stops_a_letter() -> None:
    text = text_of(cover_letter(replace(FORSIDE, mottaker=("Kárášjohka – Čáhputnjárga", "Đŋŧšž 漢字 🏠"))))
    assert "Kárášjohka".replace("š", "s") in text
    assert "Cáhputnjárga" in text
    assert "Dntsz ??" in text


@given(name=st.text(max_size=60))
def test_whatever_a_file_is_called_there_is_a_cover(name: str) -> None:
    assert page_count(cover_letter(replace(FORSIDE, vedlegg=(Vedlegg(name, 1),)))) == 1


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_a_picture_becomes_one_page_turned_like_itself(kind: str) -> None:
    assert size_of(picture_page(picture(300, 400, kind), NOW)) == (595, 842)
    assert size_of(picture_page(picture(400, 300, kind), NOW)) == (842, 595)


def test_a_picture_is_turned_as_the_camera_was_held() -> None:
    assert size_of(picture_page(picture(400, 300, "JPEG", orientation=6), NOW)) == (595, 842)


def test_the_portals_own_pictures_become_pages() -> None:
    for make in (make_png, make_jpeg):
        try:
            assert page_count(picture_page(make(Random(1), 3000), NOW)) == 1
        except DamagedFileError:
            pytest.fail(make.__name__)


@pytest.mark.parametrize("data", [b"", b"ikke et bilde", picture(300, 400)[:200], b"GIF89a" + b"\0" * 50])
def test_a_damaged_or_foreign_picture_is_told_of(data: bytes) -> None:
    with pytest.raises(DamagedFileError):
        picture_page(data, NOW)


def test_a_picture_that_says_it_is_enormous_is_not_unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_PIXELS", 400 * 300 - 1)
    with pytest.raises(DamagedFileError):
        picture_page(picture(400, 300), NOW)


def test_pages_are_counted_where_anybody_can() -> None:
    assert page_count(make_pdf(Random(1), 5000)) == 1
    assert page_count(b"%PDF-1.7 ikke mer") is None
    assert page_count(b"") is None


@given(data=st.binary(max_size=300))
def test_no_bytes_stop_the_counting_of_pages(data: bytes) -> None:
    assert page_count(b"%PDF-1.4\n" + data) is None


@pytest.mark.parametrize(
    ("utc", "norwegian"),
    [
        ("2026-01-01T11:00", "2026-01-01T12:00"),
        ("2026-07-01T22:30", "2026-07-02T00:30"),
        ("2026-03-29T00:59", "2026-03-29T01:59"),
        ("2026-03-29T01:00", "2026-03-29T03:00"),
        ("2026-10-25T00:59", "2026-10-25T02:59"),
        ("2026-10-25T01:00", "2026-10-25T02:00"),
    ],
)
def test_times_are_norwegian(utc: str, norwegian: str) -> None:
    assert norwegian_time(datetime.fromisoformat(utc).replace(tzinfo=UTC)) == datetime.fromisoformat(norwegian)


def test_an_ettersendelse_is_not_called_a_soknad() -> None:
    first, later = text_of(cover_letter(FORSIDE)), text_of(cover_letter(replace(FORSIDE, ettersendelse=True)))
    assert "Søknad om økonomisk sosialhjelp" in first
    assert "Ettersendelse til søknad om økonomisk sosialhjelp" in later
    assert "Søknaden ble sendt digitalt" not in later
    assert "den samme søknaden" not in later
    assert "Ettersendelsen ble sendt digitalt" in later
