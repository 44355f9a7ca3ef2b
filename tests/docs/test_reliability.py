"""docs/explanation/reliability.md matches the results of a complete run."""

import json

from reliability import report
from reliability.__main__ import FULL_MINUTES, FULL_TIMES, RESULTS


def test_the_page_comes_from_the_results() -> None:
    assert report.PAGE.read_text() == report.page(json.loads(RESULTS.read_text()))


def test_both_parts_were_run_in_full() -> None:
    results = json.loads(RESULTS.read_text())
    rows = results["campaign"]["rows"]
    assert {row["policy"] for row in rows} == {"local", "deny"}
    assert min(row["times"] for row in rows) >= FULL_TIMES
    assert results["soak"]["minutes"] >= FULL_MINUTES
    assert {half["policy"] for half in results["soak"]["halves"]} == {"local", "deny"}


def test_nothing_was_admitted_that_must_not_be_and_nothing_failed() -> None:
    results = json.loads(RESULTS.read_text())
    for side in results["campaign"]["sides"]:
        assert (side["violations"], side["over_cap"], side["uncounted"]) == ({}, 0, 0)
