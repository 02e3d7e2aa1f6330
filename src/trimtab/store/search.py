r"""The filter language of searches, as tracking clients speak it: read into comparisons, written as SQL.

A filter is ``metrics.loss < 0.5 AND tags.`my team` LIKE 'fraud%'``. It is read by a grammar, which knows every column
there is, and what the client wrote reaches the database as bound parameters only. Each comparison with a metric, param
or tag becomes one EXISTS, so that a search stays linear in what is searched.

LIKE, ILIKE and RLIKE are the functions ``textlike``, ``texticlike`` and ``textregexeq``: PostgreSQL has them under its
own operators, and a session of SQLite gets them from ``FUNCTIONS``. One text thus runs on both, LIMIT and keyset pages
stay in the database, and LIKE tells cases apart on SQLite as well, whose own operator does not and whose GLOB
PostgreSQL lacks. ``\`` is an ordinary character in a pattern; ILIKE folds the letters of ASCII.
"""

from __future__ import annotations

import base64
import hashlib
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache

import msgspec
from msgspec import Struct

from trimtab.core.errors import BadInput, closest
from trimtab.store.engine import Value

_FUNCTIONS = {"LIKE": "textlike", "ILIKE": "texticlike", "RLIKE": "textregexeq"}
_LISTS, _NULLS = ("IN", "NOT IN"), ("IS NULL", "IS NOT NULL")
_WORDS: dict[str, tuple[str, ...]] = {
    "number": ("=", "!=", "<", "<=", ">", ">="),
    "text": ("=", "!=", "LIKE", "ILIKE"),
    "traced": ("=", "!=", "LIKE", "ILIKE", "RLIKE"),
    "like": ("LIKE", "ILIKE"),
    "equal": ("=",),
    "in": ("IN",),
    "lists": _LISTS,
    "nulls": _NULLS,
    "sorted": (),
    "unsorted": (),
}
_PART = r"(?:`(?:[^`]|``)*`(?!`)|\"(?:[^\"]|\"\")*\"(?!\")|[\w$@#]+)"
_TOKEN = re.compile(
    r"(?P<space>\s+)"
    r"|(?P<text>'(?:[^']|'')*'(?!'))"
    r"|(?P<number>-?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?(?![\w.]))"
    rf"|(?P<name>(?![0-9]){_PART}(?:\.{_PART})*)"
    r"|(?P<operator>[<>=!~]+)"
    r"|(?P<mark>[(),;])"
)
_ONE_PART, _STRING = re.compile(_PART), re.compile(r'"(?:[^"]|"")*"')
_VALUES = ("text", "number", "name")
_LISTING = "While parsing a list in the query,"
_TYPES: dict[str, tuple[type, ...]] = {"rank": (int,), "text": (str, type(None)), "number": (int, float, type(None))}


class Comparison(Struct, frozen=True):
    """One condition: a key of a kind, without quotes or alias, an operator in capitals, and its value if any."""

    kind: str
    key: str
    operator: str
    value: str | int | float | tuple[str, ...] | None


class Order(Struct, frozen=True):
    """What to sort by; see ``Comparison``."""

    kind: str
    key: str
    ascending: bool = True


class Field(Struct, frozen=True):
    """What a key may be compared with by filters, by nothing where it is only sorted by."""

    type: str
    operators: tuple[str, ...]
    ordered: bool


class Kind(Struct, frozen=True):
    """A kind of things that have keys, of which one that ends with ``*`` stands for all that start so."""

    name: str
    prefixes: tuple[str, ...]
    keys: Mapping[str, Field]

    def field(self, key: str) -> Field | None:
        """Return what the key is like, or None if there is none."""
        known = (field for name, field in self.keys.items() if name[-1] == "*" and key.startswith(name[:-1]))
        return self.keys[key] if key in self.keys and key[-1:] != "*" else next(known, None)


class Grammar(Struct, frozen=True):
    """What can be said about one sort of entity, and how clients are told of what cannot.

    One kind is called ``attribute`` and needs no prefix; ``aliases`` are other names of attributes. The messages are
    for a prefix that is none, an operator that does not fit, an attribute's value that is no text, and one to sort by.
    """

    kinds: tuple[Kind, ...]
    aliases: Mapping[str, str] = {}
    stranger: str = "Invalid entity type '{prefix}'. Valid values are {prefixes}"
    refusal: str = "Invalid comparator '{operator}' not one of '{operators}'"
    unquoted: str = "Expected a quoted string value for attributes. Got value {value}"
    unsorted: str = "Invalid attribute key '{key}' specified. Valid keys are '{keys}'"


def kinds(table: str) -> tuple[Kind, ...]:
    """Read a kind from each line: its names, and keys with the words that tell what those may be compared with."""
    kinds = []
    for names, _, rest in (line.partition(":") for line in table.strip().splitlines()):
        keys: dict[str, Field] = {}
        for group in rest.split(";"):
            words = [word for word in group.split() if word in _WORDS]
            operators = tuple(operator for word in words for operator in _WORDS[word])
            field = Field("number" if "number" in words else "text", operators, "unsorted" not in words)
            keys |= dict.fromkeys((word.strip("$") for word in group.split() if word not in _WORDS), field)
        kinds.append(Kind(names.split()[0], tuple(names.split()), keys))
    return tuple(kinds)


RUNS = Grammar(
    kinds("""
    metric metrics: * number
    tag tags: * text nulls
    param params parameter parameters: * text nulls
    attribute attributes attr run: run_name status artifact_uri user_id text; start_time end_time number; \
run_id text lists
    dataset datasets: name digest context text lists unsorted"""),
    dict.fromkeys(("created", "Created", "Start Time"), "start_time")
    | dict.fromkeys(("run name", "Run name", "Run Name"), "run_name"),
)
"""Runs; ``lifecycle_stage`` is no attribute of filters, clients have an argument of its own for it."""
EXPERIMENTS = Grammar(
    kinds("""
    attribute: name text; creation_time last_update_time number; experiment_id sorted
    tag tags: * text nulls unsorted"""),
    stranger="Invalid entity type '{prefix}'. Valid entity types are {prefixes}",
)
MODELS = Grammar(
    kinds("""
    attribute: name text; last_updated_timestamp sorted
    tag tags: * text unsorted"""),
    {"timestamp": "last_updated_timestamp"},
    stranger=EXPERIMENTS.stranger,
    refusal="Invalid comparator for {kind}: {operator}",
    unquoted="Expected a quoted string value or a list of quoted string values for attributes. Got value {value}",
    unsorted="Invalid order by key '{key}' specified. Valid keys are '{keys}'",
)
"""Registered models."""
MODEL_VERSIONS = Grammar(
    kinds("""
    attribute: name text; version_number number; creation_timestamp last_updated_timestamp sorted; \
run_id text in unsorted; source_path text unsorted
    tag tags: * text unsorted"""),
    stranger=EXPERIMENTS.stranger,
    refusal=MODELS.refusal,
    unquoted=MODELS.unquoted,
)
LOGGED_MODELS = Grammar(
    kinds("""
    metric metrics: * number
    attribute attributes attr model models: name model_id model_type status source_run_id \
experiment_id text lists; creation_timestamp last_updated_timestamp number
    param params parameter parameters: * text lists unsorted
    tag tags: * text lists unsorted"""),
    {"creation_time": "creation_timestamp", "last_updated_time": "last_updated_timestamp"},
    stranger="Invalid entity type: '{prefix}'. Expected one of {prefixes}",
    refusal="Invalid comparison operator for {kind}s.{key}: '{operator}'. Expected one of {operators}",
)
TRACES = Grammar(
    kinds("""
    tag tags: * traced nulls
    metadata request_metadata: * traced nulls
    feedback: * traced nulls unsorted
    expectation: * traced nulls unsorted
    assessment: * traced nulls unsorted
    attribute attributes trace: request_id client_request_id status name run_id traced lists; \
timestamp_ms execution_time_ms end_time_ms number; experiment_id sorted; prompt equal unsorted; $text like unsorted
    span: name type status attributes.* traced lists unsorted; content like unsorted
    issue: id equal unsorted"""),
    {"timestamp": "timestamp_ms", "execution_time": "execution_time_ms", "end_time": "end_time_ms"}
    | {"state": "status", "trace_id": "request_id"},
    unquoted=MODELS.unquoted,
)


def parse_filter(text: str, grammar: Grammar) -> list[Comparison]:
    """Return the conditions that a filter joins by AND, none for an empty one.

    Raises:
        BadInput: it cannot be read, or says what the grammar does not allow; ``where`` is the character.
    """
    tokens = _tokens(text, "Invalid clause(s) in filter string: ")
    found = [_checked(*clause, grammar) for clause in _clauses(tokens)]
    if len(tokens) > 25_000 or len(found) > 200:
        raise _bad(f"Invalid filter: {len(found)} conditions with {len(tokens)} words", 0, "at most 200 and 25000")
    return found


def parse_order(items: Sequence[str], grammar: Grammar) -> list[Order]:
    """Return what to sort by, from items such as ``metrics.loss DESC``.

    Raises:
        BadInput: an item cannot be read, is not sorted by, or comes twice; ``where`` is the character.
    """
    orders: list[Order] = []
    for item in items:
        name, word, *rest = _tokens(item, f"Invalid order_by clause {item!r}. Could not be parsed: ")
        if name.kind != "name" or word.kind not in ("name", "end") or rest[0].text or item != item.strip():
            raise _bad(f"Invalid order_by clause {item!r}. Could not be parsed.", 0, "write metrics.`my loss` DESC")
        if word.word not in ("ASC", "DESC", ""):
            raise _bad(f"Invalid ordering key in order_by clause {item!r}.", word.at, "write ASC or DESC")
        orders.append(_ordered(name, word.word != "DESC", grammar))
    if len({(order.kind, order.key) for order in orders}) < len(orders) or len(orders) > 20:
        raise _bad(f"`order_by` contains duplicate fields: {list(items)[:30]}", 0, "name each once, and 20 at most")
    return orders


class _Token(Struct, frozen=True):
    kind: str
    text: str
    at: int
    word: str


def _bad(message: str, at: int, fix: str = "") -> BadInput:
    return BadInput(message, where=f"character {at + 1}", fix=fix)


def _tokens(text: str, message: str) -> list[_Token]:
    """Return the tokens of a text, ended by a few empty ones; the message tells what cannot be one."""
    found: list[_Token] = []
    at = 0
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None or (not match[0].isascii() and match[0].encode(errors="replace").decode() != match[0]):
            fix = "close the quote" if text[at] in "'\"`" else "put the key in backticks, and a text in quotes"
            raise _bad(message + ascii(text[at : at + 200]), at, fix)
        if match.lastgroup != "space":
            word = match[0].upper() if match.lastgroup == "name" else ""
            found.append(_Token(str(match.lastgroup), match[0], at, word))
        at = match.end()
    return found + [_Token("end", "", at, "")] * 4


def _clauses(tokens: list[_Token]) -> Iterator[tuple[_Token, str, Sequence[_Token], bool]]:
    """Read the whole text by its form alone; what the names mean comes after."""
    at = 0
    while tokens[at].kind != "end":
        if at and tokens[at].text == ";" and tokens[at + 1].kind != "end":
            raise _bad("Search filter contained multiple expression. Provide AND-ed expression list.", tokens[at].at)
        if at and tokens[at].word != "AND":
            raise _invalid(tokens[at])
        at += bool(at)
        name, words = tokens[at], [token.word for token in tokens[at + 1 : at + 4]]
        if name.kind in ("number", "text") and tokens[at + 1].kind == "operator":
            raise _bad(f"Invalid comparison clause. Expected 'Identifier' found '{name.text}'", name.at)
        if name.kind != "name":
            raise _invalid(name if name.text else tokens[at - 1])
        if words[:2] == ["IS", "NULL"] or words == ["IS", "NOT", "NULL"]:
            at += 3 if words[1] == "NULL" else 4
            yield name, "IS NULL" if words[1] == "NULL" else "IS NOT NULL", (), False
            continue
        negated = words[0] == "NOT"
        operator = words[1] if negated else tokens[at + 1].text.upper()
        if tokens[at + 1].kind != "operator" and operator not in (*_FUNCTIONS, "IN"):
            raise _invalid(name)
        items, listed, at = _values(tokens, at + 2 + negated, listed=operator == "IN")
        yield name, f"NOT {operator}" if negated else operator, items, listed


def _values(tokens: list[_Token], start: int, *, listed: bool) -> tuple[Sequence[_Token], bool, int]:
    first, at = tokens[start], start + 1
    if first.text != "(":
        if listed or first.kind not in _VALUES or first.word in ("TRUE", "FALSE", "NULL"):
            raise _invalid(first if first.text else tokens[start - 1])
        return [first], False, at
    items: list[_Token] = []
    while tokens[at].kind in _VALUES and (not items or tokens[at - 1].text == ","):
        items.append(tokens[at])
        at += 2 if tokens[at + 1].text == "," else 1
    if tokens[at].text != ")":
        raise _bad(f"{_LISTING} expected a non-empty list of string values, but got ill-formed list.", first.at)
    return items, True, at + 1


def _invalid(token: _Token) -> BadInput:
    return _bad(f"Invalid clause(s) in filter string: '{token.text}'", token.at, "write tags.a = 'b' AND metrics.c > 1")


def _named(token: _Token, grammar: Grammar) -> tuple[Kind, str, str]:
    """Return the kind of a name, its key, and the key as it was written."""
    prefix, *parts = [_unquoted(part) for part in _ONE_PART.findall(token.text)]
    if not parts:
        prefix, parts = ("attribute", [prefix]) if "." not in token.text else (token.text.partition(".")[0], [""])
    kind, key = next((kind for kind in grammar.kinds if prefix in kind.prefixes), None), ".".join(parts)
    if kind is None:
        known = [name for kind in grammar.kinds for name in kind.prefixes]
        raise _bad(grammar.stranger.format(prefix=prefix, prefixes=known), token.at, _likely(prefix, known))
    return kind, grammar.aliases.get(key, key) if kind.name == "attribute" else key, key


def _unquoted(text: str) -> str:
    quote = text[0]
    return text[1:-1].replace(quote * 2, quote) if quote in "'\"`" else text


def _ordered(name: _Token, ascending: bool, grammar: Grammar) -> Order:
    kind, key, written = _named(name, grammar)
    field = kind.field(key)
    if field is None or not field.ordered:
        if kind.name != "attribute":
            raise _bad(f"Invalid order_by entity type '{kind.name}'", name.at, "order by an attribute")
        keys = sorted(key for key, field in kind.keys.items() if field.ordered)
        raise _bad(grammar.unsorted.format(key=written, keys=f"{{{str(keys)[1:-1]}}}"), name.at, _likely(written, keys))
    return Order(kind.name, key, ascending)


def _likely(name: str, known: Sequence[str]) -> str:
    return f"one of {', '.join(known)}{closest(name, known)}"


def _checked(name: _Token, operator: str, items: Sequence[_Token], listed: bool, grammar: Grammar) -> Comparison:
    kind, key, written = _named(name, grammar)
    field = kind.field(key)
    if field is None or not field.operators:
        keys = sorted(key for key, field in kind.keys.items() if field.operators)
        message = f"Invalid {kind.name} key '{written}' specified. Valid keys are '{{{str(keys)[1:-1]}}}'"
        raise _bad(message, name.at, _likely(key, keys))
    value = _meant(items, listed, kind, key, field, grammar) if items or listed else None
    nullable = [f"{one.name}s" for one in grammar.kinds if "*" in one.keys and "IS NULL" in one.keys["*"].operators]
    if operator in _NULLS and nullable and operator not in field.operators:
        message = f"IS NULL / IS NOT NULL is only supported for {' and '.join(nullable[:2])}"
        raise _bad(f"{message}, not for '{kind.name}' '{key}'", name.at)
    if operator not in field.operators or isinstance(value, tuple) != (operator in _LISTS):
        said = {"kind": kind.name, "key": key, "operator": operator, "operators": list(field.operators)}
        raise _bad(grammar.refusal.format(**said), name.at, f"one of {', '.join(field.operators)}")
    if operator == "RLIKE":
        _check_pattern(str(value), name.at)
    return Comparison(kind.name, key, operator, value)


def _meant(
    items: Sequence[_Token], listed: bool, kind: Kind, key: str, field: Field, grammar: Grammar
) -> str | int | float | tuple[str, ...]:
    """Return the value that is meant, of the type that the key has."""
    shown, at = ", ".join(item.text for item in items[:5]), items[0].at if items else 0
    texts = tuple(_unquoted(item.text) for item in items if item.kind == "text" or _STRING.fullmatch(item.text))
    if field.type == "number":
        if listed or items[0].kind != "number":
            what = "metric" if kind.name == "metric" else f"numeric attribute: {key}"
            raise _bad(f"Expected numeric value type for {what}. Found {shown}", at, "write a number without quotes")
        whole = kind.name == "attribute" and len(shown) <= 18 and shown.lstrip("-").isdigit()
        return int(shown) if whole else float(shown)
    if not listed:
        if texts:
            return texts[0]
        if items[0].kind == "name":
            message = "Parameter value is either not quoted or unidentified quote types used for string value"
            raise _bad(f"{message} {shown}. Use either single or double quotes.", at, "write such as 'my-value'")
    elif "IN" in field.operators:
        if not items or len(texts) < len(items):
            want = "string value, punctuation, or whitespace" if items else "a non-empty list of string values"
            got = f"different type in list: ({shown})" if items else "empty list"
            raise _bad(f"{_LISTING} expected {want}, but got {got}", at, "write such as ('a', 'b')")
        return texts
    elif kind.name == "attribute":
        able = [key for key, field in kind.keys.items() if "IN" in field.operators]
        only = f"the '{able[0]}' attribute" if len(able) == 1 else f"attributes in {{{str(able)[1:-1]}}}"
        raise _bad(f"Only {only} supports comparison with a list of quoted string values.", at)
    if kind.name == "attribute":
        raise _bad(grammar.unquoted.format(value=shown), at, "write such as 'my-value'")
    raise _bad(f"Expected a quoted string value for {kind.name} (e.g. 'my-value'). Got value {shown}", at)


def _check_pattern(pattern: str, at: int) -> None:
    """Refuse what the two databases read differently, and what takes SQLite's matcher more than a moment."""
    plain = re.sub(r"\\[dwsDWS!-/:-@\[-`{-~]", "x", pattern)
    plain = re.sub(r"\[\^?\]?[^\[\]\\]*\]", "x", plain).removesuffix("$").removesuffix(".*")
    plain = re.sub(r"(?<!\))\{[0-9]{1,2}\}", "", re.sub(r"\{[0-9]{1,2},[0-9]{0,2}\}", "+", plain))
    odd = re.search(r"[\\[{}]|\(\?(?!:)|[*+?][*+?]|\)[*+?]", plain) or re.search(r"--|&&|~~|\|\|", pattern)
    repeats = len(re.findall(r"[*+]", plain)) + (plain[:1] != "^")
    try:
        if odd or repeats > 2 or plain.count("?") > 8 or len(pattern) > 500:
            raise ValueError("it repeats too much, or is more than plain")
        re.compile(pattern)
    except (ValueError, re.error, OverflowError, RecursionError) as error:
        raise _bad(f"Invalid RLIKE pattern {pattern!r}: {error}", at, "begin it with ^, or use LIKE") from error


class Column(Struct, frozen=True):
    """What an attribute is in SQL: an expression over the row that is searched, and whether it may be NULL."""

    sql: str
    type: str = "text"
    nullable: bool = True


class Rows(Struct, frozen=True):
    """Where the keys of a kind are kept, in names of SQL such as ``m.value`` of the source ``latest m``.

    ``subject`` is the id of what is searched. ``kind`` is the column that tells which values are no plain numbers
    (``core.metric.split_value``), empty for texts; ``columns`` are those of keys with a column of their own;
    ``newest`` is what follows WHERE to sort by one row where a key has several, such as ``ORDER BY .. LIMIT 1``.
    """

    source: str
    subject: str
    name: str = ""
    value: str = ""
    kind: str = ""
    columns: Mapping[str, str] = {}
    newest: str = ""


class Columns(Struct, frozen=True):
    """Where everything is that a grammar speaks of: id of the row, attributes, other kinds, and what breaks ties."""

    id: str
    attributes: Mapping[str, Column]
    rows: Mapping[str, Rows] = {}
    ties: tuple[Order, ...] = ()


def where_sql(comparisons: Sequence[Comparison], columns: Columns) -> tuple[str, list[Value]]:
    """Return a condition for WHERE and its parameters; a NaN matches ``!=`` only, what is not there ``IS NULL`` only.

    Raises:
        BadInput: a comparison is with something that is not kept here.
    """
    pieces, params = [], list[Value]()
    for one in comparisons:
        if one.kind == "attribute" and one.key in columns.attributes:
            sql, more = _compared(columns.attributes[one.key].sql, [], one)
        else:
            rows, value, among, bound, more = _found(one, columns)
            if one.operator in _NULLS:
                sql, more = f"SELECT 1 {among}", bound
            else:
                sql, more = _compared(value, more, one)
                sql = f"({sql} OR {rows.kind}='nan')" if rows.kind and one.operator == "!=" else sql
                sql, more = f"SELECT 1 {among} AND {sql}", [*bound, *more]
            sql = f"{'NOT ' * (one.operator == 'IS NULL')}EXISTS ({sql})"
        pieces.append(sql)
        params += more
    return " AND ".join(pieces) or "1=1", params


def _found(one: Comparison | Order, columns: Columns) -> tuple[Rows, str, str, list[Value], list[Value]]:
    """Return the rows of a key, its value as an expression, what that is selected from, and parameters of both."""
    rows = columns.rows.get(one.kind)
    if rows is None or not (rows.name or one.key in rows.columns):
        raise _bad(f"Invalid {one.kind} key '{one.key}' specified: it is not kept here", 0)
    among, value = f"FROM {rows.source} WHERE {rows.subject}={columns.id}", rows.columns.get(one.key, rows.value)
    params: list[Value] = []
    if one.key not in rows.columns:
        among, params = f"{among} AND {rows.name}=?", [one.key]
    if not rows.kind:
        return rows, value, among, params, []
    of = f"CASE {rows.kind} WHEN '' THEN {value} WHEN 'nan' THEN NULL"
    value = f"{of} WHEN '-0.0' THEN 0.0 WHEN '-inf' THEN ? ELSE ? END"
    return rows, value, among, params, [-math.inf, math.inf]


def _compared(sql: str, params: list[Value], one: Comparison) -> tuple[str, list[Value]]:
    if isinstance(one.value, tuple):
        return f"{sql} {one.operator} ({','.join('?' * len(one.value))})", [*params, *one.value]
    if one.operator in _FUNCTIONS:
        pattern = str(one.value)
        pattern = pattern if one.operator == "RLIKE" else pattern.replace("\\", "\\\\")
        return f"{_FUNCTIONS[one.operator]}({sql}, ?)", [*params, pattern]
    return f"{sql} {'<>' if one.operator == '!=' else one.operator} ?", [*params, one.value]


class Sorting(Struct, frozen=True):
    """How rows are sorted: what selects columns ``sort_0``, ``sort_1`` .., what follows ORDER BY, and their types."""

    select: str
    params: list[Value]
    order: str
    terms: list[tuple[str, bool]]


def order_sql(orders: Sequence[Order], columns: Columns) -> Sorting:
    """Return how to sort: what is missing comes last and NaN before it, either way; then come the ties.

    Raises:
        BadInput: something is not kept here.
    """
    terms: list[tuple[str, list[Value], str, bool]] = []
    named = {(order.kind, order.key) for order in orders}
    for order in (*orders, *(tie for tie in columns.ties if (tie.kind, tie.key) not in named)):
        column, bound = columns.attributes.get(order.key) if order.kind == "attribute" else None, list[Value]()
        if column is None:
            rows, value, among, bound, more = _found(order, columns)
            column = Column(f"(SELECT {value} {among} {rows.newest})", "number" if rows.kind else "text", not rows.kind)
            if rows.kind:
                rank = f"(SELECT CASE {rows.kind} WHEN 'nan' THEN 1 ELSE 0 END {among} {rows.newest})"
                terms.append((f"coalesce({rank}, 2)", bound, "rank", True))
            bound = [*more, *bound]
        if column.nullable:
            terms.append((f"CASE WHEN {column.sql} IS NULL THEN 1 ELSE 0 END", bound, "rank", True))
        terms.append((column.sql, bound, column.type, order.ascending))
    return Sorting(
        ", ".join(f"{sql} AS sort_{at}" for at, (sql, *_) in enumerate(terms)),
        [value for _, bound, *_ in terms for value in bound],
        ", ".join(f"sort_{at}{'' if ascending else ' DESC'}" for at, (*_, ascending) in enumerate(terms)),
        [(type, ascending) for *_, type, ascending in terms],
    )


class Token(Struct, frozen=True):
    """Where a page ended: the values of the last row's ``sort_`` columns, and the digest of the query."""

    values: tuple[int | float | str | None, ...]
    query: str

    def encode(self) -> str:
        """Return the token as clients are given it."""
        exact = [[value.hex()] if isinstance(value, float) else value for value in self.values]
        return base64.urlsafe_b64encode(msgspec.json.encode([exact, self.query])).decode().rstrip("=")

    @classmethod
    def decode(cls, text: str, query: str) -> Token:
        """Return a token of this query.

        Raises:
            BadInput: it is no token, or one of another query.
        """
        try:
            data = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
            exact, digest = msgspec.json.decode(data, type=tuple[list[int | str | list[str] | None], str])
            values = tuple(float.fromhex("".join(value)) if isinstance(value, list) else value for value in exact)
        except (ValueError, OverflowError, msgspec.MsgspecError) as error:
            raise _bad("Invalid page token: it cannot be read", 0, "begin at the first page") from error
        if digest != query:
            raise _bad("Invalid page token: it belongs to another query", 0, "begin at the first page")
        return cls(values, digest)


def query_digest(*parts: object) -> str:
    """Return what tells a query from others: its filter, order and whatever else chooses the rows, but no limit."""
    return hashlib.sha256(msgspec.json.encode(parts, order="deterministic")).hexdigest()[:24]


def after_sql(sorting: Sorting, token: Token) -> tuple[str, list[Value]]:
    """Return the condition, over the ``sort_`` columns, of the rows that come after a token.

    Raises:
        BadInput: the token does not fit.
    """
    sql, params = "1=0", list[Value]()
    whole = (value for value in token.values if isinstance(value, int))
    fits = len(token.values) == len(sorting.terms) and all(-(1 << 63) <= value < 1 << 63 for value in whole)
    for at, ((type, ascending), value) in reversed(list(enumerate(zip(sorting.terms, token.values, strict=False)))):
        fits = fits and isinstance(value, _TYPES[type]) and value == value
        name, sign = f"sort_{at}", ">" if ascending else "<"
        if value is None:
            sql = f"({name} IS NULL AND {sql})"
        else:
            sql, params = f"({name} {sign}= ? AND ({name} {sign} ? OR {sql}))", [value, value, *params]
    if not fits:
        raise _bad("Invalid page token: it does not fit the query", 0, "begin at the first page")
    return sql, params


@lru_cache(maxsize=256)
def _form(pattern: str) -> re.Pattern[str]:
    """Return the form of a pattern of LIKE; each ``%`` but the last stops for good where what follows it is found."""
    pieces = [""]
    for escaped, plain in re.findall(r"\\(.)|([^\\])", pattern, re.DOTALL):
        if plain == "%":
            pieces.append("")
        else:
            pieces[-1] += "." if plain == "_" else re.escape(escaped or plain)
    stops = "".join(f"(?>.*?{piece})" for piece in pieces[1:-1])
    return re.compile(pieces[0] + stops + "".join(f".*{last}" for last in pieces[1:][-1:]), re.DOTALL)


def _like(text: str | None, pattern: str) -> bool | None:
    return None if text is None else _form(pattern).fullmatch(text) is not None


@lru_cache(maxsize=256)
def _regex(pattern: str) -> re.Pattern[str]:
    ends = re.sub(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]|\$", lambda found: r"\Z" if found[0] == "$" else found[0], pattern)
    return re.compile(ends, re.DOTALL | re.ASCII)


_FOLD = {upper: upper + 32 for upper in range(65, 91)}
FUNCTIONS: dict[str, Callable[..., bool | None]] = {
    "textlike": _like,
    "texticlike": lambda text, pattern: _like(text and text.translate(_FOLD), pattern.translate(_FOLD)),
    "textregexeq": lambda text, pattern: None if text is None else _regex(pattern).search(text) is not None,
}
"""What a session of SQLite has to be given under these names, each deterministic and of two arguments."""
