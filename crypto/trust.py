"""Whose signature counts: pinned certificates, and certificates that chain to a trusted root.

A chain is checked by cryptography's path validation with the rules that virksomhetssertifikater keep: certificate authorities
must say that they are, end certificates need no DNS name. Revocation is left to whoever keeps the katalog.

Source: RFC 5280 section 6.
"""

from __future__ import annotations

from collections import OrderedDict
from functools import cached_property
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.x509.verification import (
    Criticality,
    ExtensionPolicy,
    Policy,
    PolicyBuilder,
    Store,
    VerificationError,
)

from crypto.certificates import judge_signer, nokkel_id, organisasjonsnummer
from schemas.errors import CertificateError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from schemas.names import NokkelId, Organisasjonsnummer

_MAX_CHAIN = 4
_MAX_REMEMBERED = 1024


def _check_ca(_policy: Policy, _certificate: x509.Certificate, constraints: x509.BasicConstraints) -> None:
    if not constraints.ca:
        raise ValueError("not a certificate authority")


def _check_ca_usage(_policy: Policy, _certificate: x509.Certificate, usage: x509.KeyUsage | None) -> None:
    if usage is not None and not usage.key_cert_sign:
        raise ValueError("not for signing certificates")


_AUTHORITY_POLICY = (
    ExtensionPolicy.permit_all()
    .require_present(x509.BasicConstraints, Criticality.AGNOSTIC, _check_ca)
    .may_be_present(x509.KeyUsage, Criticality.AGNOSTIC, _check_ca_usage)
)


class Trust:
    """Which signers are trusted. Judging a certificate twice within its chain's validity costs nothing.

    Args:
        roots: Certificates of authorities; whatever chains to one is trusted.
        pinned: Certificates that are trusted themselves, whoever issued them.
        intermediates: Certificates that may help to build a chain, beside those in the signature.
        allow_sha1_from: Senders who may still sign with SHA-1, as KS' Java client does.
    """

    def __init__(
        self,
        *,
        roots: Iterable[x509.Certificate] = (),
        pinned: Iterable[x509.Certificate] = (),
        intermediates: Iterable[x509.Certificate] = (),
        allow_sha1_from: frozenset[Organisasjonsnummer] = frozenset(),
    ) -> None:
        self.roots = tuple(roots)
        self.pinned = frozenset(nokkel_id(certificate) for certificate in pinned)
        self.allow_sha1_from = allow_sha1_from
        self._intermediates = tuple(intermediates)
        self._remembered: OrderedDict[NokkelId, tuple[datetime, datetime]] = OrderedDict()

    def accepts(self, certificate: x509.Certificate, others: Iterable[x509.Certificate], now: datetime) -> bool:
        """Return whether the certificate is trusted to sign at ``now`` (aware UTC).

        Args:
            certificate: The signer's.
            others: Certificates that came with the signature, in any order.
            now: Aware UTC.
        """
        name = nokkel_id(certificate)
        remembered = self._remembered.get(name)
        if remembered is not None and remembered[0] <= now <= remembered[1]:
            return True
        try:
            judge_signer(certificate, now)
        except CertificateError:
            return False
        chain = [certificate] if name in self.pinned else self._chain(certificate, others, now)
        if not chain:
            return False
        self._remember(name, chain)
        return True

    def allows_sha1(self, certificate: x509.Certificate) -> bool:
        """Return whether the certificate's owner may sign with SHA-1."""
        try:
            return organisasjonsnummer(certificate) in self.allow_sha1_from
        except CertificateError:
            return False

    def _chain(
        self, certificate: x509.Certificate, others: Iterable[x509.Certificate], now: datetime
    ) -> list[x509.Certificate]:
        if not self.roots:
            return []
        builder = (
            PolicyBuilder()
            .store(self._store)
            .time(now)
            .max_chain_depth(_MAX_CHAIN)
            .extension_policies(ca_policy=_AUTHORITY_POLICY, ee_policy=ExtensionPolicy.permit_all())
        )
        try:
            return builder.build_client_verifier().verify(certificate, [*others, *self._intermediates]).chain
        except (VerificationError, ValueError):  # ValueError: an extension that cannot be parsed
            return []

    @cached_property
    def _store(self) -> Store:
        return Store(list(self.roots))

    def _remember(self, name: NokkelId, chain: list[x509.Certificate]) -> None:
        begin = max(each.not_valid_before_utc for each in chain)
        end = min(each.not_valid_after_utc for each in chain)
        self._remembered[name] = (begin, end)
        if len(self._remembered) > _MAX_REMEMBERED:
            self._remembered.popitem(last=False)
