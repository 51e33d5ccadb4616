"""A client that sends bytes as they are, whatever they are."""

import contextlib
import time


def send_parts(sock, parts, pause_s):
    """One after the other; the server may have closed by now, and said why."""
    for part in parts:
        with contextlib.suppress(OSError):
            sock.sendall(part)
        time.sleep(pause_s)
