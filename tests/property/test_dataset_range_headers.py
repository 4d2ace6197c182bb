"""Whatever a Range header says, what is sent lies within the file, once."""

from hypothesis import given
from hypothesis import strategies as st

from tensorage.dataset.server.ranges import MAX_RANGES, parse
from tensorage.dataset.server.refusal import Refusal

NUMBERS = st.integers(0, 120).map(str) | st.just("")
SPECS = st.tuples(NUMBERS, NUMBERS).map("-".join)
HEADERS = st.lists(SPECS, max_size=20).map(lambda specs: "bytes=" + ",".join(specs)) | st.text(max_size=40)


@given(HEADERS, st.integers(1, 100))
def test_no_header_gets_a_byte_twice_or_one_that_is_not_there(header: str, size: int) -> None:
    try:
        spans = parse(header, size)
    except Refusal as refusal:
        assert refusal.headers == {"content-range": f"bytes */{size}"}
        return
    if spans is None:
        assert not header.lower().startswith("bytes=")
        return
    sent = [byte for span in spans for byte in range(span.first, span.last + 1)]
    assert 1 <= len(spans) <= MAX_RANGES
    assert len(sent) == len(set(sent)) == sum(span.size for span in spans) > 0
    assert 0 <= min(sent) <= max(sent) < size
