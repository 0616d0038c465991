from __future__ import annotations

from random import Random

import orjson
from hypothesis import given
from hypothesis import strategies as st

from schemas.documents import parse_document
from schemas.example_okonomi import make_arbeid, make_okonomi
from schemas.livssituasjon import Arbeid
from schemas.okonomi import Okonomi


@given(seed=st.integers(0, 2**32), short=st.booleans())
def test_rows_follow_the_format_and_have_no_field_that_it_lacks(*, seed: int, short: bool) -> None:
    rng = Random(seed)
    okonomi = parse_document(Okonomi, orjson.dumps(make_okonomi(rng, short=short)), "okonomi")
    arbeid = parse_document(Arbeid, orjson.dumps(make_arbeid(rng, short=short)), "arbeid")

    rows = [*okonomi.opplysninger.utbetaling, *okonomi.oversikt.inntekt, *(okonomi.oversikt.formue or ())]
    assert all(row.model_extra == {} for row in [arbeid, *rows])


def test_a_long_one_has_a_payment_of_every_source() -> None:
    okonomi = parse_document(Okonomi, orjson.dumps(make_okonomi(Random(1), short=False)), "okonomi")

    types = {row.type for row in okonomi.opplysninger.utbetaling}

    assert types == {"salg", "navytelse", "skatteopplysninger", "husbanken"}


def test_a_short_one_has_one_row_of_each_sort() -> None:
    okonomi = parse_document(Okonomi, orjson.dumps(make_okonomi(Random(1), short=True)), "okonomi")

    assert okonomi.opplysninger.utbetaling == ()
    assert [len(okonomi.oversikt.inntekt), len(okonomi.oversikt.formue or ())] == [1, 1]
