"""Keys come from the environment, and never show up in what is said about them."""

from __future__ import annotations

from pathlib import Path

import pytest
from keys import new_keys

from stillhouse.errors import RegistryError
from tasks.signing import envelope_of, trusted_keys


@pytest.fixture(autouse=True)
def _nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("STILLHOUSE_SIGNING_KEY", "STILLHOUSE_VERIFY_KEYS"):
        monkeypatch.delenv(name, raising=False)


def test_without_a_key_nothing_is_signed_and_nobody_is_trusted() -> None:
    assert envelope_of(b"{}") is None
    assert trusted_keys() == []


def test_a_key_is_taken_as_text_or_from_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    private, _ = new_keys()
    (tmp_path / "key.pem").write_bytes(private)
    made = []
    for given in (private.decode(), "a comment\n" + private.decode(), str(tmp_path / "key.pem")):
        monkeypatch.setenv("STILLHOUSE_SIGNING_KEY", given)
        made.append(envelope_of(b"{}"))
        assert len(trusted_keys()) == 1
    assert made[0] == made[1] == made[2]


@pytest.mark.parametrize(
    "given", ["c2VjcmV0LXNlY3JldA==", "-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n", "x" * 5000, "a\x01b"]
)
def test_what_is_no_key_is_one_line_that_does_not_show_it(monkeypatch: pytest.MonkeyPatch, given: str) -> None:
    monkeypatch.setenv("STILLHOUSE_SIGNING_KEY", given)
    with pytest.raises(RegistryError, match="STILLHOUSE_SIGNING_KEY") as caught:
        trusted_keys()
    assert "\n" not in str(caught.value)
    assert "c2Vjc" not in str(caught.value)
    assert "xxxxx" not in str(caught.value)
