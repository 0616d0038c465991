from __future__ import annotations

import pytest

from broker.register import kommune_names, made_up_organisasjonsnummer, offices
from schemas.names import Kommunenummer


def test_norway_has_357_kommuner_since_2024() -> None:
    assert len(kommune_names()) == 357


@pytest.mark.parametrize(
    ("number", "name"), [("0301", "Oslo"), ("4601", "Bergen"), ("5001", "Trondheim - Tråante"), ("1103", "Stavanger")]
)
def test_a_kommune_has_its_official_name(number: str, name: str) -> None:
    assert kommune_names()[Kommunenummer(number)] == name


def test_a_number_that_has_ceased_is_not_there() -> None:
    assert Kommunenummer("1601") not in kommune_names()


def test_oslo_has_an_office_for_every_bydel() -> None:
    assert len(offices(Kommunenummer("0301"))) >= 15


def test_a_kommune_that_we_know_no_office_of_has_none() -> None:
    assert offices(Kommunenummer("9999")) == {}


@pytest.mark.parametrize("seed", [0, 301, 4601, 99_999])
def test_a_made_up_number_has_a_right_check_digit_and_is_nobodys(seed: int) -> None:
    number = made_up_organisasjonsnummer(seed)
    weights = (3, 2, 7, 6, 5, 4, 3, 2, 1)
    assert number.startswith("1")
    assert sum(int(digit) * weight for digit, weight in zip(number, weights, strict=True)) % 11 == 0


def test_made_up_numbers_differ_and_stay_the_same() -> None:
    numbers = [made_up_organisasjonsnummer(int(number)) for number in kommune_names()]
    assert len(set(numbers)) == 357
    assert numbers == [made_up_organisasjonsnummer(int(number)) for number in kommune_names()]
