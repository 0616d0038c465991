from __future__ import annotations

from datetime import timedelta

import pytest

from schemas import errors
from schemas.errors import (
    AlreadyAcceptedError,
    BehindDeadLetterError,
    BrokerUnavailableError,
    CertificateError,
    ConfigurationError,
    ContractError,
    CryptoError,
    DecodeError,
    FagsystemFailureError,
    FagsystemUnavailableError,
    InvalidDocumentError,
    MeldingsformidlerError,
    PackageMissingError,
    PackageUnavailableError,
    RefusedError,
    StoreError,
    TransportError,
    UnsealError,
)


@pytest.mark.parametrize("error", [BrokerUnavailableError, PackageUnavailableError, StoreError, FagsystemFailureError])
def test_what_may_pass_is_retriable(error: type[MeldingsformidlerError]) -> None:
    assert error.retriable


@pytest.mark.parametrize("error", [ContractError, DecodeError, CryptoError, CertificateError, PackageMissingError])
def test_what_never_gets_better_is_not(error: type[MeldingsformidlerError]) -> None:
    assert not error.retriable


def test_a_failed_opening_has_one_text_whatever_the_reason() -> None:
    assert str(UnsealError()) == str(UnsealError()) == UnsealError.TEXT
    with pytest.raises(TypeError):
        UnsealError("the padding was wrong")  # type: ignore[call-arg]  # exactly what must not be possible


def test_a_document_error_names_the_path() -> None:
    error = InvalidDocumentError("soknad.json", "data.personalia.navn", "mangler")
    assert str(error) == "soknad.json: data.personalia.navn: mangler"
    assert (error.document, error.path, error.reason) == ("soknad.json", "data.personalia.navn", "mangler")


def test_a_document_error_without_a_path_speaks_of_the_document() -> None:
    assert str(InvalidDocumentError("vedlegg.json", "", "er ikke JSON")) == "vedlegg.json: dokumentet: er ikke JSON"


def test_an_unavailable_fagsystem_may_say_how_long() -> None:
    assert FagsystemUnavailableError("svarer ikke").retry_after is None
    assert FagsystemUnavailableError("svarer ikke", retry_after=timedelta(seconds=5)).retry_after == timedelta(
        seconds=5
    )


def test_a_refusal_carries_status_and_reason_for_machines() -> None:
    error = RefusedError(415, "del 3 er ikke en PDF", reason="filtype")
    assert (error.status, error.message, error.reason, str(error)) == (
        415,
        "del 3 er ikke en PDF",
        "filtype",
        error.message,
    )


def test_a_repeated_submission_knows_which_soknad_it_is() -> None:
    error = AlreadyAcceptedError("finnes", digisos_id="3fa85f64-5717-4562-b3fc-2c963f66afa6")
    assert isinstance(error, RefusedError)
    assert error.status == 400
    assert error.digisos_id == "3fa85f64-5717-4562-b3fc-2c963f66afa6"


def test_waiting_behind_a_dead_letter_says_nothing_about_the_soknad() -> None:
    assert str(BehindDeadLetterError()) == str(BehindDeadLetterError())


def test_every_error_of_ours_can_be_caught_as_one() -> None:
    for error in (TransportError("x"), ConfigurationError("x"), UnsealError()):
        assert isinstance(error, MeldingsformidlerError)


def test_the_module_says_which_errors_there_are() -> None:
    assert "MeldingsformidlerError" in (errors.__doc__ or "")
