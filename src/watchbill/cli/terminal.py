"""Where a command writes: data on stdout, remarks on stderr, colour on terminals only."""

import codecs
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from watchbill.cli.text import safe, visible

_DECODER = codecs.getincrementaldecoder("utf-8")(errors="replace")
_RESET = "\x1b[0m"
_COLOURS = {
    "red": "\x1b[31m",
    "green": "\x1b[32m",
    "yellow": "\x1b[33m",
    "blue": "\x1b[34m",
    "dim": "\x1b[2m",
    "bold": "\x1b[1m",
}
PHASE_COLOURS = {
    "Running": "green",
    "Completed": "dim",
    "Failed": "red",
    "Degraded": "red",
    "Pending": "yellow",
    "Creating": "blue",
    "Initializing": "blue",
    "Resuming": "blue",
    "Updating": "blue",
    "Stopped": "dim",
    "Stopping": "dim",
    "Deleting": "dim",
    "Terminating": "dim",
    "Unknown": "red",
    "connected": "green",
    "waiting": "yellow",
    "degraded": "yellow",
    "disconnected": "red",
}


@dataclass(frozen=True, slots=True)
class Terminal:
    """`print` takes text that is safe already; `remark` makes its text safe."""

    is_coloured: bool = False

    def coloured(self, text: str, colour: str | None) -> str:
        if not self.is_coloured or colour is None:
            return text
        return f"{_COLOURS[colour]}{text}{_RESET}"

    def print(self, text: str) -> None:
        print(text)

    def write(self, data: bytes) -> None:
        """JSON, YAML, CSV: as they are into files and pipes, with what is hidden made visible to people."""
        if sys.stdout.isatty():
            sys.stdout.write(visible(_DECODER.decode(data)))
        else:
            sys.stdout.flush()
            sys.stdout.buffer.write(data)

    @property
    def shows_progress(self) -> bool:
        """Where a person watches while the data goes elsewhere."""
        return sys.stderr.isatty() and not sys.stdout.isatty()

    @contextmanager
    def progress(self, label: str, length: int) -> Iterator[Callable[[int], None]]:
        """A bar on stderr of so many steps, moved on by what is called; none where nobody watches."""
        if not self.shows_progress:
            yield lambda steps: None
            return
        import typer

        with typer.progressbar(length=length, label=label, file=sys.stderr, show_pos=True) as bar:
            yield bar.update

    def remark(self, text: str) -> None:
        print(safe(text), file=sys.stderr)


def terminal(environ: Mapping[str, str], *, no_color: bool) -> Terminal:
    """Colour only where a person looks at a terminal that knows it, and nobody asked for none."""
    is_wanted = not no_color and not environ.get("NO_COLOR") and environ.get("TERM") != "dumb"
    return Terminal(is_coloured=is_wanted and sys.stdout.isatty())
