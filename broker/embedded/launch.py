"""Become another program that ends when its parent ends. Run as a script: ``launch.py PARENT_PID PROGRAM ARGUMENTS…``.

A script and not a ``preexec_fn``, which may deadlock in a process with threads. Linux only sends the signal when the *thread*
that started us ends, so the starter keeps that thread for as long as we live.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main() -> None:
    """Ask for SIGTERM at the parent's death, then become the program."""
    parent, program = int(sys.argv[1]), sys.argv[2:]
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != parent:  # it ended before we asked
        sys.exit(1)
    os.execv(program[0], program)  # noqa: S606  # the whole purpose; there is no shell


if __name__ == "__main__":
    main()
