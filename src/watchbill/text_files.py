"""Text files that a person named: read whole, or refused with a sentence that names the file and the reason."""

from pathlib import Path

from watchbill.errors import Invalid


def read_text(path: Path) -> str:
    """Raises Invalid."""
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise Invalid(f"Cannot read {path}: {error.strerror or error}.") from error
    except UnicodeDecodeError as error:
        raise Invalid(f"Cannot read {path}: it is not text in UTF-8.") from error
