"""The micro-batcher: every picture its own answer, whatever comes when."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from multilabel.server.batcher import SIZES, Batcher, Full


def numbered(number: int) -> np.ndarray:
    return np.full((2, 2, 3), number, np.uint8)


def means(pixels: np.ndarray) -> dict[str, np.ndarray]:
    return {"mean": pixels.mean(axis=(1, 2, 3))}


@pytest.fixture
def sizes() -> list[int]:
    return []


@pytest.fixture
def batcher(sizes: list[int]) -> Iterator[Batcher]:
    made = Batcher(means, on_batch=sizes.append)
    yield made
    made.close()


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 70), min_size=1, max_size=6))
def test_every_picture_gets_its_own_answer_in_batches_of_few_sizes(bursts: list[int]) -> None:
    sizes: list[int] = []
    batcher = Batcher(means, on_batch=sizes.append, patience=0.0005)
    batcher.start()
    numbers = [number % 256 for number in range(sum(bursts))]
    waiting, answers = iter(numbers), []
    for burst in bursts:
        answers += [batcher.submit(numbered(next(waiting))) for _ in range(burst)]
        time.sleep(0.001)
    assert [answer.result(10)["mean"] for answer in answers] == numbers
    batcher.close()
    assert set(sizes) <= set(SIZES)
    assert sum(sizes) == sum(bursts)


def test_what_waits_goes_together_in_the_largest_batches_that_it_fills(batcher: Batcher, sizes: list[int]) -> None:
    answers = [batcher.submit(numbered(number)) for number in range(45)]
    batcher.start()
    assert [answer.result(10)["mean"] for answer in answers] == list(range(45))
    assert sizes == [32, 8, 4, 1]


def test_a_lone_picture_waits_only_for_its_patience(batcher: Batcher, sizes: list[int]) -> None:
    batcher.start()
    started = time.perf_counter()
    batcher.submit(numbered(1)).result(10)
    assert time.perf_counter() - started < 1
    assert sizes == [1]


def test_pictures_that_come_within_the_patience_go_together(sizes: list[int]) -> None:
    batcher = Batcher(means, on_batch=sizes.append, patience=0.5)
    batcher.start()
    answers = [batcher.submit(numbered(number)) for number in range(4)]
    assert [answer.result(10)["mean"] for answer in answers] == [0, 1, 2, 3]
    batcher.close()
    assert sizes == [4]


def test_a_failure_reaches_those_of_its_batch_and_the_next_goes_well() -> None:
    def odd(pixels: np.ndarray) -> dict[str, np.ndarray]:
        if pixels.max() == 13:
            raise ValueError("thirteen")
        return means(pixels)

    batcher = Batcher(odd)
    batcher.start()
    with pytest.raises(ValueError, match="thirteen"):
        batcher.submit(numbered(13)).result(10)
    assert batcher.submit(numbered(5)).result(10)["mean"] == 5
    batcher.close()


def test_what_nobody_waits_for_any_more_is_not_computed(batcher: Batcher, sizes: list[int]) -> None:
    gone, stays = batcher.submit(numbered(1)), batcher.submit(numbered(2))
    gone.cancel()
    batcher.start()
    assert stays.result(10)["mean"] == 2
    assert sizes == [1]


def test_everybody_who_waited_may_go(batcher: Batcher) -> None:
    for number in range(5):
        batcher.submit(numbered(number)).cancel()
    batcher.start()
    assert batcher.submit(numbered(7)).result(10)["mean"] == 7


def test_an_answer_of_too_few_rows_is_a_failure_and_the_next_goes_well() -> None:
    def short(pixels: np.ndarray) -> dict[str, np.ndarray]:
        return {"mean": means(pixels)["mean"][:1]}

    batcher = Batcher(short)
    answers = [batcher.submit(numbered(number)) for number in range(2)]
    batcher.start()
    with pytest.raises(IndexError):
        answers[1].result(10)
    assert batcher.submit(numbered(7)).result(10)["mean"] == 7
    batcher.close()


def test_closing_answers_all_that_wait() -> None:
    def slow(pixels: np.ndarray) -> dict[str, np.ndarray]:
        time.sleep(0.02)
        return means(pixels)

    batcher = Batcher(slow)
    batcher.start()
    answers = [batcher.submit(numbered(number)) for number in range(40)]
    batcher.close()
    assert [answer.result(0)["mean"] for answer in answers] == list(range(40))


def test_places_are_counted_and_given_back() -> None:
    batcher = Batcher(means, capacity=4)
    with batcher.places(3):
        assert batcher.taken == 3
        with pytest.raises(Full), batcher.places(2):
            pass
        with batcher.places(1):
            assert batcher.taken == 4
    assert batcher.taken == 0


def test_many_threads_ask_at_once() -> None:
    batcher = Batcher(means)
    batcher.start()
    wrong: list[int] = []

    def ask(number: int) -> None:
        for _ in range(50):
            if batcher.submit(numbered(number)).result(10)["mean"] != number:
                wrong.append(number)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    batcher.close()
    assert not wrong
