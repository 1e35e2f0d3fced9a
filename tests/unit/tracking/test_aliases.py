import pytest

from stillhouse.tracking.aliases import delete_alias, get_aliases, repair, set_alias
from stillhouse.tracking.registry import STUDENT


@pytest.fixture
def three(workspace, client):
    """A registered student with three versions."""
    client.create_registered_model(STUDENT)
    for _ in range(3):
        client.create_model_version(STUDENT, "urn:none")
    return workspace


def test_without_a_registered_student_there_are_none(workspace):
    assert get_aliases(workspace) == {}
    assert repair(workspace, champion=None, challenger=None, previous=None) == {}


def test_an_alias_is_set_moved_and_taken_away(three):
    set_alias(three, "champion", 1)
    set_alias(three, "champion", 3)
    assert get_aliases(three) == {"champion": 3}
    delete_alias(three, "champion")
    delete_alias(three, "champion")
    assert get_aliases(three) == {}


def test_repair_makes_the_aliases_equal_the_ledger_and_says_what_was_wrong(three):
    for alias, version in {"champion": 1, "challenger": 2, "blue": 2}.items():
        set_alias(three, alias, version)
    changed = repair(three, champion=3, challenger=None, previous=1)
    assert changed == {"champion": (1, 3), "challenger": (2, None), "previous": (None, 1)}
    assert get_aliases(three) == {"champion": 3, "previous": 1, "blue": 2}, "others are left alone"
    assert repair(three, champion=3, challenger=None, previous=1) == {}
