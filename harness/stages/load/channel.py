"""The channel to one process of the load generator: JSON lines over a socket pair, one back for each one sent.

In: the command of a child that takes the descriptor named in the environment. Out: `Channel`; the child is gone when
the block is left. Whatever goes wrong there is one InfrastructureError with the end of the child's log.
"""

import contextlib
import json
import math
import socket
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.clock import Clock, SystemClock
from harness.errors import InfrastructureError
from harness.process import child, end_of_log

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
        """Send a message; its answer, if any, is to be fetched. Raises InfrastructureError where the child has died."""
        try:
            self._socket.settimeout(QUIT_S)
            self._socket.sendall(json.dumps(message).encode() + b"\n")
        except OSError as error:
            raise self._died(what) from error

    def answer(self, timeout_s: float, what: str, meanwhile: Callable[[], float] | None = None) -> dict[str, Any]:
        """What the child answers to the message before, which was about `what`.

        `meanwhile` is called while it has not, and says for how many seconds it need not be called again. Raises
        InfrastructureError where the child dies, reports an error, or takes longer than `timeout_s` seconds.
        """
        deadline_s = self._clock.monotonic_s() + timeout_s
        while b"\n" not in self._unread:
            idle_s = math.inf if meanwhile is None else meanwhile()
            # A child that sends a byte now and then must not reset the limit.
            left_s = deadline_s - self._clock.monotonic_s()
            try:
                self._socket.settimeout(max(1e-3, min(left_s, idle_s)))
                received = self._socket.recv(65536)
                if not received:
                    raise ConnectionResetError
            except TimeoutError as error:
                if idle_s < left_s:
                    continue
                raise InfrastructureError(
                    f"The load generator did not answer within {timeout_s:g} s in {what}.{end_of_log(self._log)}"
                ) from error
            except OSError as error:
                raise self._died(what) from error
            self._unread += received
        line, self._unread = self._unread.split(b"\n", 1)
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise InfrastructureError(f"The load generator failed in {what}: {answer['error']}.{end_of_log(self._log)}")
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
        return InfrastructureError(f"The load generator died in {what} (exit status {status}).{end_of_log(self._log)}")


@contextlib.contextmanager
def channel(
    command: Sequence[str], log: Path, cores: tuple[int, ...], inherited: Mapping[str, int] | None = None
) -> Iterator[Channel]:
    """Run `command` on `cores` (empty: any), its output in `log`, and talk to it; ended with the block.

    `inherited` are file descriptors that it gets, each named in the environment variable before it.
    """
    ours, theirs = socket.socketpair()
    with contextlib.ExitStack() as stack:
        stack.enter_context(ours)
        with theirs:
            given = {DESCRIPTOR: theirs.fileno(), **(inherited or {})}
            environment = {name: str(descriptor) for name, descriptor in given.items()}
            process = stack.enter_context(
                child(command, log=log, cores=cores, environment=environment, pass_fds=tuple(given.values()))
            )
        yield Channel(process, ours, log)
