"""The gate of a model: champion and challenger on rows that neither was trained on, and the refit."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import msgspec
import polars as pl
import pytest
from sklearn.linear_model import LogisticRegression

import trimtab as tt
from tests.train.conftest import START, Room, good, poor, rows
from tests.train.models import Fixed
from trimtab import check as ck
from trimtab.check.histogram import Reference
from trimtab.core.errors import StepFailed
from trimtab.core.nouns import Verdict, Version
from trimtab.pipeline.kinds import StepResult
from trimtab.store import facts

BEATS = ck.beats(on="auc")


def _verdicts(result: StepResult) -> dict[str, Verdict]:
    return {verdict.kind: verdict for verdict in result.verdicts}


def _hour(hour: int) -> str:
    return (START + timedelta(hours=hour)).isoformat()


def test_the_first_of_its_kind_has_nobody_to_beat(room: Room) -> None:
    """Without a champion the check passes, with that as its reason, and the others count."""
    candidate = room.make(good(BEATS, ck.metric("auc", above=0.7)))
    result = room.gate(good(BEATS, ck.metric("auc", above=0.7)), candidate)
    assert result.decisions == [(candidate.id, "published")] and not result.made
    found = _verdicts(result)
    assert found["beats"].status == "pass" and found["beats"].reason == "there is no champion yet"
    assert found["metric"].status == "pass" and found["metric"].subject == candidate.id
    assert result.facts["accepted"] and result.facts["challenger"] == candidate.ref


def test_a_metric_is_judged_on_the_rows_that_were_kept_back(room: Room) -> None:
    """The verdict has the rows, their range, the value and its interval."""
    check = ck.metric("auc", above=0.7)
    candidate = room.make(good(check))
    evidence = _verdicts(room.gate(good(check), candidate))["metric"].evidence
    wanted = {"rows": 240, "from": _hour(720), "until": _hour(959), "newer_than": _hour(719), "rows_refused": 0}
    assert {name: evidence[name] for name in wanted} == wanted
    interval = evidence["interval"]
    assert interval["estimate"] == pytest.approx(candidate.meta["metrics"]["auc"])
    assert interval["method"] == "cluster bootstrap" and interval["groups"] == 10 and interval["level"] == 0.95
    assert interval["low"] < interval["estimate"] < interval["high"]


@pytest.mark.parametrize(
    ("check", "status"),
    [
        (ck.metric("auc", above=0.7), "pass"),
        (ck.metric("auc", above=0.99), "fail"),
        (ck.metric("auc", above=0.99, severity="warn"), "warn"),
        (ck.metric("log_loss", below=0.69), "pass"),
        (ck.metric("log_loss", below=0.1), "fail"),
        (ck.metric("rmse", below=1.0), "inconclusive"),
    ],
)
def test_limits_and_severity(room: Room, check: Any, status: str) -> None:
    """A metric beyond its limit passes; one that is not refuses, unless it only warns."""
    candidate = room.make(good(check))
    result = room.gate(good(check), candidate)
    assert [verdict.status for verdict in result.verdicts] == [status]
    assert result.decisions == [(candidate.id, "refused" if status in ("fail", "inconclusive") else "published")]


def test_to_be_sure_takes_the_whole_interval(room: Room) -> None:
    """A limit inside the interval passes by the value and fails when it must be sure."""
    candidate = room.make(good(ck.metric("auc", above=0.5)))
    interval = _verdicts(room.gate(good(ck.metric("auc", above=0.5)), candidate))["metric"].evidence["interval"]
    limit = (interval["low"] + interval["estimate"]) / 2
    for sure, status in ((False, "pass"), (True, "fail")):
        check = ck.metric("auc", above=limit, sure=sure)
        assert _verdicts(room.gate(good(check), candidate))["metric"].status == status


def test_a_better_challenger_beats_a_poor_champion(room: Room) -> None:
    """The verdict has both values, their paired gain with its interval, and which rows decided."""
    room.champion = room.make(poor())
    candidate = room.make(good(BEATS))
    result = room.gate(good(BEATS), candidate)
    verdict = _verdicts(result)["beats"]
    assert verdict.status == "pass" and result.decisions == [(candidate.id, "published")]
    evidence = verdict.evidence
    assert evidence["candidate"] == candidate.ref and evidence["champion"] == room.champion.ref
    assert evidence["gain"]["low"] > 0 and evidence["gain"]["rows"] == evidence["rows"] == 240
    assert evidence["gain"]["estimate"] == pytest.approx(evidence["candidate_value"] - evidence["champion_value"])
    assert evidence["gain"]["method"] == "cluster bootstrap" and evidence["margin"] == 0.0
    assert room.champion.ref in verdict.reason


def test_a_poor_challenger_is_refused_with_the_reason(room: Room) -> None:
    """Refused challengers are a success of the gate: nothing is published, and the verdict says by how much."""
    room.champion = room.make(good())
    candidate = room.make(poor(BEATS))
    result = room.gate(poor(BEATS), candidate)
    assert result.decisions == [(candidate.id, "refused")] and not result.made
    verdict = _verdicts(result)["beats"]
    assert verdict.status == "fail" and verdict.evidence["gain"]["high"] < 0
    assert "does not exceed 0" in verdict.reason and not result.facts["accepted"]


def test_an_equal_challenger_does_not_beat(room: Room) -> None:
    """A gain of nothing is no gain; a margin that would allow a loss lets it through."""
    room.champion = msgspec.structs.replace(room.make(good()), digest="another")
    candidate = room.make(good(BEATS))
    assert _verdicts(room.gate(good(BEATS), candidate))["beats"].status == "fail"
    lenient = ck.beats(on="auc", margin=-0.01)
    assert _verdicts(room.gate(good(lenient), candidate))["beats"].status == "pass"


@pytest.mark.parametrize("refit", [False, True])
def test_the_champion_taken_up_again_need_not_beat_itself(room: Room, refit: bool) -> None:
    """Other checks judge the champion anew; where it would have to beat itself, or its refit, it passes."""
    champion = room.make(good())
    room.champion = champion
    if refit:
        (made,) = room.gate(good(refit=True), champion).made
        room.champion = room.keep(made)
        assert room.champion.digest != champion.digest
    result = room.gate(good(BEATS, ck.metric("auc", above=0.99)), champion)
    found = _verdicts(result)
    assert found["beats"].status == "pass" and found["beats"].reason == f"it is the champion, {room.champion.ref}"
    assert found["metric"].status == "fail" and result.decisions == [(champion.id, "refused")]


def test_lower_is_better_where_the_metric_says_so(room: Room) -> None:
    """The gain in a loss is positive where the candidate's loss is smaller."""
    check = ck.beats(on="log_loss")
    room.champion = room.make(poor())
    candidate = room.make(good(check))
    evidence = _verdicts(room.gate(good(check), candidate))["beats"].evidence
    assert evidence["gain"]["estimate"] == pytest.approx(evidence["champion_value"] - evidence["candidate_value"])
    assert evidence["gain"]["low"] > 0


def test_only_rows_newer_than_both_models_count(room: Room) -> None:
    """A champion that was refitted on newer rows than the candidate narrows the comparison to what came after."""
    room.give("flown", rows(36))
    first = good(refit=True)
    (made,) = room.gate(first, room.make(first)).made
    room.champion = room.keep(made)
    assert room.champion.meta["trained_until"] == _hour(36 * 24 - 1)
    room.give("flown", rows(60))
    check = ck.beats(on="auc", minimum=100)
    candidate = room.make(good(check))
    assert candidate.meta["trained_until"] == _hour(50 * 24 - 1)
    evidence = _verdicts(room.gate(good(check), candidate))["beats"].evidence
    assert evidence["newer_than"] == _hour(50 * 24 - 1) and evidence["rows"] == 240
    room.give("flown", rows(40))
    older = room.make(good(check))
    assert older.meta["trained_until"] == _hour(30 * 24 - 1)
    verdict = _verdicts(room.gate(good(check), older))["beats"]
    assert verdict.status == "inconclusive" and verdict.evidence["newer_than"] == _hour(36 * 24 - 1)
    assert "96 labelled rows are newer than both models' training rows; 100 needed" in verdict.reason


@pytest.mark.parametrize(
    ("check", "says"),
    [(ck.beats(on="auc", minimum=241), "240 labelled rows"), (ck.beats(on="r2"), "no metric of a binary model")],
)
def test_what_cannot_be_decided_refuses(room: Room, check: Any, says: str) -> None:
    """Too few rows or a metric of another task: inconclusive, which is no pass."""
    room.champion = room.make(poor())
    candidate = room.make(good(check))
    result = room.gate(good(check), candidate)
    assert result.verdicts[0].status == "inconclusive" and says in result.verdicts[0].reason
    assert result.decisions == [(candidate.id, "refused")]


def test_one_class_decides_nothing(room: Room) -> None:
    """Where nothing happened since, an AUC does not exist, and the verdict says so."""
    room.champion = room.make(poor())
    candidate = room.make(good(BEATS, ck.metric("auc", above=0.5)))
    room.give("flown", rows().with_columns(y=pl.when(pl.col("id") >= 720).then(pl.lit(True)).otherwise("y")))
    result = room.gate(good(BEATS, ck.metric("auc", above=0.5)), candidate)
    assert [verdict.status for verdict in result.verdicts] == ["inconclusive"] * 2
    assert all("both classes" in verdict.reason for verdict in result.verdicts)


def test_rows_of_a_group_belong_together(room: Room) -> None:
    """The declared group is what intervals resample; over few days rows count by themselves."""
    check = ck.metric("auc", above=0.5)
    room.give("flown", rows().with_columns(crew=pl.col("id") % 37))
    candidate = room.make(good(check, group="crew"))
    found = _verdicts(room.gate(good(check, group="crew"), candidate))["metric"].evidence["interval"]
    assert found["method"] == "cluster bootstrap" and found["groups"] == 37
    room.give("flown", rows(4, per_day=240))
    candidate = room.make(short(check))
    found = _verdicts(room.gate(short(check), candidate))["metric"].evidence["interval"]
    assert found["method"] == "delong" and found["groups"] == 0


def short(*gate: Any, **spec: Any) -> Any:
    """Return a model whose held-back rows are of one day."""

    def late(flown: pl.DataFrame) -> Any:
        return LogisticRegression().fit(flown.select("x0").to_pandas(), flown["y"].to_numpy())

    return tt.model(label="y", holdout="1d", gate=gate, **spec)(late)


def test_a_named_champion_may_be_another_model(room: Room) -> None:
    """A check may compare with another asset's alias; several such references are told once each."""
    check = ck.beats("delays@champion", on="auc")
    context = room.context(good(check, check, BEATS), "gate")
    assert list(context.references) == ["delays@champion", "late@champion"]
    room.champion = room.make(poor())
    candidate = room.make(good(check))
    assert room.gate(good(check), candidate).decisions[0][1] == "published"


@pytest.mark.parametrize(
    ("meta", "says"),
    [
        ({"label": "z"}, "has the label 'z', the candidate 'y'"),
        ({"task": "regression"}, "has the task 'regression'"),
        ({"trained_until": None}, "was trained without a time column"),
        ({"signature": {"inputs": [{"name": "gone"}]}}, "needs 'gone', which flown no longer has"),
        ({"trained_until": 7}, "cannot be compared"),
    ],
)
def test_a_champion_that_cannot_be_compared_with_is_told(room: Room, meta: dict[str, Any], says: str) -> None:
    """Another label, task, time or column: inconclusive with the reason."""
    champion = room.make(poor())
    room.champion = msgspec.structs.replace(champion, meta={**champion.meta, **meta})
    result = room.gate(good(BEATS), room.make(good(BEATS)))
    assert result.verdicts[0].status == "inconclusive" and says in result.verdicts[0].reason


def test_a_champion_that_fails_now_is_told(room: Room) -> None:
    """A champion that cannot answer the newest rows does not break the gate."""
    picky = tt.model(label="y", holdout="10d", features=["c"])(_picky)
    room.champion = room.make(picky)
    room.give("flown", rows().with_columns(c=pl.when(pl.col("id") == 950).then(pl.lit("e")).otherwise("c")))
    champion = room.champion
    accepting = {**champion.meta, "signature": {**champion.meta["signature"], "unseen": "accept"}}
    room.champion = msgspec.structs.replace(champion, meta=accepting)
    accepts_all = good(BEATS, unseen="accept")
    result = room.gate(accepts_all, room.make(accepts_all))
    assert result.verdicts[0].status == "inconclusive" and "cannot answer these rows" in result.verdicts[0].reason


def _picky(flown: pl.DataFrame) -> Any:
    return Fixed(0, "picky")


def test_rows_that_one_of_them_would_refuse_do_not_count(room: Room) -> None:
    """Both are asked the same rows, those that an endpoint would answer with either."""
    room.champion = room.make(poor())
    candidate = room.make(good(BEATS))
    room.give("flown", rows().with_columns(c=pl.when(pl.col("id") >= 950).then(pl.lit("e")).otherwise("c")))
    evidence = _verdicts(room.gate(good(BEATS), candidate))["beats"].evidence
    assert (evidence["rows"], evidence["rows_refused"]) == (230, 10)


def test_without_times_only_the_same_split_may_be_compared(room: Room) -> None:
    """Where rows have no time, a champion of another version of the data may have been trained on any of them."""
    frame = rows().drop("at")
    room.give("flown", frame)
    room.champion = msgspec.structs.replace(room.make(_timeless()), digest="another")
    candidate = room.make(_timeless(BEATS))
    assert candidate.meta["trained_until"] is None
    assert _verdicts(room.gate(_timeless(BEATS), candidate))["beats"].status == "fail"
    room.give("flown", frame.head(900))
    later = room.make(_timeless(BEATS))
    verdict = _verdicts(room.gate(_timeless(BEATS), later))["beats"]
    assert verdict.status == "inconclusive" and "give time=" in verdict.reason
    metric = ck.metric("auc", above=0.5)
    assert _verdicts(room.gate(_timeless(metric), later))["metric"].evidence["rows"] == 225


def _timeless(*gate: Any) -> Any:
    def late(flown: pl.DataFrame) -> Any:
        return LogisticRegression().fit(flown.select("x0").to_pandas(), flown["y"].to_numpy())

    return tt.model(label="y", holdout=0.25, gate=gate)(late)


def _refitted(room: Room, *gate: Any) -> tuple[Version, StepResult]:
    candidate = room.make(good(*gate, refit=True))
    return candidate, room.gate(good(*gate, refit=True), candidate)


def test_the_winner_is_fitted_again_on_all_rows(room: Room) -> None:
    """The refit is published as the challenger, names its candidate, and takes over what was measured on new rows."""
    candidate, result = _refitted(room, BEATS)
    (made,) = result.made
    meta = made.meta
    assert (made.state, made.aliases) == ("published", ("challenger",)) and made.digest != candidate.digest
    assert result.decisions == [(candidate.id, "published")] and result.facts["refit"]
    assert meta["refit_of"] == candidate.id and meta["params"] == candidate.meta["params"]
    assert meta["rows_trained"] == 960 and meta["trained_until"] == _hour(959) and meta["rows_kept_back"] == 0
    for name in ("metrics", "risk", "label", "task", "classes", "answer", "container", "seed"):
        assert meta[name] == candidate.meta[name]
    assert all(verdict.subject == candidate.id for verdict in result.verdicts)
    ours, theirs = (
        {one.name: one for one in msgspec.json.decode(room.store.blobs.get(mark), type=list[Reference])}
        for mark in (meta["reference"], candidate.meta["reference"])
    )
    assert ours["prediction"] == theirs["prediction"] and ours["x0"].n == 960


def test_a_refused_candidate_is_not_fitted_again(room: Room) -> None:
    """The function is not called for a model that nobody may use."""
    check = ck.metric("auc", above=0.999)
    candidate, result = _refitted(room, check)
    assert not result.made and result.decisions == [(candidate.id, "refused")]


def test_a_refit_sees_all_rows_and_starts_from_the_same_seed(room: Room) -> None:
    """It is the same function with the same params and seed, over every labelled row and every row of other inputs."""
    seen: list[tuple[int, int, float]] = []

    def late(flown: pl.DataFrame, weather: pl.DataFrame, depth: int = 3) -> Any:
        import random

        seen.append((flown.height, weather.height, random.random()))
        return LogisticRegression(C=depth).fit(flown.select("x0").to_pandas(), flown["y"].to_numpy())

    declared = tt.model(label="y", holdout="10d", refit=True, seed=11)(late)
    room.give("weather", rows(45).select("at", "x0"))
    candidate = room.make(declared, params={"depth": 5})
    (made,) = room.gate(declared, candidate, params={"depth": 5}).made
    assert [one[:2] for one in seen] == [(720, 720), (960, 1080)]
    assert seen[0][2] == seen[1][2] and made.meta["params"] == {"depth": 5}


def test_a_refit_that_fails_fails_the_gate(room: Room) -> None:
    """Nothing is decided when the function raises the second time."""
    calls: list[int] = []

    def late(flown: pl.DataFrame) -> Any:
        calls.append(1)
        return Fixed(0.5, "few" if len(calls) > 1 else "each")

    declared = tt.model(label="y", holdout="10d", refit=True, features=["x0"])(late)
    candidate = room.make(declared)
    with pytest.raises(StepFailed, match="wrong shape"):
        room.gate(declared, candidate)


def test_a_predictor_is_read_by_the_gate_under_its_grant(room: Room) -> None:
    """The gate loads what the run that made it granted, and nothing else."""
    check = ck.metric("accuracy", above=0.01)

    def late(flown: pl.DataFrame) -> Any:
        return Fixed(True)

    declared = tt.model(label="y", holdout="10d", features=["x0"], gate=[check])(late)
    (made,) = room.step(declared).made
    candidate = room.keep(made)
    blob = candidate.location["files"]["model"]
    assert facts.is_granted(room.store.ledger, blob)
    assert room.gate(declared, candidate).decisions == [(candidate.id, "published")]
