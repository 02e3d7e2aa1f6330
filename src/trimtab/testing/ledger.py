"""What every ledger must do; subclass ``LedgerConformance`` and override ``open_ledger``."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from trimtab.core.digest import digest_bytes
from trimtab.core.errors import Conflict, Fault, WrongUse
from trimtab.store.ledger import Ledger, Tx
from trimtab.store.live import get_state, put_state

OpenLedger = Callable[[], Ledger]


class LedgerConformance:
    """The contract of ``Ledger`` as tests; each test gets a new ledger that may be opened several times."""

    @pytest.fixture
    def open_ledger(self) -> OpenLedger:
        """Return a function that opens one and the same new ledger, again at each call."""
        raise NotImplementedError("override the fixture open_ledger")

    @pytest.fixture
    def ledger(self, open_ledger: OpenLedger) -> Ledger:
        """Return the ledger, opened once."""
        return open_ledger()

    def test_a_write_is_seen_by_everybody_once_it_returned(self, open_ledger: OpenLedger) -> None:
        """Another opening sees a write as soon as it has returned, and the writer's own thread does too."""
        first, second = open_ledger(), open_ledger()
        assert first.write(lambda tx: put_state(tx, "a", {"x": 1}), what="put") is None
        assert get_state(first, "a") == get_state(second, "a") == {"x": 1}

    def test_a_transaction_reads_what_it_wrote(self, ledger: Ledger) -> None:
        """Inside a write, reads see what the write did so far; outside they do not."""

        def change(tx: Tx) -> Any:
            put_state(tx, "a", {"x": 1})
            return get_state(tx, "a"), get_state(ledger, "a")

        assert ledger.write(change, what="put") == ({"x": 1}, None)

    def test_a_refusal_undoes_itself_alone(self, ledger: Ledger) -> None:
        """Of writes that share a group, the ones that raise change nothing and the others stand."""
        outcomes: dict[int, str] = {}
        start = threading.Barrier(8)

        def change(number: int) -> Callable[[Tx], int]:
            def apply(tx: Tx) -> int:
                put_state(tx, f"n/{number}", {"n": number})
                if number % 2:
                    raise ValueError(f"no {number}")
                return number

            return apply

        def run(number: int) -> None:
            start.wait()
            try:
                outcomes[number] = str(ledger.write(change(number), what="put"))
            except ValueError as error:
                outcomes[number] = str(error)

        threads = [threading.Thread(target=run, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert outcomes == {n: f"no {n}" if n % 2 else str(n) for n in range(8)}
        assert [get_state(ledger, f"n/{n}") for n in range(8)] == [None if n % 2 else {"n": n} for n in range(8)]

    def test_what_raised_is_raised_to_the_caller(self, ledger: Ledger) -> None:
        """The very exception that the function raised comes out of the write, and the ledger works on."""
        trouble = Conflict("somebody was first", where="x", fix="read again")

        def refuse(tx: Tx) -> None:
            raise trouble

        with pytest.raises(Conflict) as caught:
            ledger.write(refuse, what="refuse")
        assert caught.value is trouble
        ledger.write(lambda tx: put_state(tx, "after", {}), what="put")

    def test_a_bad_statement_undoes_itself_alone(self, ledger: Ledger) -> None:
        """A statement that the engine refuses undoes its request and leaves the ledger usable."""

        def broken(tx: Tx) -> None:
            put_state(tx, "a", {})
            tx.execute("INSERT INTO nowhere VALUES (1)")

        with pytest.raises(Exception, match="nowhere"):
            ledger.write(broken, what="broken")
        assert get_state(ledger, "a") is None
        ledger.write(lambda tx: put_state(tx, "a", {"x": 2}), what="put")
        assert get_state(ledger, "a") == {"x": 2}

    def test_a_write_inside_a_write_is_refused(self, ledger: Ledger) -> None:
        """A write that is called from inside a write is an error that says what to use instead."""

        def nested(tx: Tx) -> None:
            ledger.write(lambda inner: None, what="inner")

        with pytest.raises(Fault, match="a write inside a write"):
            ledger.write(nested, what="outer")

    def test_a_key_acts_once(self, open_ledger: OpenLedger) -> None:
        """A second write with the same key returns the first answer and does nothing, from any opening."""
        first, second = open_ledger(), open_ledger()
        calls: list[int] = []

        def act(tx: Tx) -> dict[str, Any]:
            calls.append(1)
            put_state(tx, f"act/{len(calls)}", {})
            return {"n": len(calls), "list": [1, 2.5, None, "ü"]}

        answer = first.write(act, what="act", key="k1")
        assert answer == {"n": 1, "list": [1, 2.5, None, "ü"]}
        assert second.write(act, what="act", key="k1") == answer
        assert len(calls) == 1
        assert first.write(act, what="act", key="k2")["n"] == 2

    def test_a_key_is_free_after_a_refusal(self, ledger: Ledger) -> None:
        """A write that raised does not use up its key."""

        def refuse(tx: Tx) -> int:
            raise ValueError("no")

        with pytest.raises(ValueError, match="no"):
            ledger.write(refuse, what="act", key="k")
        assert ledger.write(lambda tx: 7, what="act", key="k") == 7

    def test_a_key_of_another_act_conflicts(self, ledger: Ledger) -> None:
        """A key that was used for one act cannot be used for another."""
        ledger.write(lambda tx: 1, what="one", key="k")
        with pytest.raises(Conflict, match="'one' and not for 'two'"):
            ledger.write(lambda tx: 2, what="two", key="k")

    def test_every_write_leaves_one_audit_leaf(self, ledger: Ledger) -> None:
        """A write leaves one leaf with its digest, a refused or repeated one leaves none."""

        def act(tx: Tx) -> int:
            put_state(tx, "a", {})
            tx.note("thing_1", state="new", before=None)
            return 1

        def refuse(tx: Tx) -> None:
            tx.note("thing_2")
            raise ValueError("no")

        ledger.write(act, what="make a thing", key="k")
        ledger.write(act, what="make a thing", key="k")
        with pytest.raises(ValueError, match="no"):
            ledger.write(refuse, what="refuse")
        leaves = ledger.query("SELECT leaf, sha256, workspace, environment FROM audit")
        assert len(leaves) == 1
        leaf, digest, workspace, environment = leaves[0]
        assert digest == digest_bytes(leaf)
        assert (workspace, environment) == (ledger.workspace, ledger.environment)
        assert b"make a thing" in leaf
        assert b"thing_1" in leaf

    def test_changes_moves_when_anybody_commits(self, open_ledger: OpenLedger) -> None:
        """The counter of changes moves by every opening's commits, and stands still without any."""
        first, second = open_ledger(), open_ledger()
        for writer in (first, second):
            before = first.changes(), second.changes()
            assert before == (first.changes(), second.changes())
            writer.write(lambda tx: put_state(tx, "a", {}), what="put")
            assert first.changes() != before[0]
            assert second.changes() != before[1]

    @pytest.mark.parametrize(
        "text", ["", "a\0b", "naïve", "日本語", "\U0001f680", "e\u0301", "line\nline\r\n", "'; DROP TABLE run; --"]
    )
    def test_text_is_kept_exactly(self, ledger: Ledger, text: str) -> None:
        """Text comes back as it was, whatever is in it, and can be found by it."""
        ledger.write(lambda tx: put_state(tx, text, {"text": text}), what="put")
        assert get_state(ledger, text) == {"text": text}
        assert ledger.query("SELECT key FROM state WHERE key=?", (text,)) == [(text,)]

    @pytest.mark.parametrize("number", [0, -1, 2**53 + 1, 2**63 - 1, -(2**63)])
    def test_whole_numbers_are_kept_exactly(self, ledger: Ledger, number: int) -> None:
        """Whole numbers up to 64 bits come back as they were."""
        sql = "INSERT INTO tail(workspace, environment, stream, segment, byte) VALUES (?,?,?,?,?)"
        ledger.write(lambda tx: tx.execute(sql, ("w", "e", "s", number, 0)), what="put")
        assert ledger.query("SELECT segment FROM tail") == [(number,)]

    @pytest.mark.parametrize(
        ("value", "words"),
        [
            (2**63, "64 bits"),
            (-(2**63) - 1, "64 bits"),
            (float("nan"), "NaN"),
            ("\ud800", "surrogate"),
            ([1], "list"),
        ],
    )
    def test_what_cannot_be_kept_exactly_is_refused_by_name(self, ledger: Ledger, value: Any, words: str) -> None:
        """A value that cannot be kept exactly is refused, and the error names its column."""
        sql = "INSERT INTO tail(workspace, environment, stream, segment, byte) VALUES (?,'e',?,?,0)"
        with pytest.raises(WrongUse, match=words) as caught:
            ledger.write(lambda tx: tx.execute(sql, ("w", "s", value)), what="put")
        assert caught.value.where == "segment"
        with pytest.raises(WrongUse, match=words) as caught:
            ledger.query("SELECT * FROM tail WHERE stream=? AND byte>=?", ("s", value))
        assert caught.value.where == "byte"
        assert ledger.query("SELECT * FROM tail") == []

    def test_many_threads_and_openings_lose_nothing(self, open_ledger: OpenLedger) -> None:
        """Counting up by read and write from many threads over two openings loses no step."""
        ledgers = [open_ledger(), open_ledger()]
        failures: list[BaseException] = []

        def add(tx: Tx) -> None:
            have = get_state(tx, "count") or {"n": 0}
            put_state(tx, "count", {"n": have["n"] + 1})

        def run(number: int) -> None:
            try:
                for _ in range(20):
                    ledgers[number % 2].write(add, what="add")
            except BaseException as error:
                failures.append(error)

        threads = [threading.Thread(target=run, args=(number,)) for number in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not failures
        assert get_state(ledgers[0], "count") == {"n": 120}

    def test_closing_finishes_what_was_asked(self, open_ledger: OpenLedger) -> None:
        """Closing twice is harmless; a closed ledger refuses to read and to write."""
        ledger = open_ledger()
        ledger.write(lambda tx: put_state(tx, "a", {"x": 1}), what="put")
        ledger.close()
        ledger.close()
        with pytest.raises(Fault, match="closed"):
            ledger.write(lambda tx: None, what="late")
        with pytest.raises(Fault, match="closed"):
            ledger.query("SELECT 1")
        assert get_state(open_ledger(), "a") == {"x": 1}
