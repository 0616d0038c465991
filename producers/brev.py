"""A letter's pages: the cover, pictures as pages, and how many pages a PDF has. Bytes in, bytes out; no files.

What a citizen sent is only ever looked at by libraries that are made for it, within bounds, and whatever they say about a damaged
file is that they cannot: then the file goes along as it is, for a person to look at.
"""

from __future__ import annotations

import io
import unicodedata
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from schemas.errors import DamagedFileError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fpdf import FPDF

PDF: Final = "application/pdf"
PNG: Final = "image/png"
JPEG: Final = "image/jpeg"

MAX_PIXELS: Final = 60_000_000
"""A picture with more is not unpacked: a small file can say that it is very large."""
MAX_COUNTED_BYTES: Final = 32 * 1024 * 1024
_LAST_OF_LATIN_1: Final = 0xFF
_MARGIN_MM: Final = 20
_FONT: Final = "Helvetica"
_SOKNAD: Final = "Søknad om økonomisk sosialhjelp"
_ETTERSENDELSE: Final = "Ettersendelse til søknad om økonomisk sosialhjelp"
_ORIENTATION: Final = 0x0112
"""EXIF's tag for how a camera was held; 1 is upright."""
_FOLDED: Final = str.maketrans(
    {"–": "-", "—": "-", "’": "'", "“": '"', "”": '"', "…": "...", "đ": "d", "Đ": "D"}
) | str.maketrans({"ŋ": "n", "Ŋ": "N", "ŧ": "t", "Ŧ": "T"})
"""What the letter's font lacks and a letter or a name of a kommune may have."""


@dataclass(frozen=True, slots=True)
class Vedlegg:
    """A line of the cover's list.

    Attributes:
        navn: The file's name, as its sender called it.
        sider: How many pages; None when nobody can say.
        merknad: What a person must know about it.
    """

    navn: str
    sider: int | None
    merknad: str | None = None


@dataclass(frozen=True, slots=True)
class Forside:
    """What the cover says. It names no citizen: it can be seen through a window.

    Attributes:
        mottaker: Lines of the address.
        kontor: The NAV office, when it is known.
        nodhjelp: Whether the søknad is about emergency help.
        ettersendelse: Whether it is what was sent after a søknad, and no søknad.
        referanser: Name and id, in order.
        innsendt: When the citizen sent it; aware UTC.
        skrevet: When the letter is made; aware UTC.
        vedlegg: What lies behind the cover, in order.
    """

    mottaker: Sequence[str]
    kontor: str | None
    nodhjelp: bool
    ettersendelse: bool
    referanser: Sequence[tuple[str, str]]
    innsendt: datetime
    skrevet: datetime
    vedlegg: Sequence[Vedlegg]


def cover_letter(forside: Forside) -> bytes:
    """Return the cover as a PDF."""
    pdf = _new_pdf(forside.skrevet)
    pdf.add_page()
    _address(pdf, forside)
    _line(pdf, _ETTERSENDELSE if forside.ettersendelse else _SOKNAD, size=16, style="B", space=4)
    if forside.nodhjelp:
        pdf.set_font(_FONT, "B", 16)
        pdf.cell(0, 12, _latin("NØDHJELP - må behandles straks"), border=1, align="C", new_x="LMARGIN", new_y="NEXT")
        pdf.ln(4)
    _line(pdf, f"Sendt av søkeren {_date(forside.innsendt)}. Skrevet ut {_date(forside.skrevet)}.", space=2)
    what, same = ("Ettersendelsen", "ettersendelsen") if forside.ettersendelse else ("Søknaden", "søknaden")
    _paragraph(
        pdf,
        f"{what} ble sendt digitalt, men kommunens fagsystem har ikke bekreftet innen fristen at den er mottatt. Den sendes "
        f"derfor på papir. Er den allerede registrert, er dette den samme {same}; referansene under viser hvilken.",
    )
    for name, value in forside.referanser:
        _line(pdf, f"{name}: {value}")
    pdf.ln(4)
    _line(pdf, "Innhold", size=12, style="B")
    for nr, one in enumerate(forside.vedlegg, 1):
        _paragraph(pdf, _listed(nr, one), after=0)
    return bytes(pdf.output())


def picture_page(data: bytes, now: datetime) -> bytes:
    """Return a PNG or JPEG as a PDF with one page, turned as the camera says.

    Raises:
        DamagedFileError: It cannot be unpacked, or is too large to be.
    """
    try:
        return _picture_page(data, now)
    except Exception as error:  # whatever a decoder says about a stranger's file
        raise DamagedFileError("bildet kan ikke pakkes ut") from error


def page_count(data: bytes) -> int | None:
    """Return how many pages a PDF has; None when it is damaged, encrypted, or too large to look at."""
    if len(data) > MAX_COUNTED_BYTES:
        return None
    from pypdf import PdfReader  # noqa: PLC0415 - as in ``_new_pdf``

    try:
        reader = PdfReader(io.BytesIO(data))
        return None if reader.is_encrypted else len(reader.pages) or None
    except Exception:  # noqa: BLE001 - as above; RecursionError among them
        return None


def norwegian_time(moment: datetime) -> datetime:
    """Return a moment by Norwegian clocks: one hour ahead of UTC, two in summer.

    Source: directive 2000/84/EC: from the last Sunday of March to the last of October, at 01:00 UTC.
    """
    moment = moment.astimezone(UTC)
    summer = _last_sunday(moment.year, 3) <= moment < _last_sunday(moment.year, 10)
    return (moment + timedelta(hours=2 if summer else 1)).replace(tzinfo=None)


def _last_sunday(year: int, month: int) -> datetime:
    last = datetime(year, month, 31, 1, tzinfo=UTC)
    return last - timedelta(days=(last.weekday() + 1) % 7)


def _new_pdf(now: datetime) -> FPDF:
    # With its fonts this is a third of what the process imports, and most processes never print.
    from fpdf import FPDF  # noqa: PLC0415 - see above

    pdf = FPDF(unit="mm", format="A4")
    pdf.set_margin(_MARGIN_MM)
    pdf.set_auto_page_break(auto=True, margin=_MARGIN_MM)
    pdf.set_creation_date(now)
    pdf.set_font(_FONT, "", 11)
    return pdf


def _address(pdf: FPDF, forside: Forside) -> None:
    pdf.set_y(45)  # where the window of a C5 envelope is, when the sheet is folded once
    for line in forside.mottaker:
        _line(pdf, line)
    if forside.kontor and forside.kontor not in forside.mottaker:
        _line(pdf, f"v/ {forside.kontor}")
    pdf.set_y(95)


def _listed(nr: int, one: Vedlegg) -> str:
    pages = "" if one.sider is None else f", {one.sider} {'side' if one.sider == 1 else 'sider'}"
    return f"{nr}. {one.navn}{pages}" + (f" ({one.merknad})" if one.merknad else "")


def _line(pdf: FPDF, text: str, *, size: int = 11, style: str = "", space: int = 0) -> None:
    pdf.set_font(_FONT, style, size)
    pdf.cell(0, size * 0.5, _latin(text), new_x="LMARGIN", new_y="NEXT")
    pdf.ln(space)


def _paragraph(pdf: FPDF, text: str, *, after: int = 4) -> None:
    pdf.set_font(_FONT, "", 11)
    pdf.multi_cell(0, 5.5, _latin(text), align="L", new_x="LMARGIN", new_y="NEXT")
    pdf.ln(after)


def _latin(text: str) -> str:
    """Return ``text`` in what the font has, ISO 8859-1: other letters without their marks, and ``?`` for the rest."""
    folded = unicodedata.normalize("NFC", text).translate(_FOLDED)
    return (
        "".join(
            letter if ord(letter) <= _LAST_OF_LATIN_1 else unicodedata.normalize("NFD", letter)[0] for letter in folded
        )
        .encode("latin-1", "replace")
        .decode("latin-1")
    )


def _date(moment: datetime) -> str:
    return norwegian_time(moment).strftime("%d.%m.%Y kl. %H.%M")


def _picture_page(data: bytes, now: datetime) -> bytes:
    from PIL import Image, ImageOps  # noqa: PLC0415 - as in ``_new_pdf``

    with Image.open(io.BytesIO(data), formats=("PNG", "JPEG")) as picture:
        width, height = picture.size
        if width * height > MAX_PIXELS:
            raise ValueError("too many pixels")
        picture.load()
        upright = picture.getexif().get(_ORIENTATION, 1) == 1
        turned = picture if upright else ImageOps.exif_transpose(picture)
        pdf = _new_pdf(now)
        pdf.add_page(orientation="L" if turned.width > turned.height else "P")
        box = (pdf.w - 2 * _MARGIN_MM, pdf.h - 2 * _MARGIN_MM)
        pdf.image(io.BytesIO(data) if upright else turned, _MARGIN_MM, _MARGIN_MM, *box, keep_aspect_ratio=True)
        return bytes(pdf.output())
