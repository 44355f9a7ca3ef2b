"""docs/explanation/benchmarks.md and the README match the measured results."""

import json

from benchmarks import report, scale
from benchmarks.__main__ import RESULTS
from benchmarks.subjects import COLD, OURS, PEERS, REFUSED


def test_pages_plot_and_readme_come_from_the_results() -> None:
    results = json.loads(RESULTS.read_text())
    assert report.PAGE.read_text() == report.page(results)
    assert report.PLOT.read_text() == report.plot(results)
    assert scale.PAGE.read_text() == scale.page(results)
    readme = report.README.read_text()
    assert readme == report.with_summary(readme, results)


def test_every_subject_was_measured() -> None:
    results = json.loads(RESULTS.read_text())
    measured = {row["name"] for row in results["ours"] + results["peers"]}
    assert measured == {"dictionary", *(subject.name for subject in (*OURS, *REFUSED, COLD, *PEERS))}
