# SPDX-License-Identifier: MIT
"""A signal at a chosen system call: ptrace(2), as random moments hit a short one too rarely.

    with Rouse(..., preexec_fn=killer.trace_me) as run:
        where = killer.signal_at(run.pid, first=killer.PIDFD_GETFD, stop=7)

Each system call of the program's first thread is two stops: before it and behind it. They are
counted from the first call of a number on. Other threads run on untraced.
"""
import ctypes
import os
import signal
import struct

PIDFD_GETFD = 438  # the same on all architectures

TRACEME, DETACH, SYSCALL, SETOPTIONS, GET_SYSCALL_INFO = 0, 17, 24, 0x4200, 0x420E
TRACESYSGOOD, EXITKILL = 1, 1 << 20
ENTRY = 1  # PTRACE_SYSCALL_INFO_ENTRY
SYSCALL_STOP = signal.SIGTRAP | 0x80

LIBC = ctypes.CDLL(None, use_errno=True)
LIBC.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
LIBC.ptrace.restype = ctypes.c_long


def ptrace(request, pid, address=None, data=None):
    if LIBC.ptrace(request, pid, address, data) < 0:
        raise OSError(ctypes.get_errno(), f'ptrace({request:#x})')


def trace_me():
    """Of the child, before it executes the program."""
    ptrace(TRACEME, 0)


def call_at(pid):
    """(whether it is before the call, the call's number then)"""
    info = ctypes.create_string_buffer(88)
    ptrace(GET_SYSCALL_INFO, pid, len(info), ctypes.addressof(info))
    return info.raw[0] == ENTRY, struct.unpack_from('=Q', info.raw, 24)[0]


def wait_stop(pid):
    """The signal that it has stopped for; None: it has ended, and who started it can wait for it."""
    found = os.waitid(os.P_PID, pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
    if found.si_code in (os.CLD_EXITED, os.CLD_KILLED, os.CLD_DUMPED):
        return None
    return os.WSTOPSIG(os.waitpid(pid, 0)[1])


def signal_at(pid, first, stop, send=signal.SIGKILL):
    """
    Sends it a signal at that stop, and lets it go. Returns where that was ('before 42'), or None if
    it has ended before, and leaves its exit status to who started it in either case.
    """
    counted, call = None, None
    number = wait_stop(pid)
    ptrace(SETOPTIONS, pid, None, TRACESYSGOOD | EXITKILL)
    while number is not None:
        if number == SYSCALL_STOP:
            before, at = call_at(pid)
            call = at if before else call
            if counted is not None:
                counted += 1
            elif before and at == first:
                counted = 0
            if counted == stop:
                os.kill(pid, send)
                if send != signal.SIGKILL:
                    ptrace(DETACH, pid)
                return f'{"before" if before else "behind"} {call}'
        ptrace(SYSCALL, pid, None, 0 if number in (SYSCALL_STOP, signal.SIGTRAP) else number)
        number = wait_stop(pid)
    return None
