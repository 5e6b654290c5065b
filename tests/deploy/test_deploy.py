"""The dashboard, the alert rules and the example configuration name only metrics and labels that a real gateway has."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from ..docs import page
from .queries import grouped, metrics, picked

DEPLOY = Path(__file__).parents[2] / "deploy"
# Prometheus' own, of each target.
OWN = {"up"}
SUFFIX = re.compile(r"_(bucket|count|sum)$")


def dashboard() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((DEPLOY / "grafana" / "quiver.json").read_text())
    return found


def rules() -> list[dict[str, Any]]:
    found = yaml.safe_load((DEPLOY / "prometheus" / "alerts.yml").read_text())
    return [rule for group in found["groups"] for rule in group["rules"]]


def queries() -> Iterator[tuple[str, str]]:
    """Each with where it stands, and what is only a variable filled in."""
    for panel in dashboard()["panels"]:
        for target in panel.get("targets", []):
            yield f"panel {panel['title']}", target["expr"].replace("$__rate_interval", "5m")
    for variable in dashboard()["templating"]["list"]:
        if variable["type"] == "query":
            name, label = re.fullmatch(r"label_values\((\w+), (\w+)\)", variable["query"]["query"]).groups()  # type: ignore[union-attr]
            yield f"variable {variable['name']}", f"sum by ({label}) ({name})"
    for rule in rules():
        yield f"alert {rule['alert']}", rule["expr"]


def family_of(name: str) -> str:
    """The family that a series belongs to."""
    families = page.families()
    return name if name in families else SUFFIX.sub("", name)


def test_queries_name_what_there_is() -> None:
    families = page.families()
    wrong = []
    for where, query in queries():
        named = metrics(query)
        assert named, f"{where}: no metric in {query}"
        assert query.count("(") == query.count(")"), where
        wrong += [f"{where}: no metric {name}" for name in named - OWN if family_of(name) not in families]
        wrong += [
            f"{where}: {name} has no label {label}"
            for name, label in picked(query)
            if name not in OWN and label not in page.labels(families[family_of(name)])
        ]
        known = {label for name in named - OWN for label in page.labels(families[family_of(name)])}
        wrong += [f"{where}: nothing in it has the label {label}" for label in grouped(query) - known]
    assert wrong == []


def test_rates_are_of_counters() -> None:
    """A gauge has no rate, and a counter without one says nothing."""
    families = page.families()
    for where, query in queries():
        rated = set(re.findall(r"(?:rate|increase)\((\w+)", query))
        for name in rated:
            assert families[family_of(name)].type in ("counter", "histogram"), f"{where}: {name}"
        for name in metrics(query) - rated - OWN:
            assert families[family_of(name)].type == "gauge", f"{where}: {name}"


def test_panels_lie_side_by_side() -> None:
    taken: set[tuple[int, int]] = set()
    panels = dashboard()["panels"]
    for panel in panels:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken, panel["title"]
        assert at["x"] + at["w"] <= 24
        taken |= cells
    assert len({panel["id"] for panel in panels}) == len(panels)


def test_alerts_say_what_is_wrong() -> None:
    names = [rule["alert"] for rule in rules()]
    assert len(set(names)) == len(names)
    for rule in rules():
        assert rule["labels"]["severity"] in ("warning", "critical")
        assert rule["annotations"]["summary"]
        families = page.families()
        known = {"instance"}.union(*(page.labels(families[family_of(n)]) for n in metrics(rule["expr"]) - OWN))
        for label in re.findall(r"\$labels\.(\w+)", rule["annotations"]["summary"]):
            assert label in known
            aggregated = re.search(r"\bby \(", rule["expr"])
            assert not aggregated or label in rule["expr"], f"{rule['alert']} loses {label}"


def test_example_uses_the_rules() -> None:
    found = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())
    assert found["rule_files"] == ["alerts.yml"]
    (job,) = found["scrape_configs"]
    assert job["job_name"] == "quiver"
    jobs = {match for _, query in queries() for match in re.findall(r'job="(\w+)"', query)}
    assert jobs == {"quiver"}


@pytest.mark.parametrize(
    ("query", "names", "labels", "groups"),
    [
        ('sum by (a, le) (rate(x_bucket{b="c{d}", e!~"f"}[5m])) / 2e9', {"x_bucket"}, {"b", "e"}, {"a", "le"}),
        (
            "histogram_quantile(0.95, sum by (le) (rate(h_bucket[1m]))) > 1 and on (i) g",
            {"h_bucket", "g"},
            set(),
            {"le", "i"},
        ),
        ("max(a) or b unless c_total == bool 1", {"a", "b", "c_total"}, set(), set()),
    ],
)
def test_names_are_found(query: str, names: set[str], labels: set[str], groups: set[str]) -> None:
    assert metrics(query) == names
    assert {label for _, label in picked(query)} == labels
    assert grouped(query) == groups
