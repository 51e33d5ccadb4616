"""Isolation: a network of our own that has nothing but loopback, for this process and all that it starts.

In: nothing. Out: `isolate`, called once and before there is any thread. From then on nobody on another machine or on
this one reaches what we listen on, and nothing that we start reaches anything outside, whatever it is told to do. It is
a matter of the network only: files, and sockets that are files, are shared as before.
"""

import ctypes
import fcntl
import os
import socket
import struct
import sys
from pathlib import Path

from harness.errors import InfrastructureError

_NEW_USER, _NEW_NETWORK, _NEW_NAMES = 0x10000000, 0x40000000, 0x04000000
"""From `linux/sched.h`; Python has `os.unshare` from 3.12 on only."""

_GET_FLAGS, _SET_FLAGS, _UP = 0x8913, 0x8914, 0x1
"""From `linux/sockios.h` and `linux/if.h`."""

_REQUEST = "16sH22x"
"""The part of `struct ifreq` that holds a name and flags."""

_WAYS_OUT = (
    "Leave out --isolate and close the ports with a firewall (`harness doctor` lists them), or have the system permit "
    "it: sysctl user.max_user_namespaces above 0, kernel.apparmor_restrict_unprivileged_userns=0 on Ubuntu, and for a "
    "container a seccomp profile that lets `unshare` through."
)


def isolate() -> None:
    """Leave the machine's network for a new one, in which loopback is up and nothing else is.

    Root needs nothing more for it; anyone else gets a user namespace too, in which they are who they were: files are
    theirs as before, and what is started there has no rights that it would not have had. Raises InfrastructureError
    where the system does not permit it.
    """
    if not sys.platform.startswith("linux"):
        raise InfrastructureError("--isolate needs the network namespaces of Linux, and this is another system.")
    if len(os.listdir("/proc/self/task")) > 1:  # noqa: PTH208 - counted, never opened
        raise RuntimeError("another thread would stay behind in the machine's network")
    libc = ctypes.CDLL(None, use_errno=True)
    user, group = os.geteuid(), os.getegid()
    try:
        # Root alone may raise the generator's priority, and would be nobody for that in a user namespace.
        if libc.unshare(_NEW_NETWORK | _NEW_NAMES) != 0:
            if libc.unshare(_NEW_USER | _NEW_NETWORK | _NEW_NAMES) != 0:
                raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
            # In this order: who maps a group must have given up changing groups.
            Path("/proc/self/setgroups").write_text("deny")
            Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
            Path("/proc/self/gid_map").write_text(f"{group} {group} 1")
        _bring_up_loopback()
        # Or whoever asks for this machine's address by its name, as Ray does, waits for a name server out of reach.
        socket.sethostname("localhost")
    except OSError as error:
        raise InfrastructureError(
            f"This system does not permit a network of our own (--isolate): {error.strerror}. {_WAYS_OUT}"
        ) from None


def _bring_up_loopback() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        _, flags = struct.unpack(_REQUEST, fcntl.ioctl(sock, _GET_FLAGS, struct.pack(_REQUEST, b"lo", 0)))
        fcntl.ioctl(sock, _SET_FLAGS, struct.pack(_REQUEST, b"lo", flags | _UP))
