"""Threads with names of all kinds, for tests/thread_names.rs.

Obeys one command a line on standard input: after `start`, `rename` and `finish` it tells on standard
output, as one line of JSON, the names that the threads have now by get_ident(); after `churn` it starts,
renames and ends threads until its end.
"""
import _thread
import json
import sys
import threading
import time

end = threading.Event()
never = threading.Event()
started = []


def start(thread):
    thread.daemon = True
    thread.start()
    started.append(thread)
    return thread


def wait(name):
    return threading.Thread(target=end.wait, name=name)


class OwnAttributes(threading.Thread):
    def __init__(self, name):
        self.first = 1
        self.second = 2
        super().__init__(target=end.wait, name=name)
        self.third = 3


class Slots(threading.Thread):
    __slots__ = ("slot", "other")

    def __init__(self, name):
        super().__init__(target=end.wait, name=name)
        self.slot = self.other = name


class AlsoException(threading.Thread, Exception):
    """Its dict is where Exception has it."""

    def __init__(self, name):
        threading.Thread.__init__(self, target=end.wait, name=name)


def dummy(name):
    ready = threading.Event()

    def run():
        threading.current_thread().name = name
        ready.set()
        never.wait()

    _thread.start_new_thread(run, ())
    ready.wait()


def start_all():
    threading.stack_size(256 * 1024)
    for name in "ascii", "größe", "потік", "🐍 snake", "", "long " * 300:
        start(wait(name))
    start(threading.Thread(target=end.wait))
    for number in range(200):
        start(wait("worker-%d" % number))

    few = start(wait("a few attributes"))
    few.one, few.two = 1, 2
    for count in 40, 2000:
        many = start(wait("%d attributes" % count))
        for number in range(count):
            setattr(many, "attribute_%d" % number, number)
    vars(start(wait("looked at its dict")))["new"] = 1
    own_dict = start(wait("a dict of its own"))
    own_dict.__dict__ = dict(own_dict.__dict__)
    other_keys = start(wait("keys that are not str"))
    other_keys.__dict__[1] = 2
    deleted = start(wait("an attribute deleted"))
    deleted.one = deleted.two = 1
    del deleted.one
    again = start(wait("the name set anew"))
    del again._name
    again._name = "the name set anew, last"
    start(OwnAttributes("attributes before Thread's"))
    start(Slots("slots"))
    start(AlsoException("another base"))
    dummy("dummy")


def rename():
    threading.main_thread().name = "główny"
    for number, thread in enumerate(started):
        if number % 2:
            thread.name = "renamed to %d 🐍" % number
    started[0].name = "renamed"
    dummy("late dummy")


def finish():
    end.set()
    for thread in started:
        thread.join()
    end.clear()
    start(wait("after the others"))


def churn():
    def live():
        for number in range(20):
            threading.current_thread().name = "churn-%d-%d" % (threading.get_ident(), number)
            time.sleep(0.0002)

    while True:
        threads = [threading.Thread(target=live, name="churn", daemon=True) for _ in range(30)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


def tell():
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    sys.stdout.write(json.dumps(names) + "\n")
    sys.stdout.flush()


for line in iter(sys.stdin.readline, ""):
    command = line.strip()
    if command == "churn":
        tell()
        threading.Thread(target=churn, name="churner", daemon=True).start()
    else:
        {"start": start_all, "rename": rename, "finish": finish}[command]()
        tell()
