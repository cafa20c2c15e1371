"""Writes `src/model/workload_fields.json`, the page's list of fields, from the table that the server uses.

The page's build runs it (`hatch_build.py`), and so do `npm run check`, `dev` and `test`. Needs Python alone.
"""

import json
import runpy
from pathlib import Path

UI = Path(__file__).resolve().parent
TABLE = UI.parent / "src" / "watchbill" / "workload_fields.py"
OUTPUT = UI / "src" / "model" / "workload_fields.json"


def main(output: Path = OUTPUT) -> None:
    fields = runpy.run_path(str(TABLE))["QUERY_FIELDS"].values()
    rows = [
        {
            "name": field.name,
            "label": field.label,
            "kind": field.kind.value,
            "isSortable": field.is_sortable,
        }
        for field in fields
    ]
    output.write_text(json.dumps(rows, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
