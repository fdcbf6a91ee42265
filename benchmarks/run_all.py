"""All benchmarks, one after another in processes of their own, and docs/results/performance.md from what they find.

    python benchmarks/run_all.py            # about 15 minutes
    python benchmarks/run_all.py --large    # graphs of a million nodes, too; 10 GB of memory
    python benchmarks/run_all.py --toy      # a check that all still run; the page is printed, not written
    python benchmarks/run_all.py --only backward.py --out docs/results/backward.md    # a page of its own, two minutes

On a machine with a graphics card, scripts that know `--device` run on it a second time. How defaults were found
(`*_defaults.py`) is another matter, and not run.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from side_by_side.page import page

HERE = Path(__file__).parent
PAGE = HERE.parent / "docs" / "results" / "performance.md"


def main() -> None:
    """Run the scripts and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--toy", action="store_true", help="small sizes; print the page instead of writing it")
    parser.add_argument("--large", action="store_true", help="graphs of a million nodes, too")
    parser.add_argument("--out", type=Path, help=f"where the page goes, by default {PAGE.name} among the results")
    scripts = [path for path in sorted(HERE.glob("*.py")) if path.stem != "run_all" and "_defaults" not in path.stem]
    names = [path.name for path in scripts]
    parser.add_argument("--only", choices=names, metavar="NAME", help=f"one of {', '.join(names)}; needs --out")
    arguments = parser.parse_args()
    if arguments.only and not (arguments.out or arguments.toy):
        parser.error("--only needs --out: the page of all is not replaced by one of a single script")
    options = [f"--{name}" for name in ("toy", "large") if getattr(arguments, name)]
    scripts = [path for path in scripts if arguments.only in (None, path.name)]
    found = [(path.name, outcome(path, options)) for path in scripts]
    if torch.cuda.is_available():
        on_card = [path for path in scripts if "--device" in run(path, "--help", stdout=subprocess.PIPE)]
        found += [(f"{path.name} --device cuda", outcome(path, [*options, "--device", "cuda"])) for path in on_card]
    only = ["--only", arguments.only] if arguments.only else []
    text = page(found, " ".join(["python benchmarks/run_all.py", *only, *options]))
    out = arguments.out or (None if arguments.toy else PAGE)
    if out is None:
        print(text)
    else:
        out.write_text(text)


def outcome(path: Path, options: list[str]) -> dict[str, Any]:
    """Return the rows of a script that gives them, which are shown as they come, or what it prints."""
    known = run(path, "--help", stdout=subprocess.PIPE)
    options = [option for option in options if option in known or not option.startswith("-")]
    if "--json" not in known:
        return {"printed": run(path, *options, stdout=subprocess.PIPE)}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "rows.json"
        run(path, *options, "--json", str(file), stdout=sys.stderr)
        return json.loads(file.read_text())


def run(path: Path, *options: str, stdout: Any) -> str:
    """Run a script, and return what it prints where that is piped here."""
    return subprocess.run([sys.executable, str(path), *options], check=True, stdout=stdout, text=True).stdout


if __name__ == "__main__":
    main()
