"""A dict that evicts its oldest entry."""

import pytest

from fastapi_keyauth.concurrency.bounded_dict import BoundedDict


@pytest.fixture
def full() -> BoundedDict[str, int]:
    full: BoundedDict[str, int] = BoundedDict(3)
    full.update(a=1, b=2, c=3)
    return full


def test_the_oldest_entry_is_evicted(full: BoundedDict[str, int]) -> None:
    full["d"] = 4
    assert list(full.items()) == [("b", 2), ("c", 3), ("d", 4)]


def test_assigning_a_key_again_evicts_nothing_and_makes_it_the_newest(full: BoundedDict[str, int]) -> None:
    full["a"] = 5
    assert list(full.items()) == [("b", 2), ("c", 3), ("a", 5)]


def test_reading_leaves_an_entry_as_old_as_it_is(full: BoundedDict[str, int]) -> None:
    assert full["a"] == 1
    assert full.get("a") == 1
    full["d"] = 4
    assert "a" not in full


def test_an_entry_that_is_moved_to_the_end_is_the_newest(full: BoundedDict[str, int]) -> None:
    full.move_to_end("a")
    full["d"] = 4
    assert list(full) == ["c", "a", "d"]


def test_every_way_of_adding_is_bounded(full: BoundedDict[str, int]) -> None:
    full.setdefault("d", 4)
    full.update({"e": 5})
    full |= {"f": 6}
    assert list(full) == ["d", "e", "f"]
    assert isinstance(full, BoundedDict)


def test_a_dict_of_size_zero_keeps_nothing() -> None:
    empty: BoundedDict[str, int] = BoundedDict(0)
    empty["a"] = 1
    assert not empty
