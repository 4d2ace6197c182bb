"""Whatever workers do, each chunk is fetched once or twice, and none is forgotten."""

from hypothesis import given
from hypothesis import strategies as st

from tensorage.dataset.buyer.spans import Spans


@given(
    have=st.lists(st.booleans(), max_size=40),
    moves=st.lists(
        st.tuples(st.integers(0, 3), st.sampled_from(["work", "work", "work", "leave"])), max_size=200
    ),
    most=st.sampled_from([None, 1, 3, 64]),
)
def test_every_missing_chunk_is_done_once_and_what_is_given_up_is_taken_again(have, moves, most):
    spans = Spans(have)
    held = {}
    came = {index: 0 for index, there in enumerate(have) if not there}

    def work(worker):
        span = held.get(worker) or spans.take(worker, most=most)
        if span is None:
            return False
        index = span.at
        came[index] += 1
        assert spans.done(span) is (came[index] == 1)
        held[worker] = span if span.at < span.end else None
        return True

    for worker, move in moves:
        if move == "work":
            work(worker)
        elif held.get(worker):
            spans.give_up(held.pop(worker))
    for worker in list(held):
        if held[worker]:
            spans.give_up(held[worker])
    held.clear()
    while spans.left:
        assert work(0)
    assert all(1 <= times <= 5 for times in came.values())
    assert all(spans.has(index) for index in range(len(have)))


def test_two_workers_share_what_is_left_and_the_last_chunk_is_fetched_twice():
    spans = Spans([False] * 10)
    slow = spans.take("slow", most=None)
    fast = spans.take("fast", most=None)
    assert (slow.at, slow.end, fast.at, fast.end) == (0, 5, 5, 10)
    for _ in range(5):
        assert spans.done(fast)
    fast = spans.take("fast")
    assert (slow.end, fast.at, fast.end) == (3, 3, 5)
    for _ in range(2):
        spans.done(fast)
    fast = spans.take("fast")
    assert (fast.at, fast.end) == (2, 3)
    spans.done(fast)
    fast = spans.take("fast")
    assert (fast.at, fast.end, slow.end) == (1, 2, 1)
    spans.done(fast)
    twin = spans.take("fast")
    assert (twin.at, twin.twin) == (0, True)
    assert spans.take("third") is None
    assert spans.done(twin) and not spans.done(slow)
    assert spans.left == 0
