"""Files in parts: joined exactly, refused where anything is missing or other, forgotten when they are given up."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest

from trimtab.store.store import Store

MPU = "/api/2.0/mlflow-artifacts/mpu"
WHOLE = "/api/2.0/mlflow-artifacts/artifacts"


def _begin(api: Any, folder: str, name: str, parts: int, **more: Any) -> dict[str, Any]:
    answer = api.post(f"{MPU}/create/{folder}", json={"path": name, "num_parts": parts}, **more)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def _send(api: Any, begun: dict[str, Any], contents: list[bytes]) -> list[dict[str, Any]]:
    told = []
    for one, content in zip(begun["credentials"], contents, strict=True):
        answer = api.put("/" + one["url"].split("/", 3)[3], content=content)
        assert answer.status_code == 200, answer.text
        told.append({"part_number": one["part_number"], "etag": answer.headers["etag"], "url": one["url"]})
    return told


def _end(api: Any, folder: str, name: str, begun: dict[str, Any], parts: list[Any], act: str = "complete") -> Any:
    given = {"path": name, "upload_id": begun["upload_id"], "parts": parts}
    return api.post(f"{MPU}/{act}/{folder}", json=given)


def test_parts_are_joined(api: Any, store: Store) -> None:
    """The file has the bytes of its parts in order; asked to join again, it is there; a later part is too late."""
    begun = _begin(api, "0/run/artifacts", "/home/me/a file.bin", 12, headers={"authorization": "Bearer t"})
    assert begun["credentials"][0]["headers"] == {"Authorization": "Bearer t"}
    contents = [bytes([number]) * 1000 for number in range(12)]
    parts = _send(api, begun, contents)
    for _ in "ab":
        assert _end(api, "0/run/artifacts", "a file.bin", begun, parts).status_code == 200
        assert api.get(f"{WHOLE}/0/run/artifacts/a file.bin").content == b"".join(contents)
    left = {path.name for path in (store.home.root / "uploads" / begun["upload_id"]).iterdir()}
    assert not left & {str(number) for number in range(1, 13)}
    late = api.put("/" + begun["credentials"][0]["url"].split("/", 3)[3], content=b"x")
    assert late.status_code == 400 and "takes no part" in late.json()["message"]


def test_a_part_sent_again_stands(api: Any) -> None:
    """The later one is the one that its tag names; the earlier tag no longer fits."""
    begun = _begin(api, "0/r", "f", 1)
    (first,), (second,) = _send(api, begun, [b"one"]), _send(api, begun, [b"two"])
    assert "is another one" in _end(api, "0/r", "f", begun, [first]).json()["message"]
    assert _end(api, "0/r", "f", begun, [second]).status_code == 200
    assert api.get(f"{WHOLE}/0/r/f").content == b"two"


def test_what_is_missing_is_refused(api: Any) -> None:
    """Too few parts, parts of another order, or a part that never came make no file."""
    begun = _begin(api, "0/r", "f", 2)
    parts = _send(api, {"credentials": begun["credentials"][:1]}, [b"one"])
    never = {"part_number": 2, "etag": '"x"', "url": ""}
    wrong: list[list[Any]] = [parts, [never, *parts], [*parts, never], [{}, {}], ["a", "b"], []]
    for given in wrong:
        assert _end(api, "0/r", "f", begun, given).status_code == 400
    assert api.get(f"{WHOLE}/0/r/f").status_code == 404


@pytest.mark.parametrize(
    ("folder", "name"), [("0/r", ".."), ("0/r", ""), ("0/%2e%2e/x", "f"), ("0/r", "a\\.."), ("0/r", "/")]
)
def test_hostile_names(api: Any, store: Store, folder: str, name: str) -> None:
    """No name of a client becomes a place of the file system."""
    answer = api.post(f"{MPU}/create/{folder}", json={"path": name, "num_parts": 1})
    assert answer.status_code == 400 and "error_code" in answer.json()
    assert not (store.home.root / "uploads").exists()


@pytest.mark.parametrize("parts", [0, -1, 10_001, "many", True, 1.5])
def test_counts_that_cannot_be(api: Any, parts: Any) -> None:
    """A count is one to ten thousand; none means one."""
    answer = api.post(f"{MPU}/create/0/r", json={"path": "f", "num_parts": parts})
    assert answer.status_code == (200 if parts == 0 else 400)


def test_unknown_uploads(api: Any) -> None:
    """An upload that is none, or of another path, is told of, for each of the acts."""
    begun = _begin(api, "0/r", "f", 1)
    for ident in ("f" * 32, "..", "../uploads", ""):
        for act in ("complete", "abort"):
            answer = _end(api, "0/r", "f", {"upload_id": ident}, [], act)
            assert answer.status_code == 404 and answer.json()["error_code"] == "RESOURCE_DOES_NOT_EXIST"
    for act in ("complete", "abort"):
        assert "not of this path" in _end(api, "0/other", "f", begun, [], act).json()["message"]
    for path in ("x/1", f"{begun['upload_id']}/2", f"{begun['upload_id']}/0", f"{begun['upload_id']}/..", "a"):
        assert api.put(f"{MPU}/part/{path}", content=b"x").status_code in (400, 404)


def test_giving_up(api: Any, store: Store) -> None:
    """Nothing of it stays; one that nobody gave up goes after a week."""
    begun = _begin(api, "0/r", "f", 1)
    _send(api, begun, [b"one"])
    assert _end(api, "0/r", "f", begun, [], "abort").status_code == 200
    uploads: Path = store.home.root / "uploads"
    assert list(uploads.iterdir()) == []
    old = _begin(api, "0/r", "f", 1)["upload_id"]
    os.utime(uploads / old, (time.time() - 8 * 86_400,) * 2)
    new = _begin(api, "0/r", "f", 1)["upload_id"]
    assert [path.name for path in uploads.iterdir()] == [new]
