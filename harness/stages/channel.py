"""The channel to one process of the load generator: JSON lines over a socket pair, one back for each one sent.

In: the command of a child that takes the descriptor named in the environment. Out: `Channel`; the child is gone when
the block is left. Whatever goes wrong there is one InfrastructureError with the end of the child's log.
"""

import contextlib
import json
import socket
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from harness.clock import Clock, SystemClock
from harness.errors import InfrastructureError
from harness.process import child, log_tail

DESCRIPTOR = "HARNESS_GENERATOR_FD"
"""Environment variable that tells the child which file descriptor to talk over."""

QUIT_S = 5.0


class Channel:
    """A running child and the way to it; made by `channel`."""

    def __init__(self, process: subprocess.Popen[bytes], ours: socket.socket, log: Path) -> None:
        self._process = process
        self._socket = ours
        self._log = log
        self._unread = b""
        self._clock: Clock = SystemClock()

    def ask(self, message: dict[str, Any], timeout_s: float, what: str) -> dict[str, Any]:
        """Send a message and wait for its answer; raises as `answer` does."""
        self.tell(message, what)
        return self.answer(timeout_s, what)

    def tell(self, message: dict[str, Any], what: str) -> None:
        """Send a message; its answer is to be fetched. Raises InfrastructureError where the child has died."""
        try:
            self._socket.settimeout(QUIT_S)
            self._socket.sendall(json.dumps(message).encode() + b"\n")
        except OSError as error:
            raise self._died(what) from error

    def answer(self, timeout_s: float, what: str) -> dict[str, Any]:
        """What the child answers to the message before, which was about `what`.

        Raises InfrastructureError where it dies, reports an error, or takes longer than `timeout_s` seconds.
        """
        deadline_s = self._clock.monotonic_s() + timeout_s
        try:
            while b"\n" not in self._unread:
                # A child that sends a byte now and then must not reset the limit.
                self._socket.settimeout(max(1e-3, deadline_s - self._clock.monotonic_s()))
                received = self._socket.recv(65536)
                if not received:
                    raise ConnectionResetError
                self._unread += received
        except TimeoutError as error:
            raise InfrastructureError(
                f"The load generator did not answer within {timeout_s:g} s in {what}.{self._tail()}"
            ) from error
        except OSError as error:
            raise self._died(what) from error
        line, self._unread = self._unread.split(b"\n", 1)
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise InfrastructureError(f"The load generator failed in {what}: {answer['error']}.{self._tail()}")
        return answer

    def quit(self) -> None:
        """Close the channel, the child's sign to end in order: only then is Locust's own summary in the log."""
        self._socket.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(QUIT_S)

    def _died(self, what: str) -> InfrastructureError:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(QUIT_S)
        status = self._process.returncode
        return InfrastructureError(f"The load generator died in {what} (exit status {status}).{self._tail()}")

    def _tail(self) -> str:
        return f" The end of its log, {self._log}:\n{log_tail(self._log)}"


@contextlib.contextmanager
def channel(command: Sequence[str], log: Path, cores: tuple[int, ...]) -> Iterator[Channel]:
    """Run `command` on `cores` (empty: any), its output in `log`, and talk to it; ended with the block."""
    ours, theirs = socket.socketpair()
    with contextlib.ExitStack() as stack:
        stack.enter_context(ours)
        with theirs:
            environment = {DESCRIPTOR: str(theirs.fileno())}
            process = stack.enter_context(
                child(command, log=log, cores=cores, environment=environment, pass_fds=(theirs.fileno(),))
            )
        yield Channel(process, ours, log)
