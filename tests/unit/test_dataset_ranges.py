"""Which bytes a request is answered with: RFC 9110, sections 13 to 15."""

import pytest

from tensorage.dataset.server.ranges import MAX_RANGES, Answer, Span, Validators, answer
from tensorage.dataset.server.refusal import Refusal

FILE = Validators('"aa"', 1_000_000_000)  # Sun, 09 Sep 2001 01:46:40 GMT
BEFORE, THEN, AFTER = (f"Sun, 09 Sep 2001 01:46:{second} GMT" for second in (39, 40, 41))
WHOLE = Answer(200, (Span(0, 99),))


def of_100(**headers: str) -> Answer:
    return answer({name.replace("_", "-"): [value] for name, value in headers.items()}, 100, FILE)


def refused(**headers: str) -> Refusal:
    with pytest.raises(Refusal) as caught:
        of_100(**headers)
    return caught.value


@pytest.mark.parametrize(
    ("asked", "spans"),
    [
        ("bytes=0-0", [(0, 0)]),
        ("bytes=10-", [(10, 99)]),
        ("bytes=90-1000", [(90, 99)]),
        ("bytes=-1", [(99, 99)]),
        ("bytes=-1000", [(0, 99)]),
        ("BYTES=5-6", [(5, 6)]),
        ("bytes= 1-2 ,\t4-5,, ", [(1, 2), (4, 5)]),
        ("bytes=50-59,0-9", [(50, 59), (0, 9)]),
        ("bytes=0-9,100-,-0", [(0, 9)]),
    ],
)
def test_ranges_within_the_file_are_sent_as_asked_for(asked: str, spans: list[tuple[int, int]]) -> None:
    assert of_100(range=asked) == Answer(206, tuple(Span(*span) for span in spans))


@pytest.mark.parametrize(
    "asked",
    [
        "bytes=100-",
        "bytes=100-200,300-",
        "bytes=-0",
        "bytes=",
        "bytes=,",
        "bytes",
        "bytes=5-4",
        "bytes=a-b",
        "bytes=1-2x",
        "bytes=--1",
        "bytes=1",
        "bytes=\u0661-",
        "bytes=" + "9" * 20 + "-",
        "bytes=0-9,9-12",
        "bytes=0-,0-,0-",
        "bytes=-60,0-50",
        "bytes=" + ",".join(f"{n}-{n}" for n in range(MAX_RANGES + 1)),
    ],
)
def test_what_no_file_or_this_file_has_not_is_unsatisfiable(asked: str) -> None:
    refusal = refused(range=asked)
    assert (refusal.http_status, refusal.headers) == (416, {"content-range": "bytes */100"})


def test_a_unit_that_nobody_knows_is_ignored_and_an_empty_file_has_no_ranges() -> None:
    assert of_100(range="lines=1-2") == WHOLE
    assert answer({"range": ["bytes=-5"]}, 0, FILE) == Answer(200, ())
    with pytest.raises(Refusal):
        answer({"range": ["bytes=0-1", "bytes=2-3"]}, 100, FILE)


@pytest.mark.parametrize("other", ['"bb"', 'W/"aa"', THEN, "aa", '"aa", "aa"'])
def test_if_range_counts_only_with_the_strong_etag(other: str) -> None:
    assert of_100(range="bytes=1-2", if_range='"aa"') == Answer(206, (Span(1, 2),))
    assert of_100(range="bytes=1-2", if_range=other) == WHOLE
    assert of_100(range="bytes=500-", if_range=other) == WHOLE


def test_what_the_client_has_already_is_not_sent() -> None:
    for known in ('"aa"', 'W/"aa"', '"bb", "aa"', "*"):
        assert of_100(if_none_match=known, range="bytes=0-1") == Answer(304, ())
    assert of_100(if_none_match='"bb"', if_modified_since=AFTER) == WHOLE
    assert of_100(if_modified_since=THEN) == Answer(304, ())
    assert of_100(if_modified_since=BEFORE) == WHOLE
    assert of_100(if_modified_since="yesterday") == WHOLE


def test_a_file_other_than_the_one_that_is_named_fails_the_precondition() -> None:
    for other in ('"bb"', 'W/"aa"'):
        assert refused(if_match=other).http_status == 412
    assert refused(if_unmodified_since=BEFORE).http_status == 412
    for same in ({"if_match": '"bb", "aa"'}, {"if_match": "*"}, {"if_unmodified_since": THEN}):
        assert of_100(**same) == WHOLE
