from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from producers.dokument import Dokument

if TYPE_CHECKING:
    from pathlib import Path


def test_a_file_on_disk_is_told_by_its_content_and_read_again_each_time(tmp_path: Path) -> None:
    content = b"%PDF-1.4" + bytes(200_000)
    path = tmp_path / "uten-endelse"
    path.write_bytes(content)
    dokument = Dokument.of_path(path)
    assert (dokument.filnavn, dokument.mimetype, dokument.storrelse) == ("uten-endelse", "application/pdf", 200_008)
    assert b"".join(dokument.read()) == content == b"".join(dokument.read())
    assert dokument.sha512() == hashlib.sha512(content).hexdigest()


def test_content_in_memory_is_cut_into_pieces() -> None:
    content = b"\x89PNG\r\n\x1a\n" + bytes(200_000)
    dokument = Dokument.of_bytes("a.png", content)
    pieces = list(dokument.read())
    assert dokument.mimetype == "image/png"
    assert len(pieces) > 1
    assert b"".join(pieces) == content


def test_what_is_not_known_says_so() -> None:
    assert Dokument.of_bytes("a.txt", b"tekst").mimetype == "application/octet-stream"
