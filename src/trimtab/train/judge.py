"""The gate of a model: judged on rows that nobody in the comparison was trained on, then refitted if asked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from trimtab.check.gates import accepts, is_champion, judge_beats, judge_metric, no_champion, undecided
from trimtab.core.declare import Declaration
from trimtab.core.errors import BadInput, StepFailed, WrongUse
from trimtab.core.nouns import Check, Data, Verdict, Version
from trimtab.pipeline.kinds import StepContext, StepResult
from trimtab.store import facts as ledger_facts
from trimtab.train.candidate import package
from trimtab.train.evaluate import Answers, ask, difference, metric_on, value_interval
from trimtab.train.fit import fit, task_of
from trimtab.train.load import Scorer, load_model
from trimtab.train.package import files_of
from trimtab.train.signature import answerable
from trimtab.train.split import Cut, Labelled, cut, labelled, newer_than, until

LEVEL = 0.95
_FEWEST_DAYS = 5


def champion_of(declaration: Declaration, check: Check) -> str:
    """Return the reference of the champion that a ``beats`` check compares with."""
    return str(check.params["champion"] or f"{declaration.name}@champion")


def gate_model(context: StepContext) -> StepResult:
    """Judge a candidate by the declaration's checks; with ``refit`` fit the accepted one once more on all rows.

    A refit has the same params and seed, is published in the candidate's stead as the challenger, and its meta
    names the candidate, whose verdicts are its own.

    Raises:
        BadInput: the labelled input is not what the declaration says.
        StepFailed: the refit failed.
    """
    candidate = context.inputs["candidate"]
    data = labelled(context)
    gate = _Gate(context, data)
    verdicts = [gate.judge(check) for check in context.declaration.checks]
    accepted = accepts(verdicts)
    told = {one.check: {"status": one.status, "reason": one.reason} for one in verdicts}
    facts: Data = {"candidate": candidate.ref, "accepted": accepted, **told}
    if not accepted:
        return StepResult(verdicts=verdicts, facts=facts, decisions=[(candidate.id, "refused")])
    decisions: Any = [(candidate.id, "published")]
    if not context.declaration.spec["refit"]:
        return StepResult(verdicts=verdicts, facts={**facts, "challenger": candidate.ref}, decisions=decisions)
    fitted = fit(context, data, data.frame, None)
    parts = Cut(data.frame, cut(data, context.declaration.spec["holdout"]).kept, None)
    made, packed = package(context, data, fitted, task_of(context, data, data.frame), parts, refit_of=candidate)
    facts |= {"refit": True, "seconds_fit": fitted.seconds, **packed}
    return StepResult(made=[made], verdicts=verdicts, facts=facts, decisions=decisions)


@dataclass(frozen=True)
class _Bench:
    """Rows on which models may be compared, or why there are none.

    Attributes:
        rows: labelled rows that none of the models was trained on and each would answer (Polars).
        facts: which rows these are.
        problem: why they do not do, or an empty string.
    """

    rows: Any
    facts: Data
    problem: str = ""


class _Gate:
    """Judges one candidate."""

    def __init__(self, context: StepContext, data: Labelled) -> None:
        self._context = context
        self._data = data
        self._candidate = context.inputs["candidate"]
        self._scorers: dict[str, Scorer] = {}

    def judge(self, check: Check) -> Verdict:
        """Return the verdict of one check; what cannot be decided is inconclusive, which refuses."""
        at, subject = self._context.now, self._candidate.id
        champion = None
        if check.kind == "beats":
            champion = self._context.references.get(champion_of(self._context.declaration, check))
            if champion is None:
                return no_champion(check, at=at, subject=subject)
            if self._candidate.digest in (champion.digest, champion.meta.get("refit_digest")):
                return is_champion(check, champion.ref, at=at, subject=subject)
        bench = self._bench(check, champion)
        if bench.problem:
            return undecided(check, bench.problem, at=at, subject=subject, facts=bench.facts)
        try:
            if champion is not None:
                return self._beats(check, champion, bench)
            ours = self._answers(self._candidate, bench.rows)
            found = value_interval(check.params["metric"], ours, self._groups(bench.rows), LEVEL)
        except (BadInput, WrongUse) as error:
            return undecided(check, error.message, at=at, subject=subject, facts=bench.facts)
        return judge_metric(check, found, at=at, subject=subject, facts=bench.facts)

    def _beats(self, check: Check, champion: Version, bench: _Bench) -> Verdict:
        at, subject = self._context.now, self._candidate.id
        ours = self._answers(self._candidate, bench.rows)
        try:
            theirs = self._answers(champion, bench.rows)
        except StepFailed as error:
            reason = f"{champion.ref} cannot answer these rows: {error.message}"
            return undecided(check, reason, at=at, subject=subject, facts=bench.facts)
        metric = check.params["on"]
        found = difference(metric, ours, theirs, self._groups(bench.rows), check.params["level"])
        values = {"candidate_value": metric_on(metric, ours), "champion_value": metric_on(metric, theirs)}
        return judge_beats(check, found, at=at, subject=subject, facts={**bench.facts, **values})

    def _bench(self, check: Check, champion: Version | None) -> _Bench:
        models = [self._candidate, *([champion] if champion else [])]
        facts: Data = {"candidate": self._candidate.ref}
        if champion is not None:
            facts["champion"] = champion.ref
        problem = self._misfit(champion) if champion else ""
        if problem:
            return _Bench(None, facts, problem)
        try:
            rows, border = self._fresh(models)
        except BadInput as error:
            return _Bench(None, facts, error.message)
        some = rows
        for model in models:
            some = answerable(some, model.meta["signature"])
        facts |= {
            "rows": some.height,
            "from": until(some.head(1), self._data.time),
            "until": until(some, self._data.time),
            "newer_than": border,
            "rows_refused": rows.height - some.height,
        }
        least = check.params.get("minimum", 1)
        if some.height < least:
            who = "both models'" if champion else "the candidate's"
            problem = f"{some.height} labelled rows are newer than {who} training rows; {least} needed"
        return _Bench(some, facts, problem)

    def _misfit(self, champion: Version) -> str:
        """Return why a champion cannot be compared with on these rows, or an empty string."""
        data, meta = self._data, champion.meta
        for name in ("label", "task"):
            if meta.get(name) != self._candidate.meta[name]:
                return f"{champion.ref} has the {name} {meta.get(name)!r}, the candidate {self._candidate.meta[name]!r}"
        lost = [spec["name"] for spec in meta["signature"]["inputs"] if spec["name"] not in data.frame.columns]
        if lost:
            return f"{champion.ref} needs {lost[0]!r}, which {data.name} no longer has"
        if data.time and meta["trained_until"] is None:
            return f"{champion.ref} was trained without a time column: nobody can tell which rows are newer"
        same = meta["data"].get(data.name) == self._context.inputs[data.name].ref and not meta["refit_of"]
        if not data.time and not (same and meta["holdout"] == self._candidate.meta["holdout"]):
            return f"without a time column nobody can tell which rows {champion.ref} was not trained on; give time="
        return ""

    def _fresh(self, models: list[Version]) -> tuple[Any, Any]:
        """Return the rows that are newer than every row that one of the models was trained on, and the border."""
        if not self._data.time:
            return cut(self._data, self._context.declaration.spec["holdout"]).kept, None
        rows, border = self._data.frame, None
        for model in models:
            newer = newer_than(self._data, model.meta["trained_until"])
            if newer.height <= rows.height:
                rows, border = newer, model.meta["trained_until"]
        return rows, border

    def _answers(self, version: Version, rows: Any) -> Answers:
        if version.id not in self._scorers:
            store = self._context.store
            granted = ledger_facts.is_granted(store.ledger, version.location["files"]["model"])
            self._scorers[version.id] = load_model(
                files_of(version.location, store.blobs), version.meta, granted=granted
            )
        try:
            output = ask(self._scorers[version.id], rows, version.meta["signature"])
        except (StepFailed, BadInput):
            raise
        except Exception as error:
            raise StepFailed(f"{version.ref} failed on rows of the gate: {type(error).__name__}: {error}") from error
        return Answers(rows[self._data.label].to_list(), output, version.meta)

    def _groups(self, rows: Any) -> list[Any] | None:
        """Return the groups that intervals resample: the declared column, else the day of each row.

        Over fewer than five days rows count by themselves, and the interval says so (``groups`` is 0).
        """
        column, time = self._context.declaration.spec["group"], self._data.time
        if column:
            return list(rows[column].to_list())
        if time and rows.schema[time].is_temporal():
            days = rows[time].dt.date().to_list()
            return days if len(set(days)) >= _FEWEST_DAYS else None
        return None
