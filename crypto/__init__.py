"""Bytes: packages that one sender signs and one receiver opens, certificates, keys, and signed kvitteringer.

Imports ``schemas`` alone. Start in ``envelope``.
"""

from crypto.asice import AsiceReader, AsiceWriter, FileWriter, PackageFile
from crypto.authority import Authority, new_private_key
from crypto.certificates import (
    certificate_der,
    certificate_pem,
    judge_recipient,
    judge_signer,
    judge_validity,
    load_certificate,
    load_certificates,
    nokkel_id,
    organisasjonsnummer,
    parse_certificates,
)
from crypto.cms import CmsDecryptor, CmsEncryptor, open_enveloped, seal
from crypto.content_key import ContentKey
from crypto.envelope import OpenedPackage, PackageSummary, PackageWriter, check_forsendelse, open_package, seal_package
from crypto.jws import sign_jws, verify_jws
from crypto.key_wrap import KeyWrapper, WrappedKey
from crypto.keys import KeyRing, LoneKey, PrivateKey, Signer, load_private_key, load_secret, write_private_key
from crypto.limits import Limits
from crypto.reseal import reseal
from crypto.signed import sign_detached, verify_detached
from crypto.spool import Spool
from crypto.trust import Trust

__all__ = [
    "AsiceReader",
    "AsiceWriter",
    "Authority",
    "CmsDecryptor",
    "CmsEncryptor",
    "ContentKey",
    "FileWriter",
    "KeyRing",
    "KeyWrapper",
    "Limits",
    "LoneKey",
    "OpenedPackage",
    "PackageFile",
    "PackageSummary",
    "PackageWriter",
    "PrivateKey",
    "Signer",
    "Spool",
    "Trust",
    "WrappedKey",
    "certificate_der",
    "certificate_pem",
    "check_forsendelse",
    "judge_recipient",
    "judge_signer",
    "judge_validity",
    "load_certificate",
    "load_certificates",
    "load_private_key",
    "load_secret",
    "new_private_key",
    "nokkel_id",
    "open_enveloped",
    "open_package",
    "organisasjonsnummer",
    "parse_certificates",
    "reseal",
    "seal",
    "seal_package",
    "sign_detached",
    "sign_jws",
    "verify_detached",
    "verify_jws",
    "write_private_key",
]
