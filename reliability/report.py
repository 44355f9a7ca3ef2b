"""Generator of docs/explanation/reliability.md."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

PAGE = Path(__file__).resolve().parent.parent / "docs" / "explanation/reliability.md"
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
        "slowest response s (in the worker)",
        "recovery s, median",
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
                ("keys revoked or disabled during a fault, then sent to every worker until the end", "ended_keys"),
                ("keys with a rate limit", "capped_keys"),
                ("of these, used up", "full_keys"),
                ("requests admitted over a limit", "over_cap"),
                ("admitted requests that Redis must have counted at the end", "counted"),
                ("of these, not counted", "uncounted"),
            )
        ]
        + [("slowest response s (in the worker) without a fault", *map(_calm, struck["sides"]))],
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
    faults.append(("no fault", "", "", "", _calm(half), "", ""))
    head = ("fault", "times", "503", "no response", "slowest response s (in the worker)", "recovery s, median", "worst")
    memory = [
        (f"worker {number}", *(f"{value:.0f}" for value in steps))
        for number, steps in enumerate(half["memory_mib"], start=1)
    ]
    steps = ("memory in MiB", "start", "25 %", "50 %", "75 %", "end")
    return (
        f"### Policy `{half['policy']}`\n\n{half['seconds']} seconds, {half['requests']:,} requests, {half['keys']:,} "
        f"keys.\n\n{_table(('promise', 'seen', ''), checks)}\n{_table(head, faults)}\n{_table(steps, memory)}"
        f"\nThe client itself was delayed by at most {half['lag_s']:.2f} s, which its response times include.\n"
    )


def _calm(part: Results) -> str:
    return f"{part['calm_slowest_s']:.2f} ({part['calm_slowest_inside_s']:.2f})"


def _machine(part: Results) -> str:
    return _table(("", ""), list(part["machine"].items()))


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
