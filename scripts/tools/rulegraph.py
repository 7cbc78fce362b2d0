"""Write the rule graph into docs/developing.md, between its two marks: `make docs`. A test checks that the page is up to date."""

import functools
import shlex
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/developing.md"
BEGIN, END = "<!-- rulegraph -->\n", "<!-- /rulegraph -->\n"


@functools.cache
def arrows() -> set[tuple[str, str]]:
    """Return the pairs (rule, rule that uses its result) of the default study. The manifest and `all` use every result; only the last of
    these pairs are included. `paper` and `report` use every table and figure and are left out (without LaTeX there is no `paper`)."""
    command = shlex.split("-m snakemake --rulegraph mermaid-js --forceall --quiet all --workflow-profile none -- all")
    done = subprocess.run([sys.executable, *command], cwd=ROOT, capture_output=True, text=True, check=True)
    lines = [line.strip() for line in done.stdout.splitlines()]
    names = {line.split("[", 1)[0]: line.split("[", 1)[1].rstrip("]") for line in lines if line.startswith("id") and "[" in line}
    pairs = {tuple(names[end] for end in line.split(" --> ")) for line in lines if "-->" in line}
    shown = {("table", "manifest"), ("study", "manifest"), ("manifest", "all")}
    return {(a, b) for a, b in pairs if (a, b) in shown or not {a, b} & {"manifest", "all", "paper", "report"}}


def rulegraph() -> str:
    """Return the rule graph as a Mermaid block of Markdown."""
    return "\n".join(["```mermaid", "flowchart TB", *sorted(f"  {a} --> {b}" for a, b in arrows()), "```", ""])


def with_rulegraph(text: str) -> str:
    """Return ``text`` with the current rule graph between the marks."""
    before, rest = text.split(BEGIN)
    return before + BEGIN + rulegraph() + END + rest.split(END)[1]


if __name__ == "__main__":
    PAGE.write_text(with_rulegraph(PAGE.read_text()))
