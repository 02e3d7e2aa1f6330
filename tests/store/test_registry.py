"""Registered models, their versions, stages, tags and aliases, in both databases."""

from __future__ import annotations

import os
from functools import partial
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from tests.store.builders import START, make, write
from trimtab.core.errors import BadInput, Conflict, NotFound, TrimtabError
from trimtab.store import artifacts, facts, live, models, registry, registrytags, tracking
from trimtab.store.ledger import Ledger, Tx, within
from trimtab.store.registry import PROMPT, TEXT, ModelVersion

EXAMPLES = int(os.environ.get("TRIMTAB_REGISTRY_EXAMPLES", "8"))


def register(ledger: Ledger, name: str = "fraud", **fields: Any) -> Any:
    """Register a name."""
    return write(ledger, registry.create_registered, name, **{"now_ms": 10, **fields})


def add(ledger: Ledger, name: str = "fraud", **fields: Any) -> ModelVersion:
    """Add a version."""
    made: ModelVersion = write(ledger, registry.create_version, name, **{"source": "s3://b/m", "now_ms": 20, **fields})
    return made


def logged(ledger: Ledger, name: str = "clf") -> tuple[str, str]:
    """Log a model with a file in a run, and return the ids of both."""
    root = "mlflow-artifacts:/{number}"
    home = write(ledger, tracking.create_experiment, f"home of {name}", root=root, tags={}, now_ms=1)
    run = write(ledger, tracking.create_run, experiment=home, name="r", user_id="", start_ms=5, tags={}).id
    made = write(
        ledger, models.create_model, experiment=home, name=name, type="", run_id=run, params={}, tags={}, now_ms=6
    )
    path = f"{made.root.removeprefix('mlflow-artifacts:/')}/MLmodel"
    write(ledger, artifacts.put_artifact, artifacts.PROXIED, path, blob="sha256:aa", size=3, at=7)
    write(ledger, models.settle_model, made.id, "LOGGED_MODEL_READY", now_ms=8)
    return run, made.id


def test_a_registered_model_comes_back_whole(ledger: Ledger) -> None:
    """Its text, times and tags are kept; it is an asset in the project's name space."""
    made = register(ledger, description="d\0é", tags={"team": "red"})
    assert registry.get_registered(ledger, "fraud") == made
    assert (made.description, made.created_ms, made.updated_ms, made.tags) == ("d\0é", 10, 10, {"team": "red"})
    assert [(one.name, one.kind) for one in facts.list_assets(ledger)] == [("fraud", "model")]
    changed = write(ledger, registry.describe_registered, "fraud", "new", now_ms=11)
    assert (changed.description, changed.created_ms, changed.updated_ms) == ("new", 10, 11)
    with pytest.raises(NotFound, match="Registered Model with name=frau not found"):
        registry.get_registered(ledger, "frau")


def test_a_name_is_registered_once(ledger: Ledger) -> None:
    """Models and prompts share their names, and the answer tells which of the two has it."""
    register(ledger)
    register(ledger, "greet", tags={PROMPT: "true"})
    with pytest.raises(Conflict, match=r"Registered Model \(name=fraud\) already exists\."):
        register(ledger)
    with pytest.raises(Conflict, match=r"Prompt \(name=greet\) already exists\."):
        register(ledger, "greet", tags={PROMPT: "true"})
    with pytest.raises(Conflict, match=r"Tried to create a prompt with name 'fraud', but .* by a registered model"):
        register(ledger, tags={PROMPT: "true"})
    assert [one.name for one in facts.list_assets(ledger, "prompt")] == ["greet"]


def test_the_pipeline_and_clients_never_share_a_name(ledger: Ledger) -> None:
    """Whoever comes first owns the name; the other is refused, and `current` stays what it was."""
    mine = ledger.write(lambda tx: make(tx, "delays", kind="model"), what="make")
    write(ledger, live.put_endpoint, name="delay_api", spec={}, at=START)
    for name in ("delays", "delay_api"):
        with pytest.raises(BadInput, match="register under another name"):
            register(ledger, name)
    with pytest.raises(BadInput, match="'delays' is a model that the project's pipeline makes"):
        add(ledger, "delays")
    register(ledger)
    with pytest.raises(BadInput, match="register under another name"):
        write(ledger, registry.rename_registered, "fraud", "delays", now_ms=1)
    add(ledger)
    assert facts.current(ledger, "delays") == mine
    with pytest.raises(Conflict, match="'fraud' is a model that clients have registered"):
        ledger.write(lambda tx: make(tx, "fraud", kind="model"), what="make")
    with pytest.raises(Conflict, match="is a model already"):
        write(ledger, live.put_endpoint, name="fraud", spec={}, at=START)


def test_versions_count_up_and_the_newest_is_current(ledger: Ledger) -> None:
    """A deleted version gives its number to no other, and `current` falls back to the one before."""
    register(ledger)
    first, second = add(ledger, description="one", run_link="l"), add(ledger, tags={"a": "b"}, now_ms=30)
    assert (first.number, first.stage, first.status, first.source) == (1, "None", "READY", "s3://b/m")
    assert (first.description, first.run_link, second.tags) == ("one", "l", {"a": "b"})
    assert registry.get_registered(ledger, "fraud").updated_ms == 30
    assert facts.resolve(ledger, "fraud").id == second.id
    write(ledger, registry.delete_version, "fraud", 2, now_ms=40)
    assert facts.resolve(ledger, "fraud").id == first.id
    with pytest.raises(NotFound, match=r"Model Version \(name=fraud, version=2\) not found"):
        registry.get_version(ledger, "fraud", 2)
    assert add(ledger).number == 3
    assert facts.get_version(ledger, second.id).state == "refused"
    with pytest.raises(NotFound, match="Registered Model with name=nope not found"):
        add(ledger, "nope")


def test_a_version_is_made_by_its_run(ledger: Ledger) -> None:
    """A logged model gives its version the run, the digest and the place of the files; a name stands for the same."""
    run, model_id = logged(ledger)
    register(ledger)
    direct = add(ledger, source=f"models:/{model_id}", model_id=model_id)
    by_run = add(ledger, source=f"runs:/{run}/clf", run_id=run)
    copied = add(ledger, source="models:/fraud/1")
    known = facts.get_version(ledger, direct.id)
    assert direct.run_id == run == by_run.run_id
    assert known.digest == facts.get_version(ledger, models.version_of(model_id)).digest != ""
    assert known.location["files"] == {"MLmodel": "sha256:aa"}
    root = models.get_model(ledger, model_id).root
    assert [registry.root_of(ledger, one) for one in (direct, by_run, copied)] == [root] * 3
    assert {one.id for one in facts.made_by(ledger, f"run_{run}")} >= {direct.id, by_run.id}
    far = add(ledger, source="s3://far/m", model_id=model_id)
    assert (registry.root_of(ledger, far), far.run_id) == ("s3://far/m", run)
    told = models.get_model(ledger, model_id).tags["mlflow.modelVersions"]
    assert told == '[{"name": "fraud", "version": 1}, {"name": "fraud", "version": 4}]'


def test_sources_that_mean_nothing_here(ledger: Ledger) -> None:
    """A run that is not on record is kept as text; a model that is not there is refused."""
    register(ledger)
    far = add(ledger, source="runs:/0123/model", run_id="0123")
    assert (far.run_id, registry.root_of(ledger, far)) == ("0123", "runs:/0123/model")
    assert facts.get_version(ledger, far.id).run_id == ""
    for source in (f"models:/m-{'0' * 32}", "models:/fraud/9", "models:/fraud@best", "models:/a/b/c"):
        with pytest.raises(BadInput, match="Unable to fetch model from model URI source artifact location"):
            add(ledger, source=source)
    run, _ = logged(ledger)
    write(ledger, artifacts.put_artifact, "", f"1/{run}/artifacts/sk/a", blob="sha256:bb", size=1, at=1)
    below = add(ledger, source=f"runs:/{run}/sk", run_id=run)
    assert registry.root_of(ledger, below) == f"mlflow-artifacts:/1/{run}/artifacts/sk"
    assert facts.get_version(ledger, below.id).location["files"] == {"a": "sha256:bb"}


def test_renaming_keeps_versions_tags_and_aliases(ledger: Ledger) -> None:
    """The new name has all that the old one had, and the old one is free."""
    register(ledger, tags={"t": "1"})
    version = add(ledger, tags={"u": "2"})
    write(ledger, facts.set_alias, "fraud", "best", version.id)
    made = write(ledger, registry.rename_registered, "fraud", "scam", now_ms=99)
    assert (made.name, made.tags, made.aliases, made.updated_ms) == ("scam", {"t": "1"}, {"best": 1}, 99)
    moved = registry.aliased(ledger, "scam", "best")
    assert (moved.id, moved.model, moved.tags, moved.updated_ms) == (version.id, "scam", {"u": "2"}, 99)
    assert register(ledger).latest == []
    with pytest.raises(Conflict, match=r"Registered Model \(name=scam\) already exists"):
        write(ledger, registry.rename_registered, "fraud", "scam", now_ms=1)
    assert write(ledger, registry.rename_registered, "scam", "scam", now_ms=100).name == "scam"


def test_deleting_frees_the_name_and_keeps_lineage(ledger: Ledger) -> None:
    """A model of the same name begins anew; what was made is still found by its id."""
    run, model_id = logged(ledger)
    register(ledger, tags={"t": "1"})
    old = add(ledger, source=f"models:/{model_id}")
    write(ledger, facts.set_alias, "fraud", "best", old.id)
    write(ledger, registry.delete_registered, "fraud")
    assert facts.list_assets(ledger) == []
    again = register(ledger)
    assert (again.tags, again.aliases, again.latest) == ({}, {}, [])
    assert add(ledger).number == 1
    assert facts.get_version(ledger, old.id).state == "refused"
    assert old.id in {one.id for one in facts.made_by(ledger, f"run_{run}")}
    write(ledger, registry.delete_registered, "fraud")
    with pytest.raises(NotFound):
        write(ledger, registry.delete_registered, "fraud")


def test_what_is_deployed_or_pinned_stays(ledger: Ledger) -> None:
    """Neither the version nor its model can be deleted, until it is taken down."""
    register(ledger)
    version, pinned = add(ledger), add(ledger)

    def deploy(tx: Tx) -> str:
        endpoint = live.put_endpoint(tx, name="fraud_api", spec={}, at=START)
        return live.add_deployment(tx, endpoint_id=endpoint.id, version_id=version.id, runtime={}, at=START).id

    deployment = ledger.write(deploy, what="deploy")
    held = [(1, "endpoint fraud_api has it deployed"), (2, r"it is pinned \(audit\)")]
    sql = "INSERT INTO pin(version_id, workspace, environment, reason, at) VALUES (?,'default','dev','audit',1)"
    ledger.write(lambda tx: tx.execute(sql, (pinned.id,)), what="pin")
    for number, words in held:
        with pytest.raises(BadInput, match=words):
            write(ledger, registry.delete_version, "fraud", number, now_ms=1)
    with pytest.raises(BadInput, match="cannot be deleted"):
        write(ledger, registry.delete_registered, "fraud")
    write(ledger, live.set_desired, deployment, "down")
    write(ledger, live.set_deployment_state, deployment, "stopped")
    write(ledger, registry.delete_version, "fraud", 1, now_ms=1)


def test_stages_and_the_newest_of_each(ledger: Ledger) -> None:
    """A version moves alone, or sends the others of its new stage to the archive."""
    register(ledger)
    for _ in range(3):
        add(ledger)
    for number in (1, 2):
        write(ledger, registry.move_version, "fraud", number, "Production", archive=False, now_ms=50)
    latest = registry.get_registered(ledger, "fraud").latest
    assert [(one.number, one.stage) for one in latest] == [(2, "Production"), (3, "None")]
    moved = write(ledger, registry.move_version, "fraud", 3, "Production", archive=True, now_ms=60)
    assert (moved.stage, moved.updated_ms) == ("Production", 60)
    latest = registry.get_registered(ledger, "fraud").latest
    assert [(one.number, one.stage) for one in latest] == [(2, "Archived"), (3, "Production")]
    assert registry.get_registered(ledger, "fraud").updated_ms == 60


def test_aliases_are_those_of_the_project(ledger: Ledger) -> None:
    """They move, go with their version, resolve in references, and each environment has its own."""
    register(ledger)
    first, second = add(ledger), add(ledger)
    write(ledger, facts.set_alias, "fraud", "best", first.id)
    write(ledger, facts.set_alias, "fraud", "best", second.id, expect=first.id)
    write(ledger, facts.set_alias, "fraud", "also", second.id)
    assert registry.get_version(ledger, "fraud", 2).aliases == ["also", "best"]
    assert facts.resolve(ledger, "fraud@best").id == second.id
    assert registry.get_registered(within(ledger, environment="prod"), "fraud").aliases == {}
    write(ledger, registry.drop_alias, "fraud", "also")
    write(ledger, registry.drop_alias, "fraud", "also")
    assert registry.aliased(ledger, "fraud", "Latest").number == 2
    write(ledger, registry.delete_version, "fraud", 2, now_ms=1)
    assert registry.get_registered(ledger, "fraud").aliases == {}
    with pytest.raises(BadInput, match="Registered model alias best not found"):
        registry.aliased(ledger, "fraud", "best")
    register(ledger, "empty")
    with pytest.raises(NotFound, match="Latest version not found for model empty"):
        registry.aliased(ledger, "empty", "latest")


def test_the_text_of_a_prompt_is_its_content(ledger: Ledger) -> None:
    """It has a digest and cannot be changed; other tags can."""
    register(ledger, "greet", tags={PROMPT: "true"})
    one, two, same = (
        add(ledger, "greet", source="prompt-template", tags={PROMPT: "true", TEXT: text})
        for text in ("hi {{you}}", "bye", "bye")
    )
    assert len({facts.get_version(ledger, version.id).digest for version in (one, two, same)}) == 2
    with pytest.raises(BadInput, match="register another version"):
        write(ledger, registrytags.tag_version, "greet", 1, {TEXT: "other"})
    write(ledger, registrytags.tag_version, "greet", 1, {TEXT: "hi {{you}}", "x": "1"})
    assert registry.get_version(ledger, "greet", 1).tags == {PROMPT: "true", TEXT: "hi {{you}}", "x": "1"}
    assert write(ledger, registry.describe_version, "greet", 1, "d", now_ms=77).updated_ms == 77


NAMES = st.sampled_from(["a", "b", "my model"])
ALIASES = st.sampled_from(["best", "next"])


class Registering(RuleBasedStateMachine):
    """Clients create, rename, delete, add versions and point aliases; a dictionary tells what must be there."""

    def __init__(self, ledger: Ledger) -> None:
        super().__init__()
        self.ledger = ledger
        self.known: dict[str, dict[str, Any]] = {}
        for asset in facts.list_assets(ledger):
            write(ledger, registry.delete_registered, asset.name)

    def act(self, fine: bool, function: Any, *args: Any, **options: Any) -> bool:
        """Do something that must work, or be refused."""
        try:
            write(self.ledger, function, *args, **options)
        except TrimtabError:
            assert not fine
            return False
        assert fine
        return True

    @rule(name=NAMES)
    def create(self, name: str) -> None:
        """Register a name."""
        if self.act(name not in self.known, registry.create_registered, name, now_ms=1):
            self.known[name] = {"versions": set(), "next": 1, "aliases": {}}

    @rule(name=NAMES, new=NAMES)
    def rename(self, name: str, new: str) -> None:
        """Rename a model, to its own name even."""
        fine = name in self.known and (new == name or new not in self.known)
        if self.act(fine, registry.rename_registered, name, new, now_ms=2):
            self.known[new] = self.known.pop(name)

    @rule(name=NAMES)
    def delete(self, name: str) -> None:
        """Delete a model."""
        if self.act(name in self.known, registry.delete_registered, name):
            del self.known[name]

    @rule(name=NAMES)
    def add(self, name: str) -> None:
        """Add a version."""
        if self.act(name in self.known, registry.create_version, name, source="s3://b", now_ms=3):
            model = self.known[name]
            model["versions"].add(model["next"])
            model["next"] += 1

    @precondition(lambda self: self.known)
    @rule(name=NAMES, number=st.integers(1, 3))
    def remove(self, name: str, number: int) -> None:
        """Delete a version."""
        fine = number in self.known.get(name, {}).get("versions", ())
        if self.act(fine, registry.delete_version, name, number, now_ms=4):
            model = self.known[name]
            model["versions"].remove(number)
            model["aliases"] = {alias: at for alias, at in model["aliases"].items() if at != number}

    @precondition(lambda self: self.known)
    @rule(name=NAMES, alias=ALIASES, number=st.integers(1, 3))
    def point(self, name: str, alias: str, number: int) -> None:
        """Point an alias to a version."""

        def put(tx: Tx) -> None:
            facts.set_alias(tx, name, alias, registry.get_version(tx, name, number).id)

        if self.act(number in self.known.get(name, {}).get("versions", ()), put):
            self.known[name]["aliases"][alias] = number

    @precondition(lambda self: self.known)
    @rule(name=NAMES, alias=ALIASES)
    def drop(self, name: str, alias: str) -> None:
        """Remove an alias."""
        if self.act(name in self.known, registry.drop_alias, name, alias):
            self.known[name]["aliases"].pop(alias, None)

    @invariant()
    def agrees(self) -> None:
        """The ledger says what the dictionary says, to clients and to the project."""
        assert {asset.name for asset in facts.list_assets(self.ledger)} == set(self.known)
        for name, model in self.known.items():
            found = registry.get_registered(self.ledger, name)
            newest = max(model["versions"], default=None)
            assert found.aliases == model["aliases"]
            assert [one.number for one in found.latest] == ([newest] if newest else [])
            current = facts.current(self.ledger, name)
            assert (current.number if current else None) == newest
            states = {one.number: one.state for one in facts.list_versions(self.ledger, name)}
            assert {number for number, state in states.items() if state == "published"} == model["versions"]
            assert set(states) == set(range(1, model["next"]))


def test_any_order_of_acts(ledger: Ledger) -> None:
    """Whatever clients do, names, numbers, aliases and `current` are what a simple model of them says."""
    machine: Any = partial(Registering, ledger)
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=EXAMPLES, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
