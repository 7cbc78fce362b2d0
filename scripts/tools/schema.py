"""Write config/study.schema.json, the JSON Schema of a study file, for the completion of an editor: `make docs`."""

import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts"))
from pqag.study.model import Study  # noqa: E402


def schema() -> dict:
    """The schema of a study file. Unlike in the model, ``kind`` may be left out of a data set, whose name then says it."""
    found = Study.model_json_schema()
    for section in found["$defs"].values():
        if "kind" in section.get("properties", {}):
            section["required"].remove("kind")
    for datasets in found["properties"]["datasets"]["patternProperties"].values():
        del datasets["discriminator"]
        datasets["anyOf"] = datasets.pop("oneOf")
    return found


def text() -> str:
    """The content of the file."""
    return json.dumps(schema(), indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    Path(ROOT, "config/study.schema.json").write_text(text(), encoding="utf-8")
