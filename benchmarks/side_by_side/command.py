"""The command line of a benchmark: which cases, how large, and where the rows go."""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
import torch_geometric
from threadpoolctl import threadpool_limits

from side_by_side.page import short


class Runnable(Protocol):
    """A case: one row of the table."""

    name: str
    large: bool

    def run(self, toy: bool, device: str) -> dict[str, Any]:
        """Return the row."""


def run_cases(description: str, cases: Sequence[Runnable]) -> None:
    """Run the cases that the command line asks for, and print one row each."""
    arguments = _parser(description, cases).parse_args()
    torch.set_num_threads(1)
    chosen = [
        case for case in cases if (case.name in arguments.case if arguments.case else arguments.large or not case.large)
    ]
    about = environment(arguments.device)
    print("  ".join(f"{name}: {value}" for name, value in about.items()), flush=True)
    rows = []
    with threadpool_limits(1):
        for case in chosen:
            torch.manual_seed(0)
            rows.append(case.run(arguments.toy, arguments.device))
            print("\n" + text_of(rows[-1]), flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps({"environment": about, "rows": rows}, indent=1) + "\n")


def _parser(description: str, cases: Sequence[Runnable]) -> argparse.ArgumentParser:
    names = [case.name for case in cases]
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", action="append", choices=names, metavar="NAME", help=f"of {', '.join(names)}")
    parser.add_argument("--toy", action="store_true", help="small sizes, to check that it runs")
    parser.add_argument("--large", action="store_true", help="graphs of a million nodes, too; PyG takes 8 GB on them")
    parser.add_argument("--device", default="cpu", help="where both sides run")
    parser.add_argument("--json", type=Path, help="file that the rows are written to")
    return parser


def environment(device: str = "cpu") -> dict[str, Any]:
    """Return what the figures depend on."""
    return {
        "date": time.strftime("%Y-%m-%d"),
        "Python": platform.python_version(),
        "torch": torch.__version__,
        "torch-geometric": torch_geometric.__version__,
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        "device": torch.cuda.get_device_name() if device.startswith("cuda") else "one thread",
        "load": f"{os.getloadavg()[0]:.1f}",
    }


def text_of(row: dict[str, Any]) -> str:
    """Return a row as lines of name and value."""
    return "\n".join(f"  {name:20s} {short(value)}" for name, value in row.items() if value not in (None, ""))
