"""Dashboard and alert rules of ``contrib``: what they ask for exists, by the manual's tables."""

from __future__ import annotations

import json
import re
from functools import cache
from itertools import combinations
from typing import Any

import pytest
import yaml

from autopush.metrics.prometheus import PrometheusMetrics
from autopush.tests import TREE
from autopush.tests.docs.test_catalogues import documented_metrics, literal
from autopush.tests.metrics.test_prometheus import samples
from autopush.workers.fleet import DELAYS

CONTRIB = TREE / "contrib"
DASHBOARD = json.loads((CONTRIB / "grafana" / "autopush.json").read_text("utf-8"))
ALERTS = yaml.safe_load((CONTRIB / "prometheus" / "alerts.yml").read_text("utf-8"))
RULES = [rule for group in ALERTS["groups"] for rule in group["rules"]]

TARGET = {"job", "instance"}
"""Labels Prometheus itself adds."""

FUNCTIONS = {
    "sum",
    "min",
    "max",
    "rate",
    "delta",
    "max_over_time",
    "histogram_quantile",
    "label_values",
}
OPERATORS = {"and", "by"}

TEXT = re.compile(r'"(?:[^"\\]|\\.)*"')
SELECTOR = re.compile(r"\{([^{}]*)\}")
RANGE = re.compile(r"\[(?:\d+[smhd]|\$__rate_interval)\]")
GROUPING = re.compile(r"\bby \(([\w, ]*)\)")
NAME = re.compile(r"[a-zA-Z_:][\w:]*")
NUMBER = re.compile(r"\b\d+(?:\.\d+)?\b")


@cache
def shown() -> dict[str, set[str]]:
    """Labels by name of all that Prometheus may be shown, made from the catalogue by ourselves."""
    metrics = PrometheusMetrics()
    report: dict[str, Any] = {
        "counter": metrics.increment,
        "gauge": lambda name, tags: metrics.gauge(name, 1, tags=tags),
        "timing": lambda name, tags: metrics.timing(name, 1, tags=tags),
        "histogram": lambda name, tags: metrics.observe(name, 1),
    }
    for name, row in documented_metrics().items():
        report[row[1]](name, tags=[tag.partition(":")[0] + ":x" for tag in literal(row[2])])
    found: dict[str, set[str]] = {"up": set()}
    for key in samples(metrics, ""):
        found.setdefault(key[0], set()).update(label for label, _ in key[1:])
    return found


def queries() -> dict[str, str]:
    """PromQL by where it stands."""
    found = {rule["alert"]: rule["expr"] for rule in RULES}
    for panel in DASHBOARD["panels"]:
        for target in panel["targets"]:
            found[f"{panel['title']} {target['refId']}"] = target["expr"]
    return found


def metrics_in(query: str) -> tuple[set[str], set[str]]:
    """Names of the metrics, and of the labels, in PromQL as far as it is used here.

    :raises AssertionError: it is none
    """
    bare = TEXT.sub('""', query)
    labels = set()
    for selector in SELECTOR.findall(bare):
        for matcher in selector.split(","):
            match = re.fullmatch(r'\s*(\w+)(=~|!~|!=|=)""', matcher)
            assert match, f"{matcher!r} in {query}"
            labels.add(match[1])
    bare = SELECTOR.sub("", bare)
    labels |= {label.strip() for inside in GROUPING.findall(bare) for label in inside.split(",")}
    bare = NUMBER.sub("", GROUPING.sub(" by ", RANGE.sub("", bare)))
    names = NAME.findall(bare)
    rest = NAME.sub("", bare)
    assert not re.sub(r"[\s(),/<>=*+-]", "", rest), f"{rest!r} in {query}"
    assert bare.count("(") == bare.count(")"), query
    assert set(re.findall(r"([\w:]+)\(", bare)) <= FUNCTIONS, query
    return set(names) - FUNCTIONS - OPERATORS, labels


@pytest.mark.parametrize("where", queries())
def test_metrics_and_labels_exist(where):
    names, labels = metrics_in(queries()[where])
    assert names
    assert names <= set(shown())
    assert labels <= TARGET.union(*(shown()[name] for name in names))


def test_the_check_finds_what_is_wrong():
    assert metrics_in('sum by (le) (rate(x_total{a=~"b.."}[5m])) > 0.5') == (
        {"x_total"},
        {"le", "a"},
    )
    for wrong in ("sum(x", "x{a}", "x[5]", "irate(x[5m])", "x % y;"):
        with pytest.raises(AssertionError):
            metrics_in(wrong)


def test_rates_are_of_counters():
    for query in queries().values():
        for name in re.findall(r"rate\((\w+)", query):
            assert name.endswith(("_total", "_bucket")), query


def test_differences_are_of_gauges():
    gauges = {
        f"autopush_{name.replace('.', '_')}"
        for name, row in documented_metrics().items()
        if row[1] == "gauge"
    }
    for query in queries().values():
        assert set(re.findall(r"delta\((\w+)", query)) <= gauges, query


def test_workers_that_stay_away_or_end_again_and_again_are_told_of():
    asked = {rule["alert"]: metrics_in(rule["expr"])[0] for rule in RULES}
    assert asked["AutopushWorkerDown"] == {"autopush_workers", "autopush_workers_up"}
    assert asked["AutopushWorkerRestarts"] == {"autopush_worker_restarts"}
    # One that is away to be started a last time isn't told of yet.
    (down,) = (rule for rule in RULES if rule["alert"] == "AutopushWorkerDown")
    assert DELAYS[-1] < 60 * int(down["for"].removesuffix("m"))


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_rules_say_what_to_do(rule):
    assert set(rule) <= {"alert", "expr", "for", "labels", "annotations"}
    assert re.fullmatch(r"Autopush[A-Z]\w+", rule["alert"])
    assert re.fullmatch(r"\d+[mh]", rule.get("for", "0m"))
    assert rule["labels"] in ({"severity": "critical"}, {"severity": "warning"})
    assert set(rule["annotations"]) == {"summary", "description"}
    for text in rule["annotations"].values():
        for template in re.findall(r"\{\{(.*?)\}\}", text):
            assert re.fullmatch(
                r' \$labels\.(instance|errno) | \$value | \$value \| printf "%\.1f" ', template
            )


def test_rules_have_names_of_their_own():
    assert len({rule["alert"] for rule in RULES}) == len(RULES)


def test_labels_in_the_annotations_are_left_by_the_query():
    for rule in RULES:
        used = set(re.findall(r"\$labels\.(\w+)", str(rule["annotations"])))
        grouped = GROUPING.search(rule["expr"])
        left = set(re.split(r", *", grouped[1])) if grouped else TARGET
        assert used <= left, rule["alert"]


def test_panels_have_a_place_each():
    places = []
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        assert 0 <= place["x"] < place["x"] + place["w"] <= 24
        places.append((panel["title"], place))
    for (first, one), (second, other) in combinations(places, 2):
        beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        above = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert beside or above, (first, second)
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(places)


def test_legends_use_labels_the_query_leaves():
    for panel in DASHBOARD["panels"]:
        for target in panel["targets"]:
            used = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
            grouped = GROUPING.search(target["expr"])
            assert used <= (set(re.split(r", *", grouped[1])) if grouped else TARGET), panel[
                "title"
            ]


def test_dashboard_is_of_no_installation():
    """Data source, job and instance are chosen where it is shown."""
    variables = {one["name"]: one for one in DASHBOARD["templating"]["list"]}
    assert set(variables) == {"datasource", *TARGET}
    for name in TARGET:
        assert metrics_in(variables[name]["query"]["query"])[0] <= {
            "autopush_build_info", *TARGET,
        }  # fmt: skip
    for panel in DASHBOARD["panels"]:
        for part in (panel, *panel["targets"]):
            assert part["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        for target in panel["targets"]:
            assert '{job=~"$job", instance=~"$instance"' in target["expr"]
