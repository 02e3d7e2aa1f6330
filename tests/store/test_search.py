"""The filter language: what it reads, what it refuses, and that both databases find and sort what a plain loop does."""

from __future__ import annotations

import base64
import math
import random
import re
from collections.abc import Sequence
from functools import cmp_to_key
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trimtab.core.errors import BadInput
from trimtab.core.metric import split_value
from trimtab.store import search, sqlite
from trimtab.store.ledger import Ledger, Tx
from trimtab.store.search import (
    EXPERIMENTS,
    LOGGED_MODELS,
    MODEL_VERSIONS,
    MODELS,
    RUNS,
    TRACES,
    Column,
    Columns,
    Comparison,
    Grammar,
    Order,
    Rows,
    Token,
    after_sql,
    order_sql,
    parse_filter,
    parse_order,
    query_digest,
    where_sql,
)

GRAMMARS = [RUNS, EXPERIMENTS, MODELS, MODEL_VERSIONS, LOGGED_MODELS, TRACES]


def told(text: str, grammar: Grammar = RUNS) -> str:
    """Return what a filter is refused with."""
    with pytest.raises(BadInput) as caught:
        parse_filter(text, grammar)
    assert re.fullmatch(r"character [1-9]\d*", caught.value.where)
    return caught.value.message


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        ("  ", []),
        ("metric.acc >= 0.94", [("metric", "acc", ">=", 0.94)]),
        ("metric.acc>=100", [("metric", "acc", ">=", 100.0)]),
        ("metrics.acc < -1.5e-3", [("metric", "acc", "<", -0.0015)]),
        ("params.m!='tf'", [("param", "m", "!=", "tf")]),
        ('params."m"!="tf"', [("param", "m", "!=", "tf")]),
        ('metrics."X//Y#$$@&Z" = 3', [("metric", "X//Y#$$@&Z", "=", 3.0)]),
        ("metrics.rmse < 1 and params.c = 'L R'", [("metric", "rmse", "<", 1.0), ("param", "c", "=", "L R")]),
        ("`metric`.a >= 0.1", [("metric", "a", ">=", 0.1)]),
        ('metrics."accuracy.2.0" > 5', [("metric", "accuracy.2.0", ">", 5.0)]),
        ("metrics.`spacey name` > 5", [("metric", "spacey name", ">", 5.0)]),
        ("tags.mlflow.source.name like '%x'", [("tag", "mlflow.source.name", "LIKE", "%x")]),
        ('parameters.m = "L\'Hosp"', [("param", "m", "=", "L'Hosp")]),
        ("tag.m = 'L''Hosp'", [("tag", "m", "=", "L'Hosp")]),
        ("attribute.start_time >= 1234", [("attribute", "start_time", ">=", 1234)]),
        (
            "Created > 5 AND `Run Name` = 'x'",
            [("attribute", "start_time", ">", 5), ("attribute", "run_name", "=", "x")],
        ),
        ("run.status = 'RUNNING'", [("attribute", "status", "=", "RUNNING")]),
        ("attr.run_id IN ('a', \"b\")", [("attribute", "run_id", "IN", ("a", "b"))]),
        ("run_id not in ('a',)", [("attribute", "run_id", "NOT IN", ("a",))]),
        ("datasets.name in ('d')", [("dataset", "name", "IN", ("d",))]),
        (
            "tags.v IS NULL AND params.lr is not null",
            [("tag", "v", "IS NULL", None), ("param", "lr", "IS NOT NULL", None)],
        ),
    ],
)
def test_filters_are_read(text: str, expected: list[Any]) -> None:
    """Quotes, aliases, numbers, lists and the case of keywords are as tracking clients write them."""
    assert parse_filter(text, RUNS) == [Comparison(*one) for one in expected]


@pytest.mark.parametrize(
    ("grammar", "text", "expected"),
    [
        (EXPERIMENTS, "creation_time > 5 AND name ILIKE 'x%'", "creation_time > 5, name ILIKE x%"),
        (MODELS, "tags.`mlflow.prompt.is_prompt` = 'true'", "mlflow.prompt.is_prompt = true"),
        (MODEL_VERSIONS, "version_number >= 2 AND run_id IN ('a')", "version_number >= 2, run_id IN ('a',)"),
        (LOGGED_MODELS, "creation_time > 3 AND params.a IN ('x')", "creation_timestamp > 3, a IN ('x',)"),
        (LOGGED_MODELS, "model.name = 'm' AND metrics.f1 > 0.5", "name = m, f1 > 0.5"),
        (TRACES, "trace.timestamp > 3 AND state = 'OK'", "timestamp_ms > 3, status = OK"),
        (TRACES, "span.attributes.model.id RLIKE '^gpt'", "attributes.model.id RLIKE ^gpt"),
        (TRACES, "feedback.correct = 'true' AND text LIKE '%hi%'", "correct = true, text LIKE %hi%"),
        (TRACES, "request_metadata.`mlflow.user` IS NULL", "mlflow.user IS NULL None"),
    ],
)
def test_each_entity_has_its_own_grammar(grammar: Grammar, text: str, expected: str) -> None:
    """What can be filtered by, and under which names, is the entity's."""
    assert ", ".join(f"{one.key} {one.operator} {one.value}" for one in parse_filter(text, grammar)) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("metric.acc >= 0.94; metrics.rmse < 1", "Search filter contained multiple expression"),
        *((text, "Invalid entity type") for text in ("m.acc >= 0.94", "p.model >= 'LR'", "attri.x != 1", "a.x != 1")),
        *((text, "Invalid attribute key") for text in ("acc >= 0.94", "model >= 'LR'", "attribute.start != 1")),
        *((text, "Invalid attribute key") for text in ("attribute.experiment_id != 1", "attribute._status != 'R'")),
        *((text, "Invalid attribute key") for text in ("attribute.lifecycle_stage = 'A'", "foo is null")),
        ("metrics.A > 0.1 OR params.B = 'LR'", "Invalid clause(s) in filter string"),
        ("metrics.A > 0.1 NAND params.B = 'LR'", "Invalid clause(s) in filter string"),
        ("metrics.A > 0.1 AND (params.B = 'LR')", "Invalid clause(s) in filter string"),
        ("`metrics.A > 0.1", "Invalid clause(s) in filter string"),
        ("dummy`.A > 0.1", "Invalid clause(s) in filter string"),
        ("attribute.status = true", "Invalid clause(s) in filter string"),
        ("params.'acc = LR", "Invalid clause(s) in filter string"),
        ("params.acc = 'LR", "Invalid clause(s) in filter string"),
        ("params.acc = LR'", "Invalid clause(s) in filter string"),
        ("params.acc = \"LR'", "Invalid clause(s) in filter string"),
        ("tags.acc = = 'LR'", "Invalid clause(s) in filter string"),
        ("attribute.status IS 'RUNNING'", "Invalid clause(s) in filter string"),
        ("params.acc LR !=", "Invalid clause(s) in filter string"),
        ("metric.acc !=", "Invalid clause(s) in filter string"),
        ("metric.acc > 1 AND", "Invalid clause(s) in filter string"),
        ("tags.a = 'x' -- y", "Invalid clause(s) in filter string"),
        ("dataset.status = 'true'", "Invalid dataset key"),
        ("metrics.acc IS NULL", "IS NULL / IS NOT NULL is only supported for tags and params"),
        ("attribute.status IS NULL", "IS NULL / IS NOT NULL is only supported for tags and params"),
        ("metric.model = '5'", "Expected numeric value type for metric"),
        ("metrics.acc != metrics.acc", "Expected numeric value type for metric"),
        ("start_time > '5'", "Expected numeric value type for numeric attribute: start_time"),
        ("params.acc = 5", "Expected a quoted string value for param"),
        ("tags.acc = 5", "Expected a quoted string value for tag"),
        ("attribute.status = 1", "Expected a quoted string value for attributes"),
        ("1.0 > metrics.acc", "Expected 'Identifier' found"),
        ("1==2", "Expected 'Identifier' found"),
        ("params.acc = LR", "value is either not quoted or unidentified quote types"),
        ("params.acc = `LR`", "value is either not quoted or unidentified quote types"),
        ("metrics.abc ~= 1.0", "Invalid comparator '~='"),
        ("params.abc > 'x'", "Invalid comparator '>'"),
        ("tags.abc NOT LIKE 'x'", "Invalid comparator 'NOT LIKE'"),
        ("start_time LIKE 1234", "Invalid comparator 'LIKE'"),
        ("tags.a RLIKE 'x'", "Invalid comparator 'RLIKE'"),
        ("run_id = ('a')", "Invalid comparator '='"),
        ("status IN ('a')", "Only the 'run_id' attribute supports comparison with a list"),
        ("run_id IN (1, 2)", "expected string value, punctuation, or whitespace, but got different type in list"),
        ("run_id IN ()", "expected a non-empty list of string values, but got empty list"),
        ("run_id IN ('a' 'b')", "expected a non-empty list of string values, but got ill-formed list"),
        ("tags.a = '\ud800'", "Invalid clause(s) in filter string"),
        (" AND ".join(["tags.a = 'b'"] * 201), "Invalid filter"),
    ],
)
def test_refusals_are_worded_as_clients_expect(text: str, message: str) -> None:
    """What cannot be read or is not there is refused in the words that clients' own tests look for."""
    assert message in told(text)


NEVER = ["(a+)+b", "(", "a**", "[[:x:]]", r"\1", "(?=a)", ".*a.*b.*c", "a{5", "a{,5}", "(a|b)*", "(a+){9}", "[a--b]"]


@pytest.mark.parametrize(
    ("grammar", "text", "message"),
    [
        (MODELS, "run_id = 'x'", "Invalid attribute key 'run_id' specified. Valid keys are '{'name'}'"),
        (MODELS, "name > 'x'", "Invalid comparator for attribute: >"),
        (MODELS, "name = 5", "Expected a quoted string value or a list of quoted string values for attributes"),
        (MODELS, "metrics.a > 1", "Invalid entity type 'metrics'. Valid entity types are"),
        (EXPERIMENTS, "name IS NULL", "IS NULL / IS NOT NULL is only supported for tags"),
        (LOGGED_MODELS, "metrics.a LIKE 5", "Invalid comparison operator for metrics.a: 'LIKE'"),
        (TRACES, "text = 'x'", "Invalid comparator '='"),
        (TRACES, "span.colour = 'x'", "Invalid span key 'colour'"),
        *((TRACES, f"name RLIKE '{form}'", "Invalid RLIKE pattern") for form in NEVER),
    ],
)
def test_other_entities_refuse_in_their_own_words(grammar: Grammar, text: str, message: str) -> None:
    """The registry, logged models and traces have messages of their own; patterns that never end are refused."""
    assert message in told(text, grammar)


def test_a_refusal_names_the_place_and_the_way_out() -> None:
    """An error says at which character it is, and what could have been meant."""
    with pytest.raises(BadInput) as caught:
        parse_filter("metrics.a > 1 AND attributes.statu = 'x'", RUNS)
    assert caught.value.where == "character 19"
    assert "did you mean 'status'?" in caught.value.fix


def test_orders_are_read() -> None:
    """Items name a key and a direction, ascending by itself."""
    items = ["metrics.`Mean Error` DESC", "start_time", 'params."p" asc', "tags.a.b", "attribute.`Run Name`"]
    assert parse_order(items, RUNS) == [
        Order("metric", "Mean Error", False),
        Order("attribute", "start_time"),
        Order("param", "p"),
        Order("tag", "a.b"),
        Order("attribute", "run_name"),
    ]
    assert parse_order(["timestamp DESC"], MODELS) == [Order("attribute", "last_updated_timestamp", False)]
    assert parse_order(["execution_time"], TRACES) == [Order("attribute", "execution_time_ms")]


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ("m.acc", "Invalid entity type"),
        ("acc", "Invalid attribute key"),
        ("attribute.experiment_id", "Invalid attribute key"),
        ("`metrics.A", "Invalid order_by clause"),
        ("`metrics.A`", "Invalid entity type"),
        ("metrics.A != 1", "Invalid order_by clause"),
        ("params.my_param ", "Invalid order_by clause"),
        ("", "Invalid order_by clause"),
        ("attribute.run_id ACS", "Invalid ordering key"),
        ("run_id DESC blah", "Invalid order_by clause"),
        ("datasets.name", "Invalid order_by entity type"),
    ],
)
def test_orders_that_mean_nothing_are_refused(item: str, message: str) -> None:
    """Each refusal begins as clients expect it to."""
    with pytest.raises(BadInput, match=message):
        parse_order([item], RUNS)


def test_an_order_names_each_key_once() -> None:
    """The same key twice is refused, and so is a registry key that is not sorted by."""
    with pytest.raises(BadInput, match="duplicate fields"):
        parse_order(["created", "start_time DESC"], RUNS)
    with pytest.raises(BadInput, match="Invalid order by key 'creation_timestamp' specified"):
        parse_order(["creation_timestamp DESC"], MODELS)


def quoted(text: str) -> str:
    """Return a text as a value."""
    return "'" + text.replace("'", "''") + "'"


def rendered(one: Comparison) -> str:
    """Return a condition as a client may write it."""
    key = one.key.replace("`", "``")
    head = f"{one.kind}.`{key}` {one.operator}"
    if one.value is None:
        return head
    if isinstance(one.value, tuple):
        return f"{head} ({', '.join(quoted(text) for text in one.value)})"
    return f"{head} {quoted(one.value) if isinstance(one.value, str) else repr(one.value).replace('inf', '1e999')}"


TEXT = st.text(st.characters(codec="utf-8"), max_size=12)


@st.composite
def comparisons(draw: st.DrawFn, grammar: Grammar, keys: Sequence[str] = (), texts: Any = TEXT) -> Comparison:
    """Draw a condition that the grammar allows."""
    kind = draw(st.sampled_from([kind for kind in grammar.kinds if any(f.operators for f in kind.keys.values())]))
    pattern = draw(st.sampled_from([key for key, field in kind.keys.items() if field.operators]))
    key = pattern
    if pattern.endswith("*"):
        key = pattern[:-1] + draw(st.sampled_from(keys) if keys else TEXT)
    field = kind.field(key)
    assert field is not None
    operator = draw(st.sampled_from([one for one in field.operators if one != "RLIKE"]))
    value: Any = None
    if operator in ("IN", "NOT IN"):
        value = tuple(draw(st.lists(texts, min_size=1, max_size=3)))
    elif not operator.startswith("IS"):
        number = st.floats(allow_nan=False) if kind.name == "metric" else st.integers(-(10**17), 10**17)
        value = draw(number if field.type == "number" else texts)
    return Comparison(kind.name, key, operator, value)


@given(st.data())
def test_what_is_written_is_read_again(data: st.DataObject) -> None:
    """Any conditions, written as a client would, are read as what they were."""
    grammar = data.draw(st.sampled_from(GRAMMARS))
    wanted = data.draw(st.lists(comparisons(grammar), max_size=3))
    assert parse_filter(" AND ".join(rendered(one) for one in wanted), grammar) == wanted


_BITS = "metrics. tags. params. a `a b` \"x\" 'y' = != < > LIKE IN NOT IS NULL AND ( ) , ; 1 -2.5e3 run_id OR -- ' `"
_HOSTILE = st.one_of(
    st.text(max_size=40), st.lists(st.sampled_from(_BITS.split(" ")), max_size=9).map(" ".join), st.text("'\"`\\.a=")
)


@settings(max_examples=300)
@given(_HOSTILE, st.sampled_from(GRAMMARS))
def test_hostile_text_is_refused_and_nothing_else(text: str, grammar: Grammar) -> None:
    """Whatever the text, it is read or refused as bad input; none of it gets into the SQL."""
    for read in (lambda: parse_filter(text, grammar), lambda: parse_order([text], grammar)):
        try:
            found = read()
        except BadInput:
            continue
        for one in found:
            assert _statement(one, grammar) == _statement(_renamed(one, grammar), grammar)


def _renamed(one: Comparison | Order, grammar: Grammar) -> Comparison | Order:
    """Return the same with other words of the client's."""
    fixed = next(one.key in kind.keys for kind in grammar.kinds if kind.name == one.kind)
    key = one.key if fixed else f"attributes.{one.kind}"
    if isinstance(one, Order):
        return Order(one.kind, key, one.ascending)
    value = ("v",) * len(one.value) if isinstance(one.value, tuple) else one.value
    return Comparison(one.kind, key, one.operator, "v" if isinstance(value, str) else value)


def _statement(one: Comparison | Order, grammar: Grammar) -> str:
    attributes = next(kind for kind in grammar.kinds if kind.name == "attribute")
    rows = {kind.name: Rows("t", "t.s", name="t.n", value="t.v") for kind in grammar.kinds}
    columns = Columns("r.id", {key: Column("r.c") for key in attributes.keys}, rows)
    if isinstance(one, Order):
        return order_sql([one], columns).select
    sql, params = where_sql([one], columns)
    assert sql.count("?") == len(params)
    return sql


# Against a plain loop, on both databases ------------------------------------------------------------------------------

WORDS = ["", "a", "A", "ab", "aB", "a%b", "a_b", "b\\c", "B\\C", "é", "É", "a\nb", "ab\n", "it's", "aab", "abab"]
PATTERNS = [*WORDS, "%", "a%", "%b", "_", "a_", "%a%b%", "a%a%b", "b\\%", "_\n_", "%_b", "É%"]
NUMBERS = [-math.inf, -1.5, -0.0, 0.0, 0.1, 2.0, 2.0, 1e300, math.inf, math.nan]
KEYS = ["k", "it's", 'q"`']
COLUMNS = Columns(
    "r.id",
    {
        "run_id": Column("r.id", nullable=False),
        "run_name": Column("r.name"),
        "status": Column("r.status", nullable=False),
        "user_id": Column("r.name"),
        "artifact_uri": Column("r.status", nullable=False),
        "start_time": Column("r.started", "number", nullable=False),
        "end_time": Column("r.ended", "number"),
    },
    {
        "metric": Rows("s_metric m", "m.subject", name="m.name", value="m.value", kind="m.kind"),
        "param": Rows("s_text p", "p.kind='param' AND p.subject", name="p.name", value="p.value"),
        "tag": Rows("s_text p", "p.kind='tag' AND p.subject", name="p.name", value="p.value"),
        "dataset": Rows("s_data d", "d.subject", columns={"name": "d.name", "digest": "d.digest", "context": "d.name"}),
    },
    (Order("attribute", "start_time", False), Order("attribute", "run_id")),
)


class Thing:
    """A random row with all that hangs on it."""

    def __init__(self, number: int, dice: random.Random) -> None:
        self.id = f"r{number:03d}"
        self.name = dice.choice([None, *WORDS])
        self.status = dice.choice(WORDS)
        self.started = dice.randint(0, 5)
        self.ended = dice.choice([None, 1, 2, 1 << 53])
        some = [key for key in KEYS if dice.random() < 0.7]
        self.metrics = {key: dice.choice(NUMBERS) for key in some}
        self.params = {key: dice.choice(WORDS) for key in some if dice.random() < 0.7}
        self.tags = {key: dice.choice(WORDS) for key in KEYS if dice.random() < 0.6}
        self.data = [(dice.choice(WORDS), dice.choice(WORDS)) for _ in range(dice.randint(0, 2))]

    def write(self, tx: Tx, dice: random.Random) -> None:
        """Write its rows; an infinity with or without its number, as there are both."""
        row = (self.id, self.name, self.status, self.started, self.ended)
        tx.execute("INSERT INTO s_run(id, name, status, started, ended) VALUES (?,?,?,?,?)", row)
        for key, value in self.metrics.items():
            number, kind = split_value(value)
            number = dice.choice([None, value + 0.0]) if kind in ("+inf", "-inf") else number
            number = dice.choice([None, 0.0]) if kind == "nan" else number
            metric = (self.id, key, number, kind)
            tx.execute("INSERT INTO s_metric(subject, name, value, kind) VALUES (?,?,?,?)", metric)
        for kind, texts in (("param", self.params), ("tag", self.tags)):
            for key, text in texts.items():
                tx.execute(
                    "INSERT INTO s_text(subject, kind, name, value) VALUES (?,?,?,?)", (self.id, kind, key, text)
                )
        for name, digest in self.data:
            tx.execute("INSERT INTO s_data(subject, name, digest) VALUES (?,?,?)", (self.id, name, digest))

    def values(self, kind: str, key: str) -> list[Any]:
        """Return what it has of a key."""
        if kind == "dataset":
            return [digest if key == "digest" else name for name, digest in self.data]
        of: Any = {"metric": self.metrics, "param": self.params, "tag": self.tags}.get(kind)
        if of is not None:
            return [of[key]] if key in of else []
        names = {"run_id": "id", "run_name": "name", "user_id": "name", "artifact_uri": "status"}
        names |= {"start_time": "started", "end_time": "ended"}
        value = getattr(self, names.get(key, key))
        return [] if value is None else [value]

    def matches(self, one: Comparison) -> bool:
        """Say whether a condition holds."""
        values = self.values(one.kind, one.key)
        if one.value is None:
            return bool(values) == (one.operator == "IS NOT NULL")
        return any(_holds(value, one.operator, one.value) for value in values)


def _holds(value: Any, operator: str, other: Any) -> bool:
    if operator in ("LIKE", "ILIKE"):
        form = "".join({"%": ".*", "_": "."}.get(sign, re.escape(sign)) for sign in other)
        flags = re.DOTALL | (re.IGNORECASE | re.ASCII if operator == "ILIKE" else 0)
        return re.fullmatch(form, value, flags) is not None
    if operator == "RLIKE":
        return re.search(re.sub(r"\$$", r"\\Z", other), value, re.DOTALL) is not None
    answers: dict[str, bool] = {"=": value == other, "!=": value != other}
    if operator in answers:
        return answers[operator]
    if operator in ("IN", "NOT IN"):
        return bool((value in other) == (operator == "IN"))
    return bool({"<": value < other, "<=": value <= other, ">": value > other, ">=": value >= other}[operator])


def _compare(orders: Sequence[Order]) -> Any:
    """Return a sort key: each order in turn, what is missing last and NaN before it."""

    def rank(thing: Thing, order: Order) -> tuple[int, Any]:
        values = thing.values(order.kind, order.key)
        if not values:
            return 2, 0
        return (1, 0) if values[0] != values[0] else (0, values[0])

    def compare(one: Thing, other: Thing) -> int:
        for order in orders:
            (a, x), (b, y) = rank(one, order), rank(other, order)
            if (a, x) != (b, y):
                return (-1 if a < b else 1) if a != b else (-1 if (x < y) == order.ascending else 1)
        return 0

    return cmp_to_key(compare)


@pytest.fixture(autouse=True)
def functions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give each session of SQLite what LIKE is written as."""
    opened = sqlite.SqliteSession.__init__

    def opening(self: sqlite.SqliteSession, path: Path, **options: Any) -> None:
        opened(self, path, **options)
        for name, function in search.FUNCTIONS.items():
            self.connection.create_scalar_function(name, function, 2, deterministic=True)

    monkeypatch.setattr(sqlite.SqliteSession, "__init__", opening)


@pytest.fixture
def things(ledger: Ledger) -> list[Thing]:
    """Return random rows that lie in the ledger's database too."""
    dice = random.Random(7)
    made = [Thing(number, dice) for number in range(40)]

    text = "TEXT" if ledger.where.endswith(".db") else 'TEXT COLLATE "C"'  # as the ledger's own tables have it

    def fill(tx: Tx) -> None:
        tx.execute(f"CREATE TABLE s_run (id {text}, name {text}, status {text}, started BIGINT, ended BIGINT)")
        tx.execute(f"CREATE TABLE s_metric (subject {text}, name {text}, value DOUBLE PRECISION, kind {text})")
        tx.execute(f"CREATE TABLE s_text (subject {text}, kind {text}, name {text}, value {text})")
        tx.execute(f"CREATE TABLE s_data (subject {text}, name {text}, digest {text})")
        for thing in made:
            thing.write(tx, dice)

    ledger.write(fill, what="fill")
    return made


def _patient(examples: int) -> settings:
    return settings(max_examples=examples, deadline=None, suppress_health_check=list(HealthCheck))


def test_both_databases_find_what_a_loop_finds(ledger: Ledger, things: list[Thing]) -> None:
    """Any conditions find the same rows in SQL as in Python: cases, wildcards, infinities, NaN and what is missing."""

    @_patient(250)
    @given(st.lists(comparisons(RUNS, KEYS, st.sampled_from(PATTERNS)), min_size=1, max_size=3), st.data())
    def check(wanted: list[Comparison], data: st.DataObject) -> None:
        sharper = [_sharpened(one, data) for one in wanted]
        sql, params = where_sql(parse_filter(" AND ".join(rendered(one) for one in sharper), RUNS), COLUMNS)
        found = {row[0] for row in ledger.query(f"SELECT r.id FROM s_run r WHERE {sql}", params)}
        assert found == {thing.id for thing in things if all(thing.matches(one) for one in sharper)}

    check()


def _sharpened(one: Comparison, data: st.DataObject) -> Comparison:
    """Return a number's condition with a number that is there."""
    if isinstance(one.value, float):
        return Comparison(one.kind, one.key, one.operator, data.draw(st.sampled_from(NUMBERS[:-1])))
    if isinstance(one.value, int):
        return Comparison(one.kind, one.key, one.operator, data.draw(st.integers(-1, 6)))
    return one


@pytest.mark.parametrize(
    "pattern", ["^a", "b$", "^a.*b$", "a_?b", "[A-Z]", r"\\", "^(a|b)", "a+b", "a.b", r"^\w\w$", "^.{2}$"]
)
def test_both_databases_read_regular_expressions_alike(ledger: Ledger, things: list[Thing], pattern: str) -> None:
    """RLIKE searches within the text, and tells cases apart."""
    [one] = parse_filter(f"name RLIKE '{pattern}'", TRACES)
    sql, params = where_sql([one], Columns("r.id", {"name": Column("r.status")}))
    found = {row[0] for row in ledger.query(f"SELECT r.id FROM s_run r WHERE {sql}", params)}
    words = [word for word in WORDS if _holds(word, "RLIKE", pattern)]
    assert found == {thing.id for thing in things if thing.status in words}


ORDERS = st.lists(
    st.builds(Order, st.sampled_from(["metric", "param", "tag"]), st.sampled_from(KEYS), st.booleans())
    | st.builds(Order, st.just("attribute"), st.sampled_from(list(COLUMNS.attributes)), st.booleans()),
    max_size=3,
    unique_by=lambda order: (order.kind, order.key),
)


def test_pages_of_both_databases_are_in_a_loop_s_order(ledger: Ledger, things: list[Thing]) -> None:
    """Pages from token to token give each row once, missing values last, NaN before them, ties by time and id."""

    @_patient(60)
    @given(ORDERS, st.integers(1, 17))
    def check(orders: list[Order], size: int) -> None:
        sorting, query = order_sql(orders, COLUMNS), query_digest([order.key for order in orders])
        inner = f"SELECT r.id, {sorting.select} FROM s_run r"
        seen: list[str] = []
        after: str | None = None
        while after is None or after:
            sql, params = after_sql(sorting, Token.decode(after, query)) if after else ("1=1", [])
            paged = f"SELECT * FROM ({inner}) AS page WHERE {sql} ORDER BY {sorting.order} LIMIT ?"
            rows = ledger.query(paged, [*sorting.params, *params, size])
            seen += [row[0] for row in rows]
            after = Token(tuple(rows[-1][1:]), query).encode() if len(rows) == size else ""
        everything = _compare([*orders, Order("attribute", "start_time", False), Order("attribute", "run_id")])
        assert seen == [thing.id for thing in sorted(things, key=everything)]

    check()


def test_a_default_order_is_read_off_an_index(tmp_path: Path) -> None:
    """A page of runs in their usual order does not sort all there are."""
    session = sqlite.SqliteSession(tmp_path / "x.db", writes=True)
    session.execute("CREATE TABLE run (id TEXT NOT NULL, at INTEGER NOT NULL)")
    session.execute("CREATE INDEX run_list ON run (at DESC, id)")
    ties = (Order("attribute", "start_time", False), Order("attribute", "run_id"))
    attributes = {"start_time": Column("r.at", "number", False), "run_id": Column("r.id", nullable=False)}
    sorting = order_sql([], Columns("r.id", attributes, ties=ties))
    sql, params = after_sql(sorting, Token((5, "x"), ""))
    page = (
        f"SELECT * FROM (SELECT r.id, {sorting.select} FROM run r) AS page WHERE {sql} ORDER BY {sorting.order} LIMIT 9"
    )
    plan = " ".join(str(row[3]) for row in session.execute(f"EXPLAIN QUERY PLAN {page}", params))
    session.close()
    assert plan == "SEARCH r USING COVERING INDEX run_list (at<?)"


def test_what_is_not_kept_is_refused() -> None:
    """A kind or attribute without a place in the database is bad input, not a fault."""
    with pytest.raises(BadInput, match="not kept here"):
        where_sql([Comparison("metric", "a", ">", 1.0)], Columns("r.id", {}))
    with pytest.raises(BadInput, match="not kept here"):
        order_sql([Order("attribute", "status")], Columns("r.id", {}))


@given(st.lists(st.none() | st.integers(-(1 << 63), (1 << 63) - 1) | st.floats(allow_nan=False) | TEXT), TEXT)
def test_tokens_come_back_as_they_were(values: list[Any], query: str) -> None:
    """A token holds numbers exactly, infinities and all, in letters that URLs take as they are."""
    text = Token(tuple(values), query).encode()
    assert re.fullmatch(r"[\w-]+", text, re.ASCII)
    assert Token.decode(text, query).values == tuple(values)


@given(st.text(max_size=30) | st.binary(max_size=30).map(lambda data: base64.urlsafe_b64encode(data).decode()))
def test_what_is_no_token_is_refused(text: str) -> None:
    """Text that no search gave is bad input."""
    with pytest.raises(BadInput, match="Invalid page token"):
        Token.decode(text, "q")


@pytest.mark.parametrize("values", [(), (1,), ("1", "r"), (1, 2), (math.nan, "r"), (1 << 70, "r")])
def test_a_forged_token_does_not_reach_the_database(values: tuple[Any, ...]) -> None:
    """Values that the sorted columns cannot have are refused before the database sees them."""
    ties = (Order("attribute", "start_time"), Order("attribute", "run_id"))
    attributes = {"start_time": Column("r.at", "number", False), "run_id": Column("r.id", nullable=False)}
    sorting = order_sql([], Columns("r.id", attributes, ties=ties))
    with pytest.raises(BadInput, match="Invalid page token: it does not fit"):
        after_sql(sorting, Token(values, "q"))


def test_a_token_belongs_to_its_query() -> None:
    """A token of another filter or order is refused."""
    text = Token((1,), query_digest("metrics.a > 1", ["start_time"])).encode()
    with pytest.raises(BadInput, match="belongs to another query"):
        Token.decode(text, query_digest("metrics.a > 2", ["start_time"]))


def test_a_long_pattern_ends_soon() -> None:
    """Patterns that send other matchers back and forth for ever do not."""
    assert search.FUNCTIONS["textlike"]("a" * 5_000, "%a" * 60 + "%b%") is False
    assert search.FUNCTIONS["texticlike"]("AB" * 2_000 + "c", "%a%b" * 60 + "%C") is True
    assert told("tags.a = '" + "''" * 100_000) is not None
