"""Makes the page's types, `src/api/openapi.ts`, from the OpenAPI document that the server serves.

The page's build runs it (`hatch_build.py`), and so do `npm run check`, `dev` and `test`. Needs msgspec, PyYAML
and what `npm ci` installs.
"""

import json
import subprocess
import sys
from pathlib import Path

UI = Path(__file__).resolve().parent
DOCUMENT, TYPES = UI / "src" / "api" / "openapi.json", UI / "src" / "api" / "openapi.ts"
PROGRAM = UI / "node_modules" / ".bin" / "openapi-typescript"


def main() -> None:
    sys.path.insert(0, str(UI.parent / "src"))
    from watchbill.api.http.contract import (
        contract_document,
        extensions_document,
        merged_document,
    )

    document = merged_document(contract_document(), extensions_document())
    DOCUMENT.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    if PROGRAM.exists():
        command = [PROGRAM, DOCUMENT, "-o", TYPES, "--immutable"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    main()
