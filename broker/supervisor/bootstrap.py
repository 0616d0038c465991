"""Making a local set-up from nothing: keys, certificates, katalog.

A small CA of our own issues what Buypass or Commfides issue in production. Every private key is made here, on this machine,
and never leaves the data folder.
"""

from __future__ import annotations

import secrets
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final, Literal

import yaml
from cryptography.hazmat.primitives import serialization

from broker.files import write_private
from broker.register import kommune_names, made_up_organisasjonsnummer, offices
from broker.supervisor.layout import ConnectorSetup, Layout
from crypto import Authority, write_private_key
from schemas.errors import ConfigurationError
from schemas.names import Kommunenummer, Organisasjonsnummer

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

AVSENDER: Final = Organisasjonsnummer("889640782")
"""Arbeids- og velferdsetaten, who sends every søknad."""

VALID_FOR: Final = timedelta(days=2 * 365)
DEFAULT_KOMMUNER: Final = tuple(Kommunenummer(n) for n in ("0301", "4601", "5001", "4641", "1811", "5612"))
"""Oslo and Bergen with their bydeler, Trondheim, and three small ones: Aurland, Bindal, Guovdageaidnu."""

HTTP_CONNECTOR: Final = "fjordsak"
FILEDROP_CONNECTOR: Final = "arkivmappe"
_FILEDROP_EVERY: Final = 3


@dataclass(frozen=True)
class _Wanted:
    """One certificate to make."""

    name: str
    common_name: str
    organisasjonsnummer: Organisasjonsnummer
    purpose: Literal["kryptering", "signering"]
    key: Literal["rsa3072", "p256"]


def choose_connectors(kommuner: Sequence[Kommunenummer]) -> dict[str, ConnectorSetup]:
    """Share ``kommuner`` between two vendors with a connector each: every third drops files, the others speak HTTP.

    Raises:
        ConfigurationError: None is given, one is unknown, or one is given twice.
    """
    check_kommuner(kommuner)
    dropping = tuple(kommuner[_FILEDROP_EVERY - 1 :: _FILEDROP_EVERY])
    speaking = tuple(number for number in kommuner if number not in dropping)
    chosen = {HTTP_CONNECTOR: ConnectorSetup(leverandor=HTTP_CONNECTOR, type="http", kommuner=speaking)}
    if dropping:
        setup = ConnectorSetup(leverandor=FILEDROP_CONNECTOR, type="filedrop", kommuner=dropping)
        chosen[FILEDROP_CONNECTOR] = setup
    return chosen


def check_kommuner(kommuner: Sequence[Kommunenummer]) -> None:
    """Refuse a list of kommuner that cannot be set up.

    Raises:
        ConfigurationError: Says which number is wrong.
    """
    unknown = [number for number in kommuner if number not in kommune_names()]
    if unknown:
        raise ConfigurationError(f"ukjent kommunenummer: {', '.join(unknown)}; se `formidler kommune list --alle`")
    if not kommuner or len(set(kommuner)) != len(kommuner):
        raise ConfigurationError("oppgi minst én kommune, og hver bare én gang")


def bootstrap(folder: Path, connectors: Mapping[str, ConnectorSetup], now: datetime) -> Layout:
    """Make a new set-up in ``folder``.

    The set-up file is written last, so that a set-up that was interrupted is made again from the start.

    Args:
        folder: The data folder; made if it is not there.
        connectors: Connectors by id, with whom they serve.
        now: Certificates are valid from here, for two years.
    """
    layout = Layout.prepare(folder, connectors)
    _issue_certificates(layout, now)
    write_private(layout.eier_key, secrets.token_hex(32).encode())
    complete(layout)
    write_katalog(layout, now)
    layout.save()
    return layout


def complete(layout: Layout) -> None:
    """Make what a set-up of an older version lacks; what is there is never touched."""
    if not layout.kopi_key.exists():
        write_private(layout.kopi_key, secrets.token_hex(32).encode())


def _issue_certificates(layout: Layout, now: datetime) -> None:
    authority = Authority.create(now, "Meldingsformidler lokal CA")
    write_private(layout.certificate("ca"), authority.certificate.public_bytes(serialization.Encoding.PEM))

    def issue(wanted: _Wanted) -> None:
        certificate, key = authority.issue(
            wanted.common_name,
            wanted.organisasjonsnummer,
            purpose=wanted.purpose,
            now=now,
            valid_days=VALID_FOR.days,
            key=wanted.key,
        )
        write_private_key(layout.key(wanted.name), key)
        write_private(layout.certificate(wanted.name), certificate.public_bytes(serialization.Encoding.PEM))

    with ThreadPoolExecutor() as pool:  # making an RSA key is most of the work, and lets go of the interpreter
        list(pool.map(issue, _wanted(layout)))


def _wanted(layout: Layout) -> Iterable[_Wanted]:
    nav = "Arbeids- og velferdsetaten"
    yield _Wanted("mottak", nav, AVSENDER, "kryptering", "rsa3072")
    yield _Wanted("innsyn", nav, AVSENDER, "kryptering", "rsa3072")
    for number in layout.setup.kommuner():
        owner = made_up_organisasjonsnummer(int(number))
        yield _Wanted(f"kommune-{number}", f"{kommune_names()[number]} kommune", owner, "kryptering", "rsa3072")
    yield _Wanted("avsender", nav, AVSENDER, "signering", "p256")
    yield _Wanted("utsteder", nav, AVSENDER, "signering", "p256")
    for index, name in enumerate(layout.setup.konnektorer):
        vendor = made_up_organisasjonsnummer(90000 + index)
        yield _Wanted(f"konnektor-{name}", name, vendor, "signering", "p256")


def write_katalog(layout: Layout, now: datetime) -> None:
    """Write the katalog file of the set-up, for people to edit."""
    entries = [
        {
            "kommunenummer": str(number),
            "navn": kommune_names()[number],
            "organisasjonsnummer": str(made_up_organisasjonsnummer(int(number))),
            "leverandor": connector.leverandor,
            "konnektor": name,
            "krypteringssertifikater": [f"nokler/kommune-{number}.pem"],
            "kvitteringssertifikater": [f"nokler/konnektor-{name}.pem"],
            "enheter": {str(enhet): navn for enhet, navn in offices(number).items()},
            "endret": now.isoformat(),
        }
        for name, connector in layout.setup.konnektorer.items()
        for number in connector.kommuner
    ]
    entries.sort(key=lambda entry: str(entry["kommunenummer"]))
    text = yaml.safe_dump({"kommuner": entries}, allow_unicode=True, sort_keys=False)
    write_private(layout.katalog, text.encode())
