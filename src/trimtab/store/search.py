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
from typing import Literal

import msgspec
from msgspec import Struct

from trimtab.core.errors import BadInput, closest
from trimtab.store.engine import Value

Type = Literal["text", "number"]
_MOST = 25_000
_FUNCTIONS = {"LIKE": "textlike", "ILIKE": "texticlike", "RLIKE": "textregexeq"}


class Comparison(Struct, frozen=True):
    """One condition of a filter.

    Attributes:
        kind: ``attribute``, ``metric``, ``param``, ``tag`` or another kind of the grammar.
        key: the name within the kind, without quotes; of an attribute never an alias.
        operator: in capitals, such as ``>=``, ``NOT IN`` or ``IS NULL``.
        value: a text, a number, the texts of a list, or None where the operator takes none.
    """

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

    type: Type
    operators: tuple[str, ...]
    ordered: bool


class Kind(Struct, frozen=True):
    """A kind of things that have keys.

    Attributes:
        prefixes: how clients write it before the dot; the name itself is one of them.
        keys: what the keys are like; one that ends with ``*`` stands for all that start so.
    """

    name: str
    prefixes: tuple[str, ...]
    keys: Mapping[str, Field]

    def field(self, key: str) -> Field | None:
        """Return what the key is like, or None if there is none."""
        known = (field for name, field in self.keys.items() if name[-1] == "*" and key.startswith(name[:-1]))
        return self.keys[key] if key in self.keys and key[-1:] != "*" else next(known, None)


class Grammar(Struct, frozen=True):
    """What can be said about one sort of entity, and how clients are told of what cannot.

    Attributes:
        kinds: the kinds; one is called ``attribute`` and needs no prefix.
        aliases: other names of attributes.
        stranger: the message for a prefix that is none.
        refusal: the message for an operator that does not fit.
        unquoted: the message for an attribute's value that is no text.
        unsorted: the message for an attribute that is not sorted by.
    """

    kinds: tuple[Kind, ...]
    aliases: Mapping[str, str] = {}
    stranger: str = "Invalid entity type '{prefix}'. Valid values are {prefixes}"
    refusal: str = "Invalid comparator '{operator}' not one of '{operators}'"
    unquoted: str = "Expected a quoted string value for attributes. Got value {value}"
    unsorted: str = "Invalid attribute key '{key}' specified. Valid keys are '{keys}'"


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


def _kinds(table: str) -> tuple[Kind, ...]:
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
    _kinds("""
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
    _kinds("""
    attribute: name text; creation_time last_update_time number; experiment_id sorted
    tag tags: * text nulls unsorted"""),
    stranger="Invalid entity type '{prefix}'. Valid entity types are {prefixes}",
)
MODELS = Grammar(
    _kinds("""
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
    _kinds("""
    attribute: name text; version_number number; creation_timestamp last_updated_timestamp sorted; \
run_id text in unsorted; source_path text unsorted
    tag tags: * text unsorted"""),
    stranger=EXPERIMENTS.stranger,
    refusal=MODELS.refusal,
    unquoted=MODELS.unquoted,
)
LOGGED_MODELS = Grammar(
    _kinds("""
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
    _kinds("""
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
    if len(tokens) > _MOST:
        raise _bad(f"Invalid filter: it has {len(tokens)} words and may have {_MOST}", 0, "search in parts")
    found = [_checked(clause, grammar) for clause in _clauses(tokens)]
    if len(found) > 200:
        raise _bad(f"Invalid filter: it has {len(found)} conditions and may have 200", 0, "search in parts")
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
        orders.append(_ordered(*_prefixed(name), word.word != "DESC", name.at, grammar))
    if len({(order.kind, order.key) for order in orders}) < len(orders) or len(orders) > 20:
        raise _bad(f"`order_by` contains duplicate fields: {list(items)[:30]}", 0, "name each once, and 20 at most")
    return orders


_PART = r"(?:`(?:[^`]|``)*`(?!`)|\"(?:[^\"]|\"\")*\"(?!\")|[\w$@#]+)"
_TOKEN = re.compile(
    r"(?P<space>\s+)"
    r"|(?P<text>'(?:[^']|'')*'(?!'))"
    r"|(?P<number>-?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?(?![\w.]))"
    rf"|(?P<name>(?![0-9]){_PART}(?:\.{_PART})*)"
    r"|(?P<operator>[<>=!~]+)"
    r"|(?P<mark>[(),;])"
)
_ONE_PART = re.compile(_PART)


class _Token(Struct, frozen=True):
    kind: str
    text: str
    at: int

    @property
    def word(self) -> str:
        """The keyword that it may be, in capitals."""
        return self.text.upper() if self.kind == "name" else ""


class _Clause(Struct, frozen=True):
    name: _Token
    operator: str
    value: _Token | tuple[_Token, ...] | None


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
            found.append(_Token(str(match.lastgroup), match[0], at))
        at = match.end()
    return found + [_Token("end", "", at)] * 4


def _clauses(tokens: list[_Token]) -> Iterator[_Clause]:
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
            yield _Clause(name, "IS NULL" if words[1] == "NULL" else "IS NOT NULL", None)
            continue
        negated = words[0] == "NOT"
        operator = words[1] if negated else tokens[at + 1].text.upper()
        if tokens[at + 1].kind != "operator" and operator not in (*_FUNCTIONS, "IN"):
            raise _invalid(name)
        value, end = _value(tokens, at + 2 + negated, listed=operator == "IN")
        yield _Clause(name, f"NOT {operator}" if negated else operator, value)
        at = end


def _value(tokens: list[_Token], start: int, *, listed: bool) -> tuple[_Token | tuple[_Token, ...], int]:
    first, at = tokens[start], start + 1
    if first.text != "(":
        if listed or first.kind not in _VALUES or first.word in ("TRUE", "FALSE", "NULL"):
            raise _invalid(first if first.text else tokens[start - 1])
        return first, at
    items: list[_Token] = []
    while tokens[at].kind in _VALUES and (not items or tokens[at - 1].text == ","):
        items.append(tokens[at])
        at += 2 if tokens[at + 1].text == "," else 1
    if tokens[at].text != ")":
        raise _bad(f"{_LISTING} expected a non-empty list of string values, but got ill-formed list.", first.at)
    return tuple(items), at + 1


_VALUES = ("text", "number", "name")
_LISTING = "While parsing a list in the query,"


def _invalid(token: _Token) -> BadInput:
    fix = "join conditions such as metrics.loss < 0.5 or tags.team = 'risk' by AND"
    return _bad(f"Invalid clause(s) in filter string: '{token.text}'", token.at, fix)


def _prefixed(token: _Token) -> tuple[str, str]:
    """Return what stands before the first dot, and the key without quotes."""
    parts = [_unquoted(part) for part in _ONE_PART.findall(token.text)]
    if len(parts) == 1:
        prefix, dot, _ = token.text.partition(".")
        return (prefix, "") if dot else ("", parts[0])
    return parts[0], ".".join(parts[1:])


def _unquoted(text: str) -> str:
    quote = text[0]
    return text[1:-1].replace(quote * 2, quote) if quote in "'\"`" else text


def _named(prefix: str, key: str, at: int, grammar: Grammar) -> tuple[Kind, str]:
    kind = next((kind for kind in grammar.kinds if (prefix or "attribute") in kind.prefixes), None)
    if kind is None:
        prefixes = [name for kind in grammar.kinds for name in kind.prefixes]
        raise _bad(grammar.stranger.format(prefix=prefix, prefixes=prefixes), at, _likely(prefix, prefixes))
    return kind, grammar.aliases.get(key, key) if kind.name == "attribute" else key


def _ordered(prefix: str, key: str, ascending: bool, at: int, grammar: Grammar) -> Order:
    kind, known = _named(prefix, key, at, grammar)
    field = kind.field(known)
    if field is None or not field.ordered:
        if kind.name != "attribute":
            raise _bad(f"Invalid order_by entity type '{kind.name}'", at, "order by an attribute")
        keys = sorted(key for key, field in kind.keys.items() if field.ordered)
        raise _bad(grammar.unsorted.format(key=key, keys=_set(keys)), at, _likely(key, keys))
    return Order(kind.name, known, ascending)


def _likely(name: str, known: Sequence[str]) -> str:
    return f"one of {', '.join(known)}{closest(name, known)}"


def _set(keys: Sequence[str]) -> str:
    return "{" + ", ".join(repr(key) for key in keys) + "}"


def _checked(clause: _Clause, grammar: Grammar) -> Comparison:
    prefix, written = _prefixed(clause.name)
    kind, key = _named(prefix, written, clause.name.at, grammar)
    field, at = kind.field(key), clause.name.at
    if field is None or not field.operators:
        keys = sorted(key for key, field in kind.keys.items() if field.operators)
        raise _bad(
            f"Invalid {kind.name} key '{written}' specified. Valid keys are '{_set(keys)}'", at, _likely(key, keys)
        )
    value = _meant(clause.value, kind, key, field, grammar) if clause.value is not None else None
    nullable = [f"{one.name}s" for one in grammar.kinds if "*" in one.keys and "IS NULL" in one.keys["*"].operators]
    if clause.operator in _NULLS and nullable and clause.operator not in field.operators:
        able = " and ".join(nullable[:2])
        raise _bad(f"IS NULL / IS NOT NULL is only supported for {able}, not for '{kind.name}' '{key}'", at)
    if clause.operator not in field.operators or isinstance(value, tuple) != (clause.operator in _LISTS):
        said = {"kind": kind.name, "key": key, "operator": clause.operator, "operators": list(field.operators)}
        raise _bad(grammar.refusal.format(**said), at, f"one of {', '.join(field.operators)}")
    if clause.operator == "RLIKE":
        _check_pattern(str(value), at)
    return Comparison(kind.name, key, clause.operator, value)


def _meant(
    token: _Token | tuple[_Token, ...], kind: Kind, key: str, field: Field, grammar: Grammar
) -> str | int | float | tuple[str, ...]:
    """Return the value that is meant, of the type that the key has."""
    items = token if isinstance(token, tuple) else (token,)
    shown, at = ", ".join(item.text for item in items[:5]), items[0].at if items else 0
    texts = tuple(_unquoted(item.text) for item in items if _is_text(item))
    if field.type == "number":
        if isinstance(token, tuple) or token.kind != "number":
            what = "metric" if kind.name == "metric" else f"numeric attribute: {key}"
            raise _bad(f"Expected numeric value type for {what}. Found {shown}", at, "write a number without quotes")
        whole = kind.name == "attribute" and len(shown) <= 18 and shown.lstrip("-").isdigit()
        return int(shown) if whole else float(shown)
    if not isinstance(token, tuple):
        if texts:
            return texts[0]
        if token.kind == "name":
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
        only = f"the '{able[0]}' attribute" if len(able) == 1 else f"attributes in {_set(able)}"
        raise _bad(f"Only {only} supports comparison with a list of quoted string values.", at)
    if kind.name in ("attribute", "dataset"):
        message = grammar.unquoted.format(value=shown)
        raise _bad(message if kind.name == "attribute" else message.replace("attributes", "dataset attributes"), at)
    raise _bad(f"Expected a quoted string value for {kind.name} (e.g. 'my-value'). Got value {shown}", at)


def _is_text(token: _Token) -> bool:
    return token.kind == "text" or (token.text[0] == '"' and len(_ONE_PART.findall(token.text)) == 1)


def _check_pattern(pattern: str, at: int) -> None:
    """Refuse what the two databases read differently, and what takes SQLite's matcher more than a moment."""
    plain = re.sub(r"\\[^a-zA-Z0-9]|\\[dwsDWS]|\[\^?\]?[^\[\]\\]*\]", "x", pattern)
    odd = re.search(
        r"\\|\[|\(\?(?!:)|[*+?}][*+?{]|\([^()]*[*+?{|][^()]*\)[*+?{]|\([^()]*\([^()]*\)[^()]*\)[*+?{]", plain
    )
    counts = re.search(r"\{(?![0-9]{1,2}(?:,(?:[0-9]{1,2})?)?\})", plain)
    if odd or counts or len(pattern) > 500 or len(re.findall(r"[*+{]", plain)) > 3 or plain.count("?") > 8:
        raise _bad(
            f"Invalid RLIKE pattern {pattern[:100]!r}: too long or with more than simple repeats", at, "use LIKE"
        )
    try:
        re.compile(pattern)
    except (re.error, OverflowError) as error:
        raise _bad(f"Invalid RLIKE pattern {pattern!r}: {error}", at) from error


class Column(Struct, frozen=True):
    """What an attribute is in SQL: an expression over the row that is searched, and whether it may be NULL."""

    sql: str
    type: Type = "text"
    nullable: bool = True


class Rows(Struct, frozen=True):
    """Where the keys of a kind are kept, in names of SQL such as ``m.value`` of the source ``latest m``.

    Attributes:
        subject: the column with the id of what is searched.
        name: the column with the key; empty if each key has a column of its own.
        value: the column with the value.
        kind: the column that tells which values are no plain numbers (``core.metric.split_value``); empty for texts.
        columns: the columns of keys that have their own.
        newest: what follows WHERE to sort by one row where a key may have several, such as ``ORDER BY .. LIMIT 1``.
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


class _Found(Struct, frozen=True):
    """The value of a key: an expression, the rows that it is of, and the parameters of each."""

    rows: Rows
    value: str
    among: str
    params: list[Value]
    more: list[Value]


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
            found = _found(one, columns)
            if one.operator in _NULLS:
                sql, more = f"SELECT 1 {found.among}", found.params
            else:
                sql, more = _compared(found.value, found.more, one)
                if found.rows.kind and one.operator == "!=":
                    sql = f"({sql} OR {found.rows.kind}='nan')"
                sql, more = f"SELECT 1 {found.among} AND {sql}", [*found.params, *more]
            sql = f"{'NOT ' * (one.operator == 'IS NULL')}EXISTS ({sql})"
        pieces.append(sql)
        params += more
    return " AND ".join(pieces) or "1=1", params


def _found(one: Comparison | Order, columns: Columns) -> _Found:
    rows = columns.rows.get(one.kind)
    if rows is None or not (rows.name or one.key in rows.columns):
        raise _bad(f"Invalid {one.kind} key '{one.key}' specified: it is not kept here", 0)
    among, value = f"FROM {rows.source} WHERE {rows.subject}={columns.id}", rows.columns.get(one.key, rows.value)
    params: list[Value] = []
    if one.key not in rows.columns:
        among, params = f"{among} AND {rows.name}=?", [one.key]
    if not rows.kind:
        return _Found(rows, value, among, params, [])
    value = (
        f"CASE {rows.kind} WHEN '' THEN {value} WHEN 'nan' THEN NULL WHEN '-0.0' THEN 0.0 WHEN '-inf' THEN ? ELSE ? END"
    )
    return _Found(rows, value, among, params, [-math.inf, math.inf])


def _compared(sql: str, params: list[Value], one: Comparison) -> tuple[str, list[Value]]:
    if isinstance(one.value, tuple):
        return f"{sql} {one.operator} ({','.join('?' * len(one.value))})", [*params, *one.value]
    if one.operator in _FUNCTIONS:
        pattern = str(one.value)
        pattern = pattern if one.operator == "RLIKE" else pattern.replace("\\", "\\\\")
        return f"{_FUNCTIONS[one.operator]}({sql}, ?)", [*params, pattern]
    return f"{sql} {'<>' if one.operator == '!=' else one.operator} ?", [*params, one.value]


class Sorting(Struct, frozen=True):
    """How found rows are sorted: what an inner SELECT selects, and what the outer one sorts by.

    Attributes:
        select: the columns ``sort_0``, ``sort_1`` ..., whose values are those of a token.
        params: their parameters.
        order: what follows ORDER BY.
        terms: the type of each column (``rank`` where it only tells what is missing), and whether it ascends.
    """

    select: str
    params: list[Value]
    order: str
    terms: list[tuple[str, bool]]


def order_sql(orders: Sequence[Order], columns: Columns) -> Sorting:
    """Return how to sort: what is missing comes last and NaN before it, either way; then come the ties.

    Raises:
        BadInput: something is not kept here.
    """
    pieces, params, terms = list[str](), list[Value](), list[tuple[str, bool]]()

    def add(sql: str, bound: list[Value], type: str, ascending: bool) -> None:
        pieces.append(f"{sql} AS sort_{len(terms)}")
        params.extend(bound)
        terms.append((type, ascending))

    named = {(order.kind, order.key) for order in orders}
    for order in (*orders, *(tie for tie in columns.ties if (tie.kind, tie.key) not in named)):
        column, bound = columns.attributes.get(order.key) if order.kind == "attribute" else None, list[Value]()
        if column is None:
            found = _found(order, columns)
            rows, bound = found.rows, [*found.more, *found.params]
            column = Column(f"(SELECT {found.value} {found.among} {rows.newest})", "number" if rows.kind else "text")
            if rows.kind:
                rank = f"(SELECT CASE {rows.kind} WHEN 'nan' THEN 1 ELSE 0 END {found.among} {rows.newest})"
                add(f"coalesce({rank}, 2)", found.params, "rank", True)
        if column.nullable and not bound[1:]:
            add(f"CASE WHEN {column.sql} IS NULL THEN 1 ELSE 0 END", bound, "rank", True)
        add(column.sql, bound, column.type, order.ascending)
    order_by = ", ".join(f"sort_{at}{'' if ascending else ' DESC'}" for at, (_, ascending) in enumerate(terms))
    return Sorting(", ".join(pieces), params, order_by, terms)


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
            exact, digest = msgspec.json.decode(data, type=tuple[list[None | int | str | list[str]], str])
            values = tuple(float.fromhex("".join(value)) if isinstance(value, list) else value for value in exact)
        except (ValueError, OverflowError, msgspec.MsgspecError) as error:
            raise _bad("Invalid page token: it cannot be read", 0, "begin at the first page") from error
        if digest != query:
            raise _bad("Invalid page token: it belongs to another query", 0, "begin at the first page")
        return cls(values, digest)


def query_digest(*parts: object) -> str:
    """Return what tells a query from others: its filter, order and whatever else chooses the rows, but no limit."""
    return hashlib.sha256(msgspec.json.encode(parts, order="deterministic")).hexdigest()[:24]


_TYPES: dict[str, tuple[type, ...]] = {"rank": (int,), "text": (str, type(None)), "number": (int, float, type(None))}


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
def _pieces(pattern: str) -> list[tuple[int, re.Pattern[str]]]:
    """Return the length and the form of each piece between the ``%`` of a pattern."""
    pieces: list[list[str]] = [[]]
    for escaped, plain in re.findall(r"\\(.)|([^\\])", pattern, re.DOTALL):
        if plain == "%":
            pieces.append([])
        else:
            pieces[-1].append("." if plain == "_" else re.escape(escaped or plain))
    return [(len(piece), re.compile("".join(piece), re.DOTALL)) for piece in pieces]


def _like(text: str | None, pattern: str) -> bool | None:
    if text is None:
        return None
    (first, begins), *others = _pieces(pattern)
    if not others:
        return len(text) == first and begins.match(text) is not None
    if begins.match(text) is None:
        return False
    at, end = first, len(text) - others[-1][0]
    for length, piece in others[:-1]:
        found = piece.search(text, at)
        if found is None:
            return False
        at = found.start() + length
    return at <= end and others[-1][1].match(text, end) is not None


_FOLD = {upper: upper + 32 for upper in range(65, 91)}
FUNCTIONS: dict[str, Callable[[str | None, str], bool | None]] = {
    "textlike": _like,
    "texticlike": lambda text, pattern: _like(text and text.translate(_FOLD), pattern.translate(_FOLD)),
    "textregexeq": lambda text, pattern: None if text is None else re.search(pattern, text, re.DOTALL) is not None,
}
"""What a session of SQLite has to be given under these names, each deterministic and of two arguments."""
