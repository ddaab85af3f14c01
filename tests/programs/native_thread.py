"""A process with a thread that runs no Python, for tests/waiting.rs: it waits in C for ever."""
import ctypes
import time

libc = ctypes.CDLL(None)
thread = ctypes.c_void_p()
# A function of libc that never comes back: pause(2).
start = ctypes.cast(libc.pause, ctypes.c_void_p)
assert libc.pthread_create(ctypes.byref(thread), None, start, None) == 0
print("ready", flush=True)
time.sleep(60)
