"""Generator of docs/explanation/benchmarks.md and its plot."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import scale

DOCS = Path(__file__).resolve().parent.parent / "docs"
README = DOCS.parent / "README.md"
PAGE = DOCS / "explanation/benchmarks.md"
PLOT = DOCS / "images" / "benchmarks.svg"
_TEXT = Path(__file__).with_name("report.md")

SUMMARY_AT = 16
"""Connections of the figures in the README."""

Results = Mapping[str, Any]


def write(results: Results) -> list[Path]:
    """Write the pages, the plot and the table in the README."""
    PLOT.parent.mkdir(exist_ok=True)
    PLOT.write_text(plot(results))
    PAGE.write_text(page(results))
    README.write_text(with_summary(README.read_text(), results))
    scale.PAGE.write_text(scale.page(results))
    return [PAGE, PLOT, README, scale.PAGE]


def with_summary(readme: str, results: Results) -> str:
    """Return the README with a few of these results between its two marks."""
    start, end = "<!-- from make bench -->\n", "<!-- to here -->"
    head, _, rest = readme.partition(start)
    return head + start + "\n" + _summary(results) + "\n" + end + rest.partition(end)[2]


def _summary(results: Results) -> str:
    figures = all_figures(results)
    dictionary, redis, protect = (find(figures, name, SUMMARY_AT) for name in ("dictionary", "redis", "protect"))
    peers = sorted(
        (row for row in results["peers"] if row["connections"] == SUMMARY_AT),
        key=lambda row: row["share"],
        reverse=True,
    )
    rows = [
        ("a dictionary of keys in code, without limits or hashes", dictionary),
        ("**fastapi-keyauth on Redis, as middleware**", protect),
        ("**fastapi-keyauth on Redis, as a dependency**", redis),
        *((row["label"], row) for row in peers[:2]),
    ]
    return _table(("checked by", "share of a bare route"), [(text, _share(row["share"])) for text, row in rows])


def page(results: Results) -> str:
    """Return the page: the text of ``report.md`` with the tables inserted."""
    places = {
        "machine": _machine(results),
        "goals": _goals(results),
        "ours": _figures(all_figures(results), "ours"),
        "refused": _figures(all_figures(results), "refused"),
        "peers": _figures(all_figures(results), "peers"),
        "frozen": _frozen(results),
        "tables": _table(
            ("keys in the table", "one warm key", "each request reads the table"),
            [(f"{row['keys']:,}", f"{row['warm']:.2f}", f"{row['read']:.2f}") for row in results["tables"]],
        ),
        "caches": _table(
            ("warm keys in a worker", "bytes for each", "CPU us for a request, without FastAPI"),
            [
                (
                    f"{row['keys']:,}",
                    f"{row['bytes_each']:,.0f}" if row["keys"] >= 10_000 else "-",
                    f"{row['request_us']:.0f}",
                )
                for row in results["caches"]
            ],
        ),
        "limits": _limits(results),
        "inside": _inside(results),
        "in_process": _in_process(results),
    }
    text = _TEXT.read_text()
    for name, table in places.items():
        text = text.replace(f"<!-- {name} -->\n", table)
    return text


def all_figures(results: Results) -> list[Mapping[str, Any]]:
    """Return the figures of our modes and of the other packages."""
    return [*results["ours"], *results["peers"]]


def find(figures: Sequence[Mapping[str, Any]], name: str, connections: int) -> Mapping[str, Any]:
    """Return the figure of a subject at this number of connections."""
    return next(row for row in figures if row["name"] == name and row["connections"] == connections)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _machine(results: Results) -> str:
    rounds = ", ".join(f"{part} {count}" for part, count in results["rounds"].items())
    return _table(("", ""), [*results["machine"].items(), ("rounds", rounds)])


def _figures(figures: Sequence[Mapping[str, Any]], group: str) -> str:
    rows = []
    for name, label in dict.fromkeys((row["name"], row["label"]) for row in figures if row["group"] == group):
        seen = {row["connections"]: row for row in figures if row["name"] == name}
        shares = " / ".join(_share(seen[count]["share"]) if count in seen else "-" for count in (1, 16, 64))
        main = seen.get(16) or seen[1]
        spread = f"{main['lowest']:.2f}-{main['highest']:.2f}" if main["share"] > 0.02 else "-"
        rows.append(
            (label, shares, spread, f"{main['cpu_us']:,.0f}", f"{main['above_us']:+,.0f}", f"{main['p99_ratio']:.1f}")
        )
    head = ("", "share of bare at 1 / 16 / 64", "lowest-highest at 16", "CPU us", "above bare", "p99, times bare")
    return _table(head, rows)


def _share(share: float) -> str:
    return f"{share:.2f}" if share >= 0.01 else f"{share:.4f}"


def _frozen(results: Results) -> str:
    rows = []
    for row in results["frozen"]:
        plain = find(all_figures(results), row["name"], row["connections"])
        rows.append(
            (
                f"{row['label']}, {row['connections']} connections",
                f"{plain['share']:.2f}",
                f"{row['share']:.2f}",
                f"{plain['p99_ms']:.1f} ({plain['bare_p99_ms']:.1f})",
                f"{row['p99_ms']:.1f} ({row['bare_p99_ms']:.1f})",
            )
        )
    head = ("", "share", "share, frozen", "p99 ms (bare)", "p99 ms (bare), frozen")
    return _table(head, rows)


def _in_process(results: Results) -> str:
    labels = {
        "dictionary": "APIKeyHeader + dictionary",
        "memory": "memory limiter, dependency",
        "memory-protect": "memory limiter, middleware",
        "redis": "Redis with a lease, dependency",
        "redis-protect": "Redis with a lease, middleware",
    }
    seen = results["in_process"]
    rows = [("bare route", f"{seen['bare']:.0f}"), *((label, f"{seen[name]:+.1f}") for name, label in labels.items())]
    return _table(("", "CPU us"), rows)


def _goals(results: Results) -> str:
    figures = all_figures(results)

    def share(name: str, connections: int) -> float:
        return float(find(figures, name, connections)["share"])

    def over(name: str, other: str, connections: int) -> float:
        # Ratio of shares: each was measured beside its own bare route, and the machine's speed drifts.
        return share(name, connections) / share(other, connections)

    above = [
        find(figures, "redis", count)["above_us"] - find(figures, "dictionary", count)["above_us"] for count in (16, 64)
    ]
    million = next(row for row in results["tables"] if row["keys"] == 1_000_000)
    warm = next(row for row in results["caches"] if row["keys"] == 100_000)
    hashing, revocation, in_process = results["hashing"], results["revocation"], results["in_process"]
    further = [row for row in results["limits"] if row["further"]]
    at_least: list[tuple[str, float, float]] = [
        *(
            (
                f"Redis, dependency, {_at(count)}: share of header + dictionary",
                1.0,
                over("redis", "dictionary", count),
            )
            for count in (1, 16, 64)
        ),
        *(
            (f"Redis, dependency, {_at(count)}: share of bare", goal, share("redis", count))
            for count, goal in ((1, 0.79), (16, 0.83), (64, 0.82))
        ),
        *((f"Redis, middleware, {_at(count)}: share of bare", 0.93, share("protect", count)) for count in (1, 16, 64)),
        ("times keysigil on Redis, 16 connections", 3.6, over("redis", "keysigil", 16)),
        ("times limits on Redis, 16 connections", 2.0, over("redis", "limits", 16)),
        ("wrong key, unknown id, 16 connections: share of bare", 0.65, share("unknown", 16)),
        ("wrong key, known id, 16 connections: share of bare", 0.65, share("wrong", 16)),
        ("blocked address by dependency, 16 connections: share of bare", 0.85, share("blocked", 16)),
        ("blocked address by middleware, 16 connections: share of bare", 0.85, share("blocked-protect", 16)),
        ("one warm key with 1,000,000 in the table, share of that with 100", 0.90, million["warm"]),
    ]
    at_most: list[tuple[str, float, float]] = [
        ("in one process, above bare, dependency, CPU us: memory limiter", 17, in_process["memory"]),
        ("the same, Redis with a lease", 17, in_process["redis"]),
        ("in one process, above bare, middleware, CPU us: memory limiter", 7, in_process["memory-protect"]),
        ("the same, Redis with a lease", 7, in_process["redis-protect"]),
        ("Redis, dependency: CPU us above header + dictionary, worse of 16 and 64 connections", 0, max(above)),
        *(
            (f"p99 at 64 connections, {label}: times bare", 2, find(figures, name, 64)["p99_ratio"])
            for name, label in (
                ("redis", "Redis, dependency"),
                ("protect", "Redis, middleware"),
                ("memory", "memory limiter"),
            )
        ),
        ("Redis calls for 1,000 requests of a busy key, 16 connections", 2, find(figures, "redis", 16)["redis_calls"]),
        ("CPU s of a restarted worker until 1,000 known keys are admitted", 2, results["restart"]["tickets_s"]),
        (
            f"ms that leases of {revocation['lease_ms']} ms add to a revocation under load",
            revocation["lease_ms"] + 50,
            revocation["with_ms"] - revocation["without_ms"],
        ),
        *(
            (f"CPU us of {place} for each further limit, highest", goal, max(r[name] / r["further"] for r in further))
            for place, goal, name in (
                ("a worker", 4, "leased_above_us"),
                ("a worker without leases", 4, "asked_above_us"),
                ("Redis without leases", 2, "redis_above_us"),
            )
        ),
        ("bytes of memory for a warm key", 1536, warm["bytes_each"]),
        ("bytes in Redis for an active key", 300, results["redis_bytes"]),
        ("ms that the event loop was late while 200 new keys waited for hashing", 20, hashing["worst_stall_ms"]),
    ]
    rows = [(text, f"at least {goal:g}", f"{seen:.2f}", _met(seen >= goal)) for text, goal, seen in at_least]
    rows += [(text, f"at most {goal:g}", f"{seen:,.1f}", _met(seen <= goal)) for text, goal, seen in at_most]
    return _table(("", "goal", "measured", ""), rows)


def _limits(results: Results) -> str:
    def above(row: Mapping[str, Any], name: str) -> tuple[str, str]:
        further = row["further"]
        each = f"{row[f'{name}_above_us'] / further:+.1f}" if further else "-"
        return f"{row[f'{name}_us']:.0f}", each

    columns = {"leased": "worker", "asked": "worker, no leases", "redis": "Redis, no leases"}
    head = ("limits", *(text for column in columns.values() for text in (column, "each further limit")))
    rows = [(row["label"], *(text for name in columns for text in above(row, name))) for row in results["limits"]]
    return _table(head, rows)


def _at(connections: int) -> str:
    return "1 connection" if connections == 1 else f"{connections} connections"


def _met(is_met: bool) -> str:
    return "reached" if is_met else "missed"


def _inside(results: Results) -> str:
    hashing, hops = results["hashing"], results["hops"]
    rows = [
        ("one Argon2 hash at the default settings, with its wait for a thread", f"{hashing['each_ms']:.0f} ms"),
        ("200 keys seen for the first time concurrently, until all are admitted", f"{hashing['took_s']:.1f} s"),
        ("longest stall of the event loop once all wait for their hash", f"{hashing['worst_stall_ms']:.1f} ms"),
        ("longest stall in the burst before that", f"{hashing['burst_stall_ms']:.1f} ms"),
        ("longest stall in the same burst with hashing left out", f"{hashing['plain_stall_ms']:.1f} ms"),
        ("threads that hash", str(hashing["threads"])),
        ("memory that 200 waiting hashes add to the process (allowed)", _growth(hashing)),
        *_restart(results),
        *_in_flight(results),
        ("bytes in Redis for an active key", f"{results['redis_bytes']:.0f}"),
        ("Python calls of this package for a warm request, dependency", _hops(hops["dependency"])),
        ("Python calls of this package for a warm request, middleware", _hops(hops["middleware"])),
    ]
    return _table(("", ""), rows)


def _restart(results: Results) -> list[tuple[str, str]]:
    if "restart" not in results:  # not measured yet
        return []
    seen = results["restart"]
    return [
        ("CPU of a restarted worker until 1,000 known keys are admitted", f"{seen['argon2_s']:.0f} s"),
        ("the same with `ticket_key`", f"{seen['tickets_s']:.1f} s"),
    ]


def _in_flight(results: Results) -> list[tuple[str, str]]:
    if "in_flight" not in results:  # not measured yet
        return []
    seen = results["in_flight"]
    keys, one_key, unchecked = seen["keys"], seen["one_key"], seen["unchecked"]
    idle = unchecked["cpu_ms_per_s"]
    return [
        (
            "CPU to check 5,000 open streams of one key again, in each second",
            f"{max(0.0, one_key['cpu_ms_per_s'] - idle):.0f} ms",
        ),
        (
            "the same with 5,000 keys",
            f"{max(0.0, keys['cpu_ms_per_s'] - idle):.0f} ms",
        ),
        (
            "memory that this adds to a stream",
            f"{max(0.0, one_key['bytes_each'] - unchecked['bytes_each']):.0f} bytes",
        ),
        ("5,000 streams of one key, from its revocation until all have ended", f"{seen['ended_s']:.1f} s"),
    ]


def _growth(hashing: Mapping[str, float]) -> str:
    return f"{hashing['memory_mib']:.0f} MiB ({hashing['allowed_mib']:.0f} MiB)"


def _hops(hops: Mapping[str, int]) -> str:
    return f"{hops['calls']}; depth of coroutines: {hops['depth']}"


def plot(results: Results) -> str:
    """Return a bar plot: share of bare at 16 connections (at 1 if nothing else was measured)."""
    rows: list[tuple[str, float, str]] = [("bare route", 1.0, "#9aa3af")]
    for group, color in (("ours", "#2563eb"), ("peers", "#d97706")):
        names = dict.fromkeys((row["name"], row["label"]) for row in all_figures(results) if row["group"] == group)
        for name, label in names:
            seen = {row["connections"]: row for row in all_figures(results) if row["name"] == name}
            is_ours = group == "ours" and name != "dictionary"
            text = f"fastapi-keyauth, {label}" if is_ours else label
            rows.append((text, (seen.get(16) or seen[1])["share"], color if is_ours or group == "peers" else "#9aa3af"))
    left, width, bar, gap, top = 330, 380, 18, 8, 34
    height = top + len(rows) * (bar + gap) + 12
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {left + width + 60} {height}" role="img" '
        'font-family="system-ui, sans-serif" font-size="13">',
        "<title>Requests per second as a share of a bare FastAPI route, 16 connections</title>",
        f'<rect width="{left + width + 60}" height="{height}" fill="#ffffff"/>',
        '<text x="10" y="20" font-weight="600" fill="#111827">'
        "Requests per second at 16 connections, share of a bare route</text>",
    ]
    for number, (label, share, color) in enumerate(rows):
        y = top + number * (bar + gap)
        parts.append(
            f'<text x="{left - 8}" y="{y + 13}" text-anchor="end" fill="#111827">{html.escape(label)}</text>'
            f'<rect x="{left}" y="{y}" width="{max(1.0, width * share):.1f}" height="{bar}" rx="3" fill="{color}"/>'
            f'<text x="{left + max(1.0, width * share) + 6:.1f}" y="{y + 13}" fill="#111827">{_share(share)}</text>'
        )
    return "\n".join([*parts, "</svg>"]) + "\n"
