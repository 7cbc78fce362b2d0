"""The rules of the workflow and their scripts. Needs the standard library alone."""

from pathlib import Path

from pqag.job.provenance import LIBRARY

#: The scripts of rules that do not run one of their own name.
SCRIPTS = {
    "extract_shard": "extract",
    "attack_shard": "attack",
    "evaluate_clean": "evaluate",
}


def script_of(rule: str) -> Path:
    """The script that ``rule`` runs."""
    return LIBRARY.parent / f"{SCRIPTS.get(rule, rule)}.py"
