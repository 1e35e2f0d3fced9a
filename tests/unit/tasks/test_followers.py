"""Which stages go to the worker that is there already."""

import pytest

from tasks.graph import Stage, followers


def graph(**stages):
    """Stages by name: what each needs, and whose outputs it takes."""
    return [Stage(name, tuple(upstream), resource, ()) for name, (resource, *upstream) in stages.items()]


def line(stages, name):
    return [one.name for one in followers(next(one for one in stages if one.name == name), stages)]


NIGHT = graph(
    prepare=("cpu",),
    champion=("cpu", "prepare"),
    teacher=("gpu", "prepare"),
    export=("gpu", "teacher", "prepare"),
    student_a=("gpu", "export", "prepare"),
    student_b=("gpu", "export", "prepare"),
    package_a=("cpu", "student_a"),
    package_b=("cpu", "student_b"),
)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("prepare", ["champion"]),  # not the teacher, which needs another pool
        ("teacher", ["export", "student_a"]),  # the other student may be trained beside this one
        ("student_a", []),
        ("package_b", []),
    ],
)
def test_a_line_ends_where_another_pool_is_needed_or_nothing_takes_from_its_end(name, expected):
    assert line(NIGHT, name) == expected


def test_what_waits_for_another_pool_too_is_not_in_the_line():
    both = graph(a=("cpu",), far=("gpu",), b=("cpu", "a", "far"))
    assert line(both, "a") == []


def test_what_the_first_had_to_wait_for_itself_is_there():
    diamond = graph(top=("gpu",), a=("cpu", "top"), b=("cpu", "a", "top"))
    assert line(diamond, "a") == ["b"]


def test_what_takes_from_two_of_the_line_comes_after_both():
    stages = graph(a=("cpu",), c=("cpu", "a", "b"), b=("cpu", "a"))
    assert line(stages, "a") == ["b", "c"]
