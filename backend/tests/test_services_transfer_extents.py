"""Ranges against a set of ints: the model nobody can get wrong."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mlx_manager.services.transfer.extents import Extents, WorkList

SIZE = 60
ranges = st.lists(st.tuples(st.integers(0, SIZE), st.integers(0, SIZE)), max_size=30)
offset = st.integers(0, SIZE + 10)


def members(pairs: list[tuple[int, int]]) -> set[int]:
    return {n for start, end in pairs for n in range(start, end)}


@given(ranges)
def test_it_is_a_set_of_offsets(added: list[tuple[int, int]]) -> None:
    have = Extents(added)
    model = members(added)
    listed = list(have)
    assert members(listed) == model
    assert have.total == len(model)
    assert len(have) == len(listed)
    # Sorted, none empty, and between two there is always a gap: so two equal sets look the same.
    edges = [edge for pair in listed for edge in pair]
    assert edges == sorted(set(edges))


@given(ranges)
def test_the_front_is_the_first_offset_that_is_not_here(added: list[tuple[int, int]]) -> None:
    model = members(added)
    assert Extents(added).front == next(n for n in range(SIZE + 1) if n not in model)


@given(ranges, offset)
def test_gaps_are_what_is_not_here(added: list[tuple[int, int]], size: int) -> None:
    gaps = Extents(added).gaps(size)
    assert members(gaps) == set(range(size)) - members(added)
    assert all(start < end for start, end in gaps)


@given(ranges, offset, offset)
def test_holes_are_the_gaps_of_a_range(added: list[tuple[int, int]], start: int, end: int) -> None:
    holes = Extents(added).holes(start, end)
    assert members(holes) == set(range(start, end)) - members(added)
    assert all(a < b for a, b in holes)


@given(ranges, st.integers(1, 20))
def test_a_work_list_gives_all_of_the_gaps_once_lowest_first(added: list[tuple[int, int]], most: int) -> None:
    gaps = Extents(added).gaps(SIZE)
    work = WorkList(gaps)
    taken = []
    while work:
        taken.append(work.take(most))
    assert taken == sorted(taken)
    assert sum(end - start for start, end in taken) == len(members(taken))
    assert members(taken) == members(gaps)
    assert all(0 < end - start <= most + most // 4 for start, end in taken)


def test_a_rest_too_small_for_a_request_of_its_own_goes_with_the_piece_before_it() -> None:
    work = WorkList([(0, 25)])
    assert work.take(20) == (0, 25)
    assert not work
