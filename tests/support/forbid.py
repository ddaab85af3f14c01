"""Runs a command for which one system call fails: forbid.py NUMBER ERRNO COMMAND…"""
import ctypes
import os
import struct
import sys

PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS, SECCOMP_MODE_FILTER = 22, 38, 2
RETURN_ERRNO, RETURN_ALLOW = 0x00050000, 0x7FFF0000

number, errno = int(sys.argv[1]), int(sys.argv[2])
# Load the number of the call; if it is that one, go on with the next instruction, else with the one after it.
filters = [(0x20, 0, 0, 0), (0x15, 0, 1, number), (0x06, 0, 0, RETURN_ERRNO | errno), (0x06, 0, 0, RETURN_ALLOW)]
code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *one) for one in filters))
program = struct.pack("HxxxxxxP", len(filters), ctypes.addressof(code))
libc = ctypes.CDLL(None, use_errno=True)
if libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) or libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, program, 0, 0):
    sys.exit(os.strerror(ctypes.get_errno()))
os.execv(sys.argv[3], sys.argv[3:])
