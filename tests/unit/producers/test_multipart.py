from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from producers.multipart import End, Event, MultipartReader, PartBegin, PartData, PartEnd, boundary_of
from schemas.errors import RefusedError

CONTENT_TYPE = "multipart/form-data; boundary=grense"


def body(*parts: tuple[str, bytes], boundary: str = "grense", tail: bytes = b"") -> bytes:
    out = b""
    for name, content in parts:
        out += f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n'.encode()
        out += b"Content-Type: application/octet-stream\r\n\r\n" + content + b"\r\n"
    return out + f"--{boundary}--\r\n".encode() + tail


def read(chunks: list[bytes], content_type: str = CONTENT_TYPE, max_parts: int = 20) -> list[Event]:
    reader = MultipartReader(content_type, max_parts=max_parts)
    events = [event for chunk in chunks for event in reader.feed(chunk)]
    reader.close()
    return events


def joined(events: list[Event]) -> list[Event]:
    out: list[Event] = []
    for event in events:
        if isinstance(event, PartData) and out and isinstance(out[-1], PartData):
            out[-1] = PartData(out[-1].data + event.data)
        else:
            out.append(event)
    return out


def test_parts_come_in_order_with_position_and_name() -> None:
    events = joined(read([body(("soknadJson", b"{}"), ("dokument:0", b"%PDF"))]))
    assert events == [
        PartBegin(1, "soknadJson"), PartData(b"{}"), PartEnd(),
        PartBegin(2, "dokument:0"), PartData(b"%PDF"), PartEnd(),
        End(),
    ]  # fmt: skip


CONTENTS = st.binary(max_size=60) | st.sampled_from(
    [b"\r\n", b"\r\n--", b"\r\n--grens", b"--grense", b"\r", b"\r\n\r\n--gr\r\n--grensX", b"\n--grense\n"]
)


@given(st.lists(CONTENTS, max_size=5), st.data())
def test_any_way_of_cutting_a_body_gives_the_same_events(contents: list[bytes], data: st.DataObject) -> None:
    contents = [content for content in contents if b"\r\n--grense" not in b"\r\n" + content]
    whole = body(*((f"del{nr}", content) for nr, content in enumerate(contents)), tail=b"epilog")
    if not contents:
        whole = b"--grense--\r\n"
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=12)))
    chunks = [whole[a:b] for a, b in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
    expected: list[Event] = []
    for nr, content in enumerate(contents, 1):
        expected += [PartBegin(nr, f"del{nr - 1}"), *([PartData(content)] if content else []), PartEnd()]
    assert joined(read(chunks)) == [*expected, End()]


def test_one_byte_at_a_time_is_a_way_of_cutting_too() -> None:
    whole = body(("a", b"en\r\n--grens\r\nto"), ("b", b""))
    assert joined(read([whole[i : i + 1] for i in range(len(whole))])) == joined(read([whole]))


@pytest.mark.parametrize(
    "content_type",
    [
        "multipart/form-data; charset=ISO-8859-1; boundary=grense",
        'Multipart/Form-Data; boundary="grense"; charset=UTF-8',
    ],
)
def test_other_parameters_beside_the_boundary_are_tolerated(content_type: str) -> None:
    assert boundary_of(content_type) == b"grense"


@pytest.mark.parametrize(
    ("content_type", "status"),
    [
        (None, 415),
        ("application/json", 415),
        ("multipart/mixed; boundary=x", 415),
        ("multipart/form-data", 400),
        ("multipart/form-data; boundary=", 400),
        ("multipart/form-data; boundary=" + "x" * 71, 400),
    ],
)
def test_another_content_type_is_refused(content_type: str | None, status: int) -> None:
    with pytest.raises(RefusedError) as refused:
        boundary_of(content_type)
    assert refused.value.status == status


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(b"", id="nothing at all"),
        pytest.param(b"ikke multipart", id="no boundary"),
        pytest.param(body(("a", b"x"))[:-4], id="last boundary cut"),
        pytest.param(b'--grense\r\nContent-Disposition: form-data; name="a"\r\n\r\nhalv', id="part cut"),
        pytest.param(b"--grense\r\nContent-Disp", id="headers cut"),
        pytest.param(b"--grense\r\n@: x\r\n\r\n", id="header name with a bad character"),
        pytest.param(b"--grense\r\nX: " + b"y" * 5000 + b"\r\n\r\n", id="header too long"),
        pytest.param(b"--grense\r\n" + b"X: y\r\n" * 20 + b"\r\n", id="too many headers"),
        pytest.param(body(("a", b"x"), boundary="annen"), id="another boundary"),
    ],
)
def test_a_broken_body_is_refused_with_the_position_of_the_part(raw: bytes) -> None:
    with pytest.raises(RefusedError, match="multipart-del nr 1") as refused:
        read([raw])
    assert refused.value.status == 400


def test_too_many_parts_are_refused() -> None:
    with pytest.raises(RefusedError) as refused:
        read([body(*((str(i), b"") for i in range(4)))], max_parts=3)
    assert refused.value.status == 413


def test_an_error_never_repeats_a_part_name() -> None:
    raw = body(("Kari Nordmann 01017012345.pdf", b"x"))[:-6]
    with pytest.raises(RefusedError) as refused:
        read([raw])
    assert "Kari" not in str(refused.value)
