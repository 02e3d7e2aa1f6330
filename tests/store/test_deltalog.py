"""What a Delta table's log says."""

from __future__ import annotations

import json

from trimtab.store.deltalog import AFTER, UNTIL, actions_of, dropped_by, log_key, replay


def _commit(*actions: object) -> str:
    return "\n".join(map(json.dumps, actions)) + "\n"


def test_replaying_commits_names_the_files_that_are_left() -> None:
    """Files are added and removed in the order of the commits; their names are escaped in the log."""
    commits = [
        _commit({"metaData": {}}, {"add": {"path": "a%20b.parquet"}}, {"add": {"path": "c"}}),
        _commit({"remove": {"path": "c"}}, {"add": {"path": "d"}}),
        _commit({"remove": {"path": "never"}}, {"add": {"path": "c"}}),
    ]
    assert replay(commits) == ["a b.parquet", "d", "c"] and replay([]) == []
    assert [next(iter(one)) for one in actions_of(commits[1])] == ["remove", "add"]


def test_a_rollback_tells_what_it_dropped() -> None:
    """Only a commit that was made to drop others drops any."""
    assert dropped_by(_commit({"commitInfo": {AFTER: 3, UNTIL: "5"}})) == (3, 5)
    assert dropped_by(_commit({"commitInfo": {}})) is None
    assert dropped_by(_commit({"add": {"path": AFTER}})) is None


def test_commits_lie_in_the_log_by_number() -> None:
    """The number has twenty digits."""
    assert log_key("ast-1", 12) == "ast-1/_delta_log/00000000000000000012.json"
