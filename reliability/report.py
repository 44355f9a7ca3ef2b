"""Generator of docs/reliability.md."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

PAGE = Path(__file__).resolve().parent.parent / "docs" / "reliability.md"
_TEXT = Path(__file__).with_name("report.md")

Results = Mapping[str, Any]


def page(results: Results) -> str:
    """Return the page: the text of ``report.md`` with the tables inserted."""
    places = {
        "campaign": campaign(results["campaign"]),
        "campaign-machine": _machine(results["campaign"]),
        "soak": soak(results["soak"]),
        "soak-machine": _machine(results["soak"]),
    }
    text = _TEXT.read_text()
    for name, table in places.items():
        text = text.replace(f"<!-- {name} -->\n", table)
    return text


def campaign(struck: Results) -> str:
    """Return the table of the faults of Redis."""
    head = (
        "fault",
        "policy",
        "times",
        "requests",
        "503",
        "other errors",
        "wrongly admitted",
        "slowest answer s (in the worker)",
        "well again s, median",
        "worst",
    )
    rows = [
        (
            row["fault"],
            row["policy"],
            f"{row['times']}",
            f"{row['requests']:,}",
            f"{row['unavailable']:,}",
            f"{row['other_violations'] + row['unanswered']}",
            f"{row['wrong_admissions']}",
            f"{row['slowest_s']:.2f} ({row['slowest_inside_s']:.2f})",
            f"{row['recovery_median_s']:.2f}",
            f"{row['recovery_worst_s']:.2f}",
        )
        for row in struck["rows"]
    ]
    ends = _table(
        ("over all faults", *(f"`{side['policy']}`" for side in struck["sides"])),
        [
            (text, *(f"{side[name]:,}" for side in struck["sides"]))
            for text, name in (
                ("keys revoked or disabled amid a fault, asked for at every worker to the end", "ended_keys"),
                ("keys with a cap", "capped_keys"),
                ("of them used up", "full_keys"),
                ("requests admitted over a cap", "over_cap"),
                ("units given out too often", "units_given_twice"),
            )
        ]
        + [("slowest answer s (in the worker) while nothing was broken", *map(_calm, struck["sides"]))],
    )
    return f"{_table(head, rows)}\n{ends}"


def soak(soaked: Results) -> str:
    """Return the tables of both halves of the soak."""
    return "\n".join(_half(half) for half in soaked["halves"])


def _half(half: Results) -> str:
    checks = [(check["promise"], check["seen"], "kept" if check["holds"] else "BROKEN") for check in half["checks"]]
    faults = [
        (
            row["fault"],
            f"{row['times']}",
            f"{row['unavailable']:,}",
            f"{row['unanswered']}",
            f"{row['slowest_s']:.2f} ({row['slowest_inside_s']:.2f})",
            f"{row['recovery_median_s']:.2f}",
            f"{row['recovery_worst_s']:.2f}",
        )
        for row in sorted(half["faults"], key=lambda row: str(row["fault"]))
    ]
    faults.append(("nothing is broken", "", "", "", _calm(half), "", ""))
    head = ("fault", "times", "503", "no answer", "slowest answer s (in the worker)", "well again s, median", "worst")
    memory = [
        (f"worker {number}", *(f"{value:.0f}" for value in steps))
        for number, steps in enumerate(half["memory_mib"], start=1)
    ]
    steps = ("memory in MiB", "at first", "a quarter", "half", "three quarters", "at last")
    return (
        f"### Policy `{half['policy']}`\n\n{half['seconds']} seconds, {half['requests']:,} requests, {half['keys']:,} "
        f"keys.\n\n{_table(('promise', 'seen', ''), checks)}\n{_table(head, faults)}\n{_table(steps, memory)}"
        f"\nThe client itself woke up {half['lag_s']:.2f} s late at worst; its answers look later by so much.\n"
    )


def _calm(part: Results) -> str:
    return f"{part['calm_slowest_s']:.2f} ({part['calm_slowest_inside_s']:.2f})"


def _machine(part: Results) -> str:
    return _table(("", ""), list(part["machine"].items()))


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
