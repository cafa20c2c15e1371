"""What systemd wants to hear from a service of Type=notify."""

import contextlib
import socket
from collections.abc import Mapping


def notify_systemd(environ: Mapping[str, str], state: str) -> None:
    """Send `state`, such as READY=1, to the socket that systemd named; does nothing where it named none."""
    path = environ.get("NOTIFY_SOCKET", "")
    if not path:
        return
    address = f"\0{path[1:]}" if path.startswith("@") else path
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.sendto(
            state.encode(), address
        )  # without systemd's ear the service runs all the same
