"""The page of results: Markdown from the rows of all benchmarks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

Row = dict[str, Any]
LEGEND = """\
Seconds are per instance: processor time of the one thread that either side has (wall time on a GPU). Ours is one call
over all instances, the median of up to three, divided by their number; index, extraction and the proof of every cut
are in it, making `Instances` once is told apart. The peer, which is PyG unless the case says otherwise, explains one
instance at a time, before and after ours; its figure is the median of a few instances spread over the sizes of
computation graphs. *Must* and *aim* are the ratios asked for. The difference is the largest of any entry of any mask,
as a share of the largest entry, over whole graphs, from equal initial masks where a method has them. Where walks are
listed, they are the instances, and the peer's figure is the mean of a few spread over their ranks."""
COUNTS = """\
The second table holds counts, which do not depend on the machine's load, and memory. *Edges* are those of the mean
computation graph, and those that the peer's network sees; *forwards* are runs of the network, ours for all instances
together (probes, proofs and what is done again from a tape included), the peer's for one; *edge visits* are the edges
in all these runs, per instance.
Memory is of the process, before ours and at most."""
Columns = dict[str, Callable[[Row], str]]
TIMES: Columns = {
    "case": lambda row: row["work"],
    "instances": lambda row: str(row["instances"]),
    "ours, s": lambda row: short(row["ours s"]),
    "`Instances`, s": lambda row: short(row["Instances s"]),
    "peer, s, before / after": lambda row: f"{short(row['peer s before'])} / {short(row['peer s after'])}",
    "ratio": lambda row: f"**{short(row['ratio'])}**",
    "must": lambda row: short(row["must"]),
    "aim": lambda row: short(row["aim"]),
    "difference float32": lambda row: short(row["difference float32"]),
    "float64": lambda row: short(row["difference float64"]),
}
WORK: Columns = {
    "case": lambda row: row["case"],
    "edges, ours / peer": lambda row: f"{short(row['edges'])} / {short(row['peer edges'])}",
    "forwards": lambda row: f"{row['forwards']} / {short(row['peer forwards'])}",
    "edge visits": lambda row: f"{short(row['edge visits'])} / {short(row['peer edge visits'])}",
    "ours, ms per 1000 edges": lambda row: short(1e6 * row["ours s"] / max(row["edges"], 1)),
    "MB before, ours, peer": lambda row: " / ".join(short(row[k]) for k in ("start MB", "peak MB", "peer peak MB")),
}


def page(found: Sequence[tuple[str, dict[str, Any]]], command: str) -> str:
    """Return the page.

    Parameters
    ----------
    found : sequence of (script, outcome)
        An outcome holds ``environment`` and ``rows``, or what the script ``printed``.
    command : str
        How the page was made.
    """
    has_rows = any("rows" in outcome for _, outcome in found)
    parts = ["# Performance" if has_rows else "# Results", f"Written by `{command}`."]
    parts += [LEGEND, COUNTS] if has_rows else []
    for script, outcome in found:
        parts.append(f"## `{script}`")
        if "printed" in outcome:
            parts.append(f"```\n{outcome['printed'].strip()}\n```")
        else:
            parts += _section(outcome["environment"], outcome["rows"])
    return "\n\n".join(parts) + "\n"


def _section(environment: dict[str, Any], rows: list[Row]) -> list[str]:
    about = ", ".join(f"{name} {value}" for name, value in environment.items()) + "."
    parts = [about, table(rows, TIMES), table(rows, WORK)]
    remarks = [f"- {row['case']}: {text}." for row in rows for text in (row["note"], row["path"]) if text]
    remarks += _growth({row["case"]: row for row in rows})
    return parts + (["\n".join(remarks)] if remarks else [])


def _growth(rows: dict[str, Row]) -> list[str]:
    """Say how the cost of an edge of the computation graph grows with the graph."""
    sizes = [name for name in ("power-law-1e4", "power-law-1e5", "power-law-1e6") if name in rows]
    if len(sizes) < 2:
        return []
    small, large = (rows[name]["ours s"] / rows[name]["edges"] for name in (sizes[0], sizes[-1]))
    return [
        f"- An edge of a computation graph costs {short(large / small)} times as much in {sizes[-1]} as in {sizes[0]}."
    ]


def table(rows: Sequence[Row], columns: Columns) -> str:
    """Return a Markdown table."""
    lines = [list(columns), ["---"] * len(columns), *([cell(row) for cell in columns.values()] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def short(value: Any) -> str:
    """Return a value with as many digits as mean something."""
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return str(value)
