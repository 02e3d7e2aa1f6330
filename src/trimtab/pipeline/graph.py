"""How a project's assets hang together: parameter names are the wiring."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from trimtab.check.declare import GATE_KINDS, MONITOR_KINDS, TABLE_KINDS
from trimtab.core.declare import AutomationDeclaration, Declaration, EndpointDeclaration
from trimtab.core.errors import NotFound, closest
from trimtab.core.ref import parse_ref
from trimtab.pipeline.manifest import Manifest
from trimtab.pipeline.problems import Problems
from trimtab.pipeline.project import Project

TABULAR = frozenset({"source", "table", "features"})


class Graph:
    """The assets of a project in an order in which they can be made.

    Attributes:
        nodes: asset name -> its declaration, inputs before what takes them.
        endpoints: endpoint name -> its declaration.
    """

    def __init__(self, nodes: Mapping[str, Declaration], endpoints: Mapping[str, EndpointDeclaration]) -> None:
        self.nodes = dict(nodes)
        self.endpoints = dict(endpoints)
        self._takers: dict[str, list[str]] = {name: [] for name in nodes}
        for name, node in nodes.items():
            for taken in node.inputs:
                self._takers[taken].append(name)

    @classmethod
    def build(cls, manifest: Manifest) -> Graph:
        """Return the graph that a manifest draws.

        Raises:
            ProjectError: a name is declared twice, an input or target does not exist or is of the wrong kind,
                a check judges something else, or the graph has a cycle.
        """
        problems = Problems()
        nodes = _by_name(manifest, problems)
        endpoints = {item.name: item for item in manifest.endpoints}
        for node in nodes.values():
            _check_inputs(node, nodes, endpoints, problems)
            _check_checks(node, nodes, problems)
        for endpoint in manifest.endpoints:
            _check_serves(endpoint, nodes, problems)
        for automation in manifest.automations:
            _check_automation(automation, nodes, endpoints, problems)
        order = _order(nodes, problems)
        problems.check()
        return cls({name: nodes[name] for name in order}, endpoints)

    @property
    def order(self) -> list[str]:
        """Asset names, inputs before what takes them."""
        return list(self.nodes)

    def node(self, name: str) -> Declaration:
        """Return the declaration of ``name``.

        Raises:
            NotFound: the project declares no such asset; the message names the closest.
        """
        if name not in self.nodes:
            what = "is an endpoint, not an asset" if name in self.endpoints else "is not an asset of this project"
            raise NotFound(f"{name!r} {what}{closest(name, self.nodes)}", fix="`trimtab plan` lists the assets")
        return self.nodes[name]

    def upstream(self, *names: str) -> list[str]:
        """Return all that ``names`` are made from, in order."""
        found: set[str] = set()
        waiting = [taken for name in names for taken in self.node(name).inputs]
        while waiting:
            name = waiting.pop()
            if name not in found:
                found.add(name)
                waiting.extend(self.nodes[name].inputs)
        return [name for name in self.nodes if name in found]

    def downstream(self, *names: str) -> list[str]:
        """Return all that is made from ``names``, in order."""
        found: set[str] = set()
        waiting = [taker for name in names for taker in self._takers[self.node(name).name]]
        while waiting:
            name = waiting.pop()
            if name not in found:
                found.add(name)
                waiting.extend(self._takers[name])
        return [name for name in self.nodes if name in found]

    def needed(self, targets: Iterable[str]) -> list[str]:
        """Return ``targets`` and all that they are made from, in order; everything when there are none."""
        wanted = tuple(targets)
        if not wanted:
            return self.order
        chosen = {self.node(name).name for name in wanted} | set(self.upstream(*wanted))
        return [name for name in self.nodes if name in chosen]


def check_live(project: Project, manifest: Manifest) -> None:
    """Check that what the project file says about environments is about things that are declared.

    Raises:
        ProjectError: an endpoint or automation has a name that nothing declares; the closest is told.
    """
    problems = Problems()
    declared = {
        "endpoints": [item.name for item in manifest.endpoints],
        "automations": [item.name for item in manifest.automations],
    }
    for environment, spec in project.environments.items():
        for section, known in declared.items():
            for name in spec.get(section) or {}:
                if name not in known:
                    problems.add(
                        f"no {section.removesuffix('s')} {name!r} is declared{closest(str(name), known)}",
                        where=project.where("environments", environment, section, str(name)),
                        fix=f"declared are {', '.join(known) or 'none'}",
                    )
    problems.check()


def _by_name(manifest: Manifest, problems: Problems) -> dict[str, Declaration]:
    places: dict[str, str] = {}
    every: list[Declaration | EndpointDeclaration] = [*manifest.declarations, *manifest.endpoints]
    for item in every:
        if item.name in places:
            problems.add(
                f"the name {item.name!r} is declared twice, here and at {places[item.name]}",
                where=item.where,
                fix="rename one of them; assets and endpoints share their names",
            )
        places.setdefault(item.name, item.where)
    automations: dict[str, str] = {}
    for automation in manifest.automations:
        if automation.name in automations:
            problems.add(
                f"the automation {automation.name!r} is declared twice, here and at {automations[automation.name]}",
                where=automation.where,
                fix="give one of them name='...'",
            )
        automations.setdefault(automation.name, automation.where)
    nodes: dict[str, Declaration] = {}
    for declaration in manifest.declarations:
        nodes.setdefault(declaration.name, declaration)
    return nodes


def _check_inputs(
    node: Declaration,
    nodes: Mapping[str, Declaration],
    endpoints: Mapping[str, EndpointDeclaration],
    problems: Problems,
) -> None:
    for name in node.inputs:
        if name in endpoints:
            problems.add(
                f"{node.name} takes {name!r}, which is an endpoint",
                where=node.where,
                fix="an input is a source, a table or a feature set",
            )
        elif name not in nodes:
            known = [other for other in nodes if other != node.name]
            problems.add(
                f"{node.name} takes {name!r}, which is not an asset of this project{closest(name, known)}",
                where=node.where,
                fix=f"rename the parameter, give it a default to make it a param, or declare {name!r}",
            )
        elif nodes[name].kind not in TABULAR and node.kind in (*TABULAR, "model"):
            problems.add(
                f"{node.name} takes {name!r}, which is a {nodes[name].kind} ({nodes[name].where})",
                where=node.where,
                fix="an input is a source, a table or a feature set",
            )
    data = node.spec.get("data")
    if node.kind == "model" and data is not None and data not in node.inputs:
        problems.add(
            f"data={data!r} is not an input of {node.name}{closest(str(data), node.inputs)}",
            where=node.where,
            fix=f"one of {', '.join(node.inputs) or 'its parameters'}",
        )


def _check_checks(node: Declaration, nodes: Mapping[str, Declaration], problems: Problems) -> None:
    allowed = GATE_KINDS if node.kind == "model" else TABLE_KINDS
    seen: set[str] = set()
    for check in node.checks:
        if check.kind not in allowed and node.kind in (*TABULAR, "model"):
            problems.add(
                f"ck.{check.kind} cannot judge the {node.kind} {node.name}",
                where=node.where,
                fix=f"here go {', '.join(f'ck.{kind}' for kind in sorted(allowed))}",
            )
        if check.name in seen:
            problems.add(f"{node.name} has the check {check.name} twice", where=node.where, fix="keep one")
        seen.add(check.name)
        champion = str(check.params.get("champion", ""))
        if check.kind == "beats" and champion:
            name = parse_ref(champion).name
            models = [other.name for other in nodes.values() if other.kind == "model"]
            if name and name not in models:
                problems.add(
                    f"ck.beats({champion!r}): {name!r} is not a model of this project{closest(name, models)}",
                    where=node.where,
                    fix=f"such as ck.beats('{node.name}@champion', ...)",
                )


def _check_serves(endpoint: EndpointDeclaration, nodes: Mapping[str, Declaration], problems: Problems) -> None:
    models = [node.name for node in nodes.values() if node.kind == "model"]
    if endpoint.serves in models:
        return
    found = nodes.get(endpoint.serves)
    what = f"is a {found.kind}, not a model" if found else "is not an asset of this project"
    what += closest(endpoint.serves, models)
    problems.add(
        f"endpoint {endpoint.name} serves {endpoint.serves!r}, which {what}",
        where=endpoint.where,
        fix="serve a function under @tt.model",
    )


def _check_automation(
    automation: AutomationDeclaration,
    nodes: Mapping[str, Declaration],
    endpoints: Mapping[str, EndpointDeclaration],
    problems: Problems,
) -> None:
    for action in automation.actions:
        known = list(nodes) if action.do == "run" else list(endpoints)
        if action.target not in known:
            what = "an asset" if action.do == "run" else "an endpoint"
            problems.add(
                f"the automation would {action.do} {action.target!r}, which is not {what} of this project"
                f"{closest(action.target, known)}",
                where=automation.where,
                fix=f"name {what} that is declared",
            )
    check = automation.when.check
    watched = str(check.params.get("calls") or check.params.get("endpoint") or "")
    name = watched.removesuffix(".calls")
    if check.kind in MONITOR_KINDS and name not in endpoints:
        problems.add(
            f"{check.name} watches {watched!r}, which is no endpoint's{closest(name, endpoints)}",
            where=automation.where,
            fix="such as 'my_endpoint.calls' for ck.drift and 'my_endpoint' for ck.performance",
        )


def _order(nodes: Mapping[str, Declaration], problems: Problems) -> list[str]:
    """Return names with inputs first, in the order of their declaration; a cycle is a problem."""
    state: dict[str, int] = {}
    order: list[str] = []
    for start in nodes:
        if start in state:
            continue
        path = [start]
        state[start] = 1
        stack = [iter(nodes[start].inputs)]
        while stack:
            name = next(stack[-1], None)
            if name is None:
                stack.pop()
                done = path.pop()
                state[done] = 2
                order.append(done)
            elif name not in nodes or state.get(name) == 2:
                continue
            elif state.get(name) == 1:
                cycle = [*path[path.index(name) :], name]
                problems.add(
                    f"these assets form a cycle: {' <- '.join(cycle)}",
                    where=nodes[name].where,
                    fix="cut the cycle: one of them must not take the other",
                )
            else:
                state[name] = 1
                path.append(name)
                stack.append(iter(nodes[name].inputs))
    return order
