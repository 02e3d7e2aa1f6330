"""Secrets at rest: sealed with a key in a file, for one purpose each."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trimtab.core.errors import Corrupt, Unavailable
from trimtab.store.secrets import NAME, Secrets


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(), st.text())
def test_what_is_sealed_comes_back(tmp_path: Path, text: str, purpose: str) -> None:
    """Any text comes back for its purpose, and sealing it twice gives two seals."""
    secrets = Secrets(tmp_path)
    sealed = secrets.seal(text, purpose, first=True)
    assert Secrets(tmp_path).open(sealed, purpose) == text
    assert sealed != secrets.seal(text, purpose, first=False)


def test_a_seal_is_for_its_purpose_and_key(tmp_path: Path) -> None:
    """Another purpose, another key, or one changed byte opens nothing."""
    secrets = Secrets(tmp_path)
    sealed = secrets.seal("s" * 40, "a", first=True)
    for bad in (sealed[:-8] + "AAAAAAA=", "s1." + "A" * 40, "s2" + sealed[2:], "", "s1."):
        with pytest.raises(Corrupt, match="another key, or was changed"):
            secrets.open(bad, "a")
    with pytest.raises(Corrupt):
        secrets.open(sealed, "b")
    (tmp_path / NAME).write_bytes(b"k" * 32)
    with pytest.raises(Corrupt):
        secrets.open(sealed, "a")
    (tmp_path / NAME).write_bytes(b"short")
    with pytest.raises(Corrupt, match="5 bytes and not 32"):
        secrets.open(sealed, "a")


def test_a_lost_key_is_not_made_anew(tmp_path: Path) -> None:
    """Where something was sealed before, a missing key is told instead of hidden behind a new one."""
    secrets = Secrets(tmp_path)
    with pytest.raises(Unavailable, match="not in its folder") as caught:
        secrets.seal("s", "a", first=False)
    assert NAME in caught.value.fix
    with pytest.raises(Unavailable, match="not in its folder"):
        secrets.open("s1.x", "a")
    assert not (tmp_path / NAME).exists()


def test_the_key_is_for_its_owner_only_and_made_once(tmp_path: Path) -> None:
    """Processes that seal at the same time agree on one key, and leave no other file."""
    code = (
        "import sys; from pathlib import Path; from trimtab.store.secrets import Secrets\n"
        "print(Secrets(Path(sys.argv[1])).seal('s', 'a', first=True))"
    )
    words = [sys.executable, "-c", code, str(tmp_path)]
    running = [subprocess.Popen(words, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    sealed = [one.communicate()[0].strip() for one in running]
    assert [Secrets(tmp_path).open(one, "a") for one in sealed] == ["s"] * 4
    assert [path.name for path in tmp_path.iterdir()] == [NAME]
    assert (tmp_path / NAME).stat().st_mode & 0o777 == 0o600


def test_the_seal_does_not_change_between_releases(tmp_path: Path) -> None:
    """What an earlier release sealed is opened."""
    (tmp_path / NAME).write_bytes(bytes(range(32)))
    assert Secrets(tmp_path).open(KNOWN, "w-1") == "a secret of 36 letters, or 37 with é"


KNOWN = "s1.-aMYpm4vNRNx3zvBadDJeB0rHY8-WEtUTEcv0vcravlbipXePk0_CXP5Z1KWgVpawB5iCn_4SlPaDgBQpU84Lnw="
