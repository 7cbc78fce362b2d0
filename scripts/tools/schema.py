"""Writes config/study.schema.json, the JSON Schema of a study file, for the completion of an editor: ``make docs``."""

import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts"))
from pqag.study.model import Study  # noqa: E402


def text() -> str:
    """The content of the file."""
    return json.dumps(Study.model_json_schema(), indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    Path(ROOT, "config/study.schema.json").write_text(text(), encoding="utf-8")
