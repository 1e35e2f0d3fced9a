import pytest

from stillhouse import errors


def below(root):
    return [cls for one in root.__subclasses__() for cls in (one, *below(one))]


def test_the_tree_in_the_docstring_is_the_tree():
    drawn = {line.split()[1] for line in errors.__doc__.splitlines() if line.strip().startswith(("├──", "└──"))}
    assert drawn == {cls.__name__ for cls in below(errors.StillhouseError)}


@pytest.mark.parametrize("cls", below(errors.StillhouseError))
def test_every_known_error_exits_with_2_and_is_found_by_its_name(cls):
    assert cls("x").exit_code == 2
    assert errors.by_name(cls.__name__) is cls


def test_a_line_stays_a_line_and_bounded():
    assert "\n" not in errors.one_line("a\nb")
    assert len(errors.one_line("x" * 10_000)) == 600
