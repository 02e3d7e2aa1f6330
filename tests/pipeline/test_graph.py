"""How assets hang together."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from trimtab import check as ck
from trimtab.core.declare import Action, AutomationDeclaration, Declaration, EndpointDeclaration
from trimtab.core.errors import NotFound, ProjectError
from trimtab.pipeline.graph import Graph
from trimtab.pipeline.manifest import Manifest


def _asset(name: str, *inputs: str, kind: str = "table", line: int = 1, **more: Any) -> Declaration:
    return Declaration(name=name, kind=kind, module="m", qualname=name, file="m.py", line=line, inputs=inputs, **more)


def _manifest(*assets: Declaration, **more: Any) -> Manifest:
    fields: dict[str, Any] = {"endpoints": [], "automations": [], **more}
    return Manifest(project="p", declarations=list(assets), code={}, steps={}, checks={}, snapshot={}, **fields)


def _wrong(made: Manifest) -> str:
    with pytest.raises(ProjectError) as caught:
        Graph.build(made)
    return str(caught.value)


def _endpoint(name: str, serves: str) -> EndpointDeclaration:
    return EndpointDeclaration(name=name, serves=serves, spec={}, file="m.py", line=9)


def test_order_and_neighbours() -> None:
    """Inputs come before what takes them; upstream and downstream are transitive."""
    graph = Graph.build(_manifest(_asset("c", "b"), _asset("b", "a"), _asset("a", kind="source"), _asset("d", "a")))
    assert graph.order.index("a") < graph.order.index("b") < graph.order.index("c")
    assert graph.upstream("c") == ["a", "b"]
    assert graph.downstream("a") == ["b", "c", "d"]
    assert graph.needed(["b"]) == ["a", "b"]
    assert set(graph.needed([])) == {"a", "b", "c", "d"}


def test_unknown_target_names_the_closest() -> None:
    """Asking for an asset that is not there names the closest one that is."""
    graph = Graph.build(_manifest(_asset("flights", kind="source")))
    with pytest.raises(NotFound, match="did you mean 'flights'"):
        graph.needed(["flihgts"])


def test_unknown_input() -> None:
    """An input that is no asset is told with the place and the closest name."""
    text = _wrong(_manifest(_asset("flights", kind="source"), _asset("clean", "flight", line=7)))
    assert "m.py:7" in text and "did you mean 'flights'" in text


def test_cycle_is_printed() -> None:
    """A cycle is printed from its first asset back to it."""
    text = _wrong(_manifest(_asset("a", "c"), _asset("b", "a"), _asset("c", "b"), _asset("d", "c")))
    assert "a <- c <- b <- a" in text and text.count("<-") == 3


def test_asset_that_takes_itself() -> None:
    """An asset cannot be its own input."""
    assert "a <- a" in _wrong(_manifest(_asset("a", "a")))


def test_duplicate_names_tell_both_places() -> None:
    """A name that is declared twice is told with both places; endpoints share the name space."""
    text = _wrong(_manifest(_asset("a", kind="source", line=3), _asset("a", kind="source", line=5)))
    assert "m.py:5" in text and "m.py:3" in text
    model = _asset("m", kind="model")
    assert "declared twice" in _wrong(_manifest(model, endpoints=[_endpoint("m", "m")]))


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (lambda: _manifest(_asset("m", kind="model"), _asset("t", "m")), "which is a model"),
        (
            lambda: _manifest(
                _asset("m", kind="model"), _asset("t", "api"), endpoints=[_endpoint("api", serves="m")]
            ),
            "which is an endpoint",
        ),
        (
            lambda: _manifest(_asset("t", kind="source"), endpoints=[_endpoint("api", serves="t")]),
            "is a source, not a model",
        ),
        (
            lambda: _manifest(_asset("delays", kind="model"), endpoints=[_endpoint("api", serves="delay")]),
            "did you mean 'delays'",
        ),
        (
            lambda: _manifest(_asset("t", kind="source", checks=(ck.metric("auc", above=0.5),))),
            "ck.metric cannot judge the source t",
        ),
        (
            lambda: _manifest(_asset("m", kind="model", checks=(ck.unique("id"),))),
            "ck.unique cannot judge the model m",
        ),
        (
            lambda: _manifest(
                _asset("delays", kind="model", checks=(ck.beats("delay@champion", on="auc"),))
            ),
            "did you mean 'delays'",
        ),
        (
            lambda: _manifest(
                _asset("a", kind="source"), _asset("m", "a", kind="model", spec={"data": "b"})
            ),
            "data='b' is not an input",
        ),
    ],
)  # fmt: skip
def test_wrong_kinds(made: Callable[[], Manifest], message: str) -> None:
    """What is wired to the wrong kind of thing is told."""
    assert message in _wrong(made())


def test_automations_name_what_exists() -> None:
    """An automation that runs, rolls out or watches something unknown is told with its place."""
    model = _asset("delays", kind="model")

    def automation(*actions: Action, watched: str = "api.calls") -> AutomationDeclaration:
        return AutomationDeclaration(
            name=f"a{len(actions)}{watched}",
            when=ck.drift(watched).fails,
            actions=actions,
            spec={},
            file="m.py",
            line=20,
        )

    good = Action(do="run", target="delays")
    api = [_endpoint("api", "delays")]
    Graph.build(_manifest(model, endpoints=api, automations=[automation(good)]))
    bad = Action(do="roll_out", target="delays")
    assert "not an endpoint" in _wrong(_manifest(model, endpoints=api, automations=[automation(good, bad)]))
    text = _wrong(_manifest(model, endpoints=api, automations=[automation(good, watched="apy.calls")]))
    assert "did you mean 'api'" in text and "m.py:20" in text


def test_several_mistakes_are_told_together() -> None:
    """All mistakes of a graph come in one error."""
    text = _wrong(_manifest(_asset("a", "x", line=1), _asset("b", "y", line=2)))
    assert "2 things are wrong" in text
