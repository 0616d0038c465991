"""Every error that we raise on purpose, in one tree.

::

    MeldingsformidlerError
    ├── ContractError
    │   ├── UnknownSchemaError
    │   ├── DecodeError
    │   ├── InvalidNameError
    │   ├── InvalidDocumentError
    │   ├── MismatchError
    │   └── UnexpectedRecordError
    ├── CryptoError
    │   ├── CertificateError
    │   ├── KeyFileError
    │   ├── PackError
    │   └── UnsealError
    ├── KvitteringError
    │   ├── SignatureError
    │   └── ChainError
    ├── TransportError
    │   ├── BrokerUnavailableError
    │   ├── AccessDeniedError
    │   ├── PartitionLostError
    │   ├── TopicChangedError
    │   ├── PackageUnavailableError
    │   ├── PackageMissingError
    │   ├── PackageDamagedError
    │   └── RecordTooLargeError
    ├── RefusedError
    │   └── AlreadyAcceptedError
    ├── DeliveryError
    │   ├── BehindDeadLetterError
    │   ├── ExpiredError
    │   └── WithdrawnError
    ├── CopyGoneError
    ├── ChannelError
    │   ├── ChannelUnavailableError
    │   └── DamagedFileError
    ├── AuditError
    ├── GovernedActError
    │   ├── ApprovalError
    │   ├── SelectionError
    │   └── SelectionChangedError
    ├── StoreError
    │   ├── OutcomeUnknownError
    │   ├── StoreFullError
    │   └── UniqueViolationError
    ├── FagsystemUnavailableError
    ├── FagsystemFailureError
    └── ConfigurationError
        └── TopicShorterError

Rules:

* ``code`` is unique and never changes: it travels in kvitteringer, dead letters and logs, and operators search for it.
* ``retriable`` is data, not a guess at the place of the ``except``.
* An error carries ids, numbers and names of fields. It never carries a value from a søknad.
* Wrong use of our own API is ``TypeError``, ``ValueError`` or ``RuntimeError``, and no shell catches those. One exception: what
  comes out of the handling of one record becomes ``UnexpectedRecordError``, loudly, so that the record stops no other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from datetime import timedelta


class MeldingsformidlerError(Exception):
    """Root of the tree; never raised itself."""

    code: ClassVar[str] = "feil"
    retriable: ClassVar[bool] = False


class ContractError(MeldingsformidlerError):
    """A message breaks the wire contract: dead letter, and a kvittering AVVIST."""

    code = "kontrakt"


class UnknownSchemaError(ContractError):
    """The bytes do not name a schema that belongs on this topic."""

    code = "kontrakt.ukjent-skjema"


class DecodeError(ContractError):
    """The bytes do not decode by the schema that they name."""

    code = "kontrakt.uleselig"


class InvalidNameError(ContractError):
    """An id or a number does not have the form that its name demands."""

    code = "kontrakt.ugyldig-navn"


class InvalidDocumentError(ContractError):
    """A JSON document breaks the rules of its format.

    Args:
        document: Name of the document, for example ``soknad.json``.
        path: Where in it, for example ``data.personalia.navn``. Never the value found there.
        reason: What is wrong, in words that name no value.
    """

    code = "kontrakt.ugyldig-dokument"

    def __init__(self, document: str, path: str, reason: str) -> None:
        super().__init__(f"{document}: {path or 'dokumentet'}: {reason}")
        self.document = document
        self.path = path
        self.reason = reason


class MismatchError(ContractError):
    """What the sender signed is not what the record says: moved to another søknad, type or kommune."""

    code = "kontrakt.avvik"


class UnexpectedRecordError(ContractError):
    """A record made our own code fail in a way that we did not foresee: it is set aside, so that it stops no other."""

    code = "kontrakt.uventet"


class CryptoError(MeldingsformidlerError):
    """Something about keys, certificates or envelopes; the same attempt never gets better."""

    code = "krypto"


class CertificateError(CryptoError):
    """Expired, not yet valid, too weak, for another purpose, or of an issuer that is not trusted."""

    code = "krypto.sertifikat"


class KeyFileError(CryptoError):
    """A key or certificate file is missing, unreadable, readable by others, or not what it should be."""

    code = "krypto.nokkelfil"


class PackError(CryptoError):
    """Files cannot be packed: a name twice, a name that is not allowed, or too much."""

    code = "krypto.pakking"


class UnsealError(CryptoError):
    """A package is not for us, or was altered: one class and one text on purpose, so that it is no oracle."""

    code = "krypto.apning"
    TEXT: ClassVar[str] = "pakken kan ikke åpnes: den er ikke til denne mottakeren, eller den er endret"

    def __init__(self) -> None:
        super().__init__(self.TEXT)


class KvitteringError(MeldingsformidlerError):
    """A kvittering cannot be trusted."""

    code = "kvittering"


class SignatureError(KvitteringError):
    """The kvittering is not signed by a key that may sign for this kommune."""

    code = "kvittering.signatur"


class ChainError(KvitteringError):
    """The kvittering does not continue its issuer's chain for this søknad."""

    code = "kvittering.kjede"


class TransportError(MeldingsformidlerError):
    """Kafka or the dokumentlager said no. Mapped from foreign errors in one place for each library."""

    code = "transport"


class BrokerUnavailableError(TransportError):
    """Kafka does not answer, or not yet."""

    code = "transport.megler-utilgjengelig"
    retriable = True


class AccessDeniedError(TransportError):
    """Our principal lacks a right, or its credentials are refused."""

    code = "transport.ingen-tilgang"


class PartitionLostError(TransportError):
    """A partition went to another member of the group, which will read the same records again."""

    code = "transport.partisjon-mistet"


class TopicChangedError(TransportError):
    """A topic is not the one that was read before: made again, or with another number of partitions. A person decides."""

    code = "transport.emne-endret"


class PackageUnavailableError(TransportError):
    """The dokumentlager does not answer, or not yet."""

    code = "transport.dokumentlager-utilgjengelig"
    retriable = True


class PackageMissingError(TransportError):
    """The dokumentlager has no package with this id, or not for us."""

    code = "transport.pakke-mangler"


class PackageDamagedError(TransportError):
    """A package in the dokumentlager is not the bytes that were stored there: cut short, or changed."""

    code = "transport.pakke-skadet"


class RecordTooLargeError(TransportError):
    """A record is larger than a topic takes; it should have gone through the dokumentlager."""

    code = "transport.for-stor"


class RefusedError(MeldingsformidlerError):
    """A submission that we do not take. Nothing of it is kept, and its sender still has it.

    Args:
        status: The HTTP status that says so.
        message: Which part or field, and what to do about it, without a value or a file name from the submission.
        reason: Stable word for machines, metrics and logs, for example ``filnavn``.
    """

    code = "innsending.avvist"

    def __init__(self, status: int, message: str, *, reason: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.reason = reason


class DeliveryError(MeldingsformidlerError):
    """A delivery cannot go on, for a reason that is not in the søknad itself."""

    code = "levering"


class BehindDeadLetterError(DeliveryError):
    """An earlier message of the same søknad is a dead letter: this one waits behind it, so that the order is kept."""

    code = "levering.venter-bak-dodt-brev"

    def __init__(self) -> None:
        super().__init__("en tidligere melding i samme søknad ligger som dødt brev")


class ExpiredError(DeliveryError):
    """The moment until which the sender let this channel hand the message over has passed: another channel has it now."""

    code = "levering.utlopt"

    def __init__(self) -> None:
        super().__init__("fristen for å begynne overleveringen er ute")


class WithdrawnError(DeliveryError):
    """The sender has withdrawn the message before it was handed over."""

    code = "levering.tilbakekalt"

    def __init__(self) -> None:
        super().__init__("avsenderen har trukket meldingen tilbake")


class AlreadyAcceptedError(RefusedError):
    """The sender's reference names a søknad that was accepted before: the same søknad, for ever.

    Args:
        message: The text that Fiks' clients parse.
        digisos_id: The søknad's id.
    """

    code = "innsending.finnes"

    def __init__(self, message: str, *, digisos_id: str) -> None:
        super().__init__(400, message, reason="finnes")
        self.digisos_id = digisos_id


class AuditError(MeldingsformidlerError):
    """Something may not stand in the revisjon, or the revisjon does not hold."""

    code = "revisjon"


class GovernedActError(MeldingsformidlerError):
    """An operator's act is refused, and nothing was done."""

    code = "styring"


class ApprovalError(GovernedActError):
    """An act needs another operator's signed approval, and this is none."""

    code = "styring.godkjenning"


class SelectionError(GovernedActError):
    """What an act is to be done to is not said, or not in a way that can be understood."""

    code = "styring.utvalg"


class SelectionChangedError(GovernedActError):
    """What an act was proposed for is not what it would be done to now."""

    code = "styring.endret"


class CopyGoneError(MeldingsformidlerError):
    """The sender's copy of a melding was destroyed, or there never was one: nothing can be opened or sent again from it."""

    code = "kopi.borte"


class StoreError(MeldingsformidlerError):
    """A local store cannot be written: disk full, locked by another process, or of a newer version."""

    code = "lager"
    retriable = True


class OutcomeUnknownError(StoreError):
    """The connection to a database went in the middle of a commit: the write may be kept. Whatever it refers to must stay."""

    code = "lager.uvisst"


class StoreFullError(StoreError):
    """There is no room for a write; nothing of it is kept, and it may be tried again when there is."""

    code = "lager.fullt"


class UniqueViolationError(StoreError):
    """A store has such a row already, by a unique index or its primary key; nothing of the write is kept."""

    code = "lager.finnes"
    retriable = False


class ChannelError(MeldingsformidlerError):
    """A channel other than Kafka cannot take a message, and the same attempt never gets better."""

    code = "kanal"


class ChannelUnavailableError(ChannelError):
    """A channel cannot take a message now: its folder cannot be written, or its service does not answer."""

    code = "kanal.utilgjengelig"
    retriable = True


class DamagedFileError(ChannelError):
    """A file of a søknad cannot be made into pages; it goes along as it is."""

    code = "kanal.skadet-fil"


class FagsystemUnavailableError(MeldingsformidlerError):
    """The fagsystem does not answer: nothing is wrong with the søknad, and no attempt is counted.

    Args:
        message: What was tried, without personal data.
        retry_after: How long the fagsystem asked us to wait, if it did.
    """

    code = "fagsystem.utilgjengelig"
    retriable = True

    def __init__(self, message: str, *, retry_after: timedelta | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class FagsystemFailureError(MeldingsformidlerError):
    """The fagsystem answers, but fails on this søknad: an attempt that counts."""

    code = "fagsystem.feil"
    retriable = True


class ConfigurationError(MeldingsformidlerError):
    """A setting is missing or wrong; raised only before the first message."""

    code = "oppsett"


class TopicShorterError(ConfigurationError):
    """A topic ends before what was read of it: it was deleted and made again, or lost its end.

    Args:
        message: Which topics, and by how much.
        topics: Their names.
    """

    code = "oppsett.emne-kortere"

    def __init__(self, message: str, *, topics: frozenset[str]) -> None:
        super().__init__(message)
        self.topics = topics
