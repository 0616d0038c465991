from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from crypto import ContentKey, PackageWriter, Spool, open_package
from schemas.errors import UnsealError

if TYPE_CHECKING:
    from conftest import Actors


def make_package(actors: Actors) -> tuple[bytes, ContentKey]:
    sealed: list[bytes] = []
    writer = PackageWriter(sealed.append, recipient=actors.recipient[0], signer=actors.signer, now=actors.now)
    with writer.add("soknad.pdf", "application/pdf") as file:
        file.write(b"%PDF-1.7 innhold")
    writer.finish()
    return b"".join(sealed), writer.content_key


def opened(actors: Actors, package: bytes, key: ContentKey) -> bytes:
    with Spool() as spool:
        spool.write(package)
        spool.finish()
        with open_package(spool, keys=key, trust=actors.trust, now=actors.now, require_forsendelse=False) as found:
            return found.read_bytes("soknad.pdf", 1000)


def test_the_sender_opens_its_own_package_with_the_content_key(actors: Actors) -> None:
    assert opened(actors, *make_package(actors)) == b"%PDF-1.7 innhold"


def test_another_packages_key_opens_nothing_whether_its_iv_fits_or_not(actors: Actors) -> None:
    package, key = make_package(actors)
    other = ContentKey.new()
    for wrong in (other, ContentKey(other.key, key.iv), ContentKey(key.key, other.iv)):
        with pytest.raises(UnsealError):
            opened(actors, package, wrong)


def test_a_package_that_was_altered_does_not_open_with_its_key_either(actors: Actors) -> None:
    package, key = make_package(actors)
    for at in (len(package) - 200, len(package) // 2, len(package) - 40):
        broken = bytearray(package)
        broken[at] ^= 1
        with pytest.raises(UnsealError):
            opened(actors, bytes(broken), key)


def test_each_package_has_a_key_of_its_own_and_its_repr_hides_it(actors: Actors) -> None:
    (_, first), (_, second) = make_package(actors), make_package(actors)
    assert first.key != second.key
    assert first.iv != second.iv
    assert repr(first) == "ContentKey()"
