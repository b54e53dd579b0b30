"""record_locks.py CASE FILE FILE ...: what record_locks.sh does with fcntl(2) locks.

Each FILE is one lock as a mount shows it; the last may be a local file to compare with. Processes are
forked and told through pipes what to do, one call at a time, so a case is a sequence of calls
of several processes, and blocking ones can be waited for or interrupted.
"""

import ctypes
import errno
import fcntl
import os
import pickle
import random
import select
import signal
import struct
import sys
import time

FLOCK = "hhqqi4x"
END = 0  # l_len that means: to the end
DEADLINE_S = 10 * int(os.environ.get("COORDFS_SLOW", "1"))


LIBC = ctypes.CDLL(None, use_errno=True)


def record(fd, command, kind, start, length):
    """fcntl with a struct flock: what came of it, or the errno. Not Python's own fcntl, which calls
    again after EINTR, and whose handlers run at any later moment."""
    lock = ctypes.create_string_buffer(struct.pack(FLOCK, kind, os.SEEK_SET, start, length, 0))
    if LIBC.fcntl(fd, command, lock) < 0:
        return -ctypes.get_errno()
    return struct.unpack(FLOCK, lock.raw[: struct.calcsize(FLOCK)])


def whole(fd, operation):
    try:
        fcntl.flock(fd, operation)
    except OSError as e:
        return -e.errno
    return 0


class Process:
    """A forked child that carries out calls; descriptors are the child's own."""

    def __init__(self):
        ask_r, ask_w = os.pipe()
        told_r, told_w = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(ask_w)
            os.close(told_r)
            self.serve(os.fdopen(ask_r, "rb"), os.fdopen(told_w, "wb"))
        os.close(ask_r)
        os.close(told_w)
        self.ask = os.fdopen(ask_w, "wb")
        self.told = os.fdopen(told_r, "rb")

    @staticmethod
    def serve(ask, told):
        signal.signal(signal.SIGUSR1, lambda _number, _frame: None)
        while True:
            try:
                name, args = pickle.load(ask)
                answer = globals()[name](*args)
            except EOFError:
                os._exit(0)
            except OSError as e:
                answer = -e.errno
            pickle.dump(answer, told)
            told.flush()

    def start(self, name, *args):
        pickle.dump((name, args), self.ask)
        self.ask.flush()

    def answers_within(self, seconds):
        return select.select([self.told], [], [], seconds)[0] != []

    def result(self):
        assert self.answers_within(DEADLINE_S), "no answer in time"
        return pickle.load(self.told)

    def call(self, name, *args):
        self.start(name, *args)
        return self.result()

    def open(self, path, flags=os.O_RDWR | os.O_CREAT):
        fd = self.call("open_file", path, flags)
        assert fd >= 0, os.strerror(-fd)
        return fd

    def set(self, fd, kind, start, length, command=fcntl.F_SETLK):
        """0 or -errno. A release is answered before the other nodes know of it; a question that the
        same node asks after it is answered behind it."""
        answer = self.call("record", fd, command, kind, start, length)
        if kind == UN:
            self.get(fd, WR, 0, END)
        return 0 if isinstance(answer, tuple) else answer

    def get(self, fd, kind, start, length, command=fcntl.F_GETLK):
        return self.call("record", fd, command, kind, start, length)

    def wait(self, fd, kind, start, length, command=fcntl.F_SETLKW):
        self.start("record", fd, command, kind, start, length)

    def granted(self):
        answer = self.result()
        assert isinstance(answer, tuple), os.strerror(-answer)

    def waits(self):
        """It has not been answered, although the request is long in the log."""
        return not self.answers_within(0.3)

    def close(self, fd):
        self.call("close_file", fd)

    def interrupt(self):
        os.kill(self.pid, signal.SIGUSR1)

    def kill(self):
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)


def open_file(path, flags):
    return os.open(path, flags, 0o666)


def close_file(fd):
    os.close(fd)
    return 0


def read_file(fd):
    return os.pread(fd, 100, 0)


def write_file(fd, data):
    return os.pwrite(fd, data, 0)


def fork_and_try(fd, kind, start, length):
    """Does a child hold what its parent does?"""
    pid = os.fork()
    if pid == 0:
        answer = record(fd, fcntl.F_SETLK, kind, start, length)
        os._exit(0 if isinstance(answer, tuple) else -answer)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


RD, WR, UN = fcntl.F_RDLCK, fcntl.F_WRLCK, fcntl.F_UNLCK
OFD_SET, OFD_WAIT, OFD_GET = fcntl.F_OFD_SETLK, fcntl.F_OFD_SETLKW, fcntl.F_OFD_GETLK


def eventually(what, *args):
    end = time.monotonic() + DEADLINE_S
    while not what(*args):
        assert time.monotonic() < end, "not in time"
        time.sleep(0.02)


def same(want, got, what):
    assert want == got, f"{what}: wanted {want}, got {got}"


# --- cases ----------------------------------------------------------------------------------


def ranges_exclude_over_two_mounts(a, b):
    p, q = Process(), Process()
    x, y = p.open(a), q.open(b)
    same(0, p.set(x, WR, 0, 10), "first")
    same(-errno.EAGAIN, q.set(y, WR, 9, 1), "its last byte")
    same(-errno.EAGAIN, q.set(y, RD, 0, END), "all")
    same(0, q.set(y, WR, 10, END), "behind it")
    same(0, p.set(x, UN, 3, 2), "a hole")
    same(0, q.set(y, WR, 3, 2), "in the hole")
    same(-errno.EAGAIN, q.set(y, WR, 2, 1), "before the hole")
    same(-errno.EAGAIN, q.set(y, WR, 5, 1), "after the hole")
    same(0, p.set(x, RD, 0, 3), "a part is shared now")
    same(0, q.set(y, RD, 0, 3), "by both")
    same(-errno.EAGAIN, p.set(x, WR, 0, 3), "no upgrade")
    q.close(y)
    eventually(lambda: p.set(x, WR, 0, END) == 0)


def getlk_says_what_is_in_the_way(a, b):
    p, q, r = Process(), Process(), Process()
    x, y, z = p.open(a), q.open(b), r.open(a)
    same(0, p.set(x, WR, 100, 50), "lock")
    same((WR, 0, 100, 50, p.pid), r.get(z, RD, 0, END), "on the same node")
    same((WR, 0, 100, 50, 0), q.get(y, RD, 120, 1), "on another node")
    same(UN, q.get(y, WR, 0, 100)[0], "before it")
    same(UN, p.get(x, WR, 0, END)[0], "its own")
    p.call("record", x, fcntl.F_SETLK, UN, 0, END)
    same(UN, r.get(z, WR, 0, END)[0], "told right after the unlock")
    same(0, p.set(x, RD, 7, END), "to the end")
    same(UN, q.get(y, RD, 0, END)[0], "shared")
    same((RD, 0, 7, 0, 0), q.get(y, WR, 0, END), "to the end")


def any_close_by_the_process_ends_posix_locks(a, b):
    p, q = Process(), Process()
    x, again, y = p.open(a), p.open(a), q.open(b)
    same(0, p.set(x, WR, 0, END), "lock")
    p.close(again)
    eventually(lambda: q.set(y, WR, 0, END) == 0)


def ofd_locks_end_with_their_description(a, b):
    p, q = Process(), Process()
    x, other, y = p.open(a), p.open(a), q.open(b)
    same(0, p.set(x, WR, 0, 10, OFD_SET), "lock")
    same(-errno.EAGAIN, p.set(other, WR, 5, 1, OFD_SET), "another description of the process")
    same(-errno.EAGAIN, p.set(other, WR, 5, 1), "a lock of the process")
    p.close(other)
    same(-errno.EAGAIN, q.set(y, WR, 0, 1, OFD_SET), "another close")
    same(0, p.call("fork_and_try_ofd", x), "a child shares the description")
    same(-errno.EAGAIN, q.set(y, WR, 0, 1), "the child's end")
    p.close(x)
    eventually(lambda: q.set(y, WR, 0, END, OFD_SET) == 0)


def fork_and_try_ofd(fd):
    pid = os.fork()
    if pid == 0:
        answer = record(fd, OFD_SET, WR, 0, 10)
        os._exit(0 if isinstance(answer, tuple) else -answer)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def a_child_inherits_no_posix_lock(a, b):
    p, q = Process(), Process()
    x, y = p.open(a), q.open(b)
    same(0, p.set(x, WR, 0, 10), "lock")
    same(errno.EAGAIN, p.call("fork_and_try", x, WR, 0, 10), "the child")
    same(-errno.EAGAIN, q.set(y, WR, 0, 10), "still held when the child has ended")


def flock_and_fcntl_exclude_each_other(a, b):
    p, q = Process(), Process()
    x, y = p.open(a), q.open(b)
    same(0, p.call("whole", x, fcntl.LOCK_EX | fcntl.LOCK_NB), "flock")
    same(-errno.EAGAIN, q.set(y, RD, 5, 1), "a byte of it")
    same((WR, 0, 0, 0), q.get(y, RD, 5, 1)[:4], "who is in the way")
    q.wait(y, WR, 5, 1)
    assert q.waits()
    same(0, p.call("whole", x, fcntl.LOCK_UN), "unlock")
    q.granted()
    same(-errno.EAGAIN, p.call("whole", x, fcntl.LOCK_SH | fcntl.LOCK_NB), "flock of a byte held")
    p.start("whole", x, fcntl.LOCK_SH)
    assert p.waits()
    same(0, q.set(y, RD, 0, END), "downgrade")
    same(0, p.result(), "both shared")
    same(-errno.EAGAIN, q.set(y, WR, 0, 1), "no upgrade beside a flock")


def a_wait_is_granted_when_its_range_is_free(a, b):
    p, q = Process(), Process()
    x, y = p.open(a), q.open(b)
    same(0, p.set(x, WR, 0, 10), "lock")
    q.wait(y, WR, 5, 10)
    assert q.waits()
    same(0, p.set(x, UN, 0, 5), "the wrong half")
    assert q.waits()
    same(0, p.set(x, UN, 5, 5), "the right half")
    q.granted()


def a_killed_holder_frees_its_ranges(a, b):
    p, q = Process(), Process()
    x, y = p.open(a), q.open(b)
    same(0, p.set(x, WR, 0, 10), "lock")
    same(0, p.set(x, WR, 20, 10, OFD_SET), "and as a description")
    q.wait(y, WR, 0, END)
    assert q.waits()
    p.kill()
    q.granted()


def an_interrupted_wait_leaves_what_was_held(a, b):
    p, q, r = Process(), Process(), Process()
    x, y, z = p.open(a), q.open(b), r.open(a)
    same(0, p.set(x, RD, 0, 10), "shared")
    same(0, q.set(y, RD, 5, 10), "shared by both")
    q.wait(y, WR, 0, 20)
    assert q.waits()
    q.interrupt()
    same(-errno.EINTR, q.result(), "interrupted")
    same(0, p.set(x, UN, 0, END), "unlock")
    same((RD, 0, 5, 10, 0), r.get(z, WR, 0, END), "as before the wait")
    same(0, r.set(z, WR, 0, 5), "nothing before it")
    same(0, r.set(z, WR, 15, END), "nothing behind it")


def a_killed_waiter_leaves_nothing(a, b):
    p, q = Process(), Process()
    x, y = p.open(a), q.open(b)
    same(0, p.set(x, WR, 0, 10), "lock")
    q.wait(y, WR, 0, 10)
    assert q.waits()
    q.kill()
    same(0, p.set(x, UN, 0, 10), "unlock")
    r = Process()
    z = r.open(b)
    eventually(lambda: r.set(z, WR, 0, END) == 0)


def a_grant_that_crosses_an_interrupt_is_told_as_the_log_says(a, b):
    p, q, r = Process(), Process(), Process()
    x, y, z = p.open(a), q.open(b), r.open(b)
    outcomes = set()
    for i in range(60):
        same(0, p.set(x, WR, 0, 10), "lock")
        q.wait(y, WR, 0, 10)
        eventually(lambda: r.get(z, RD, 0, 10)[0] == WR)
        time.sleep(0.005)
        p.start("record", x, fcntl.F_SETLK, UN, 0, 10)
        time.sleep(random.random() * 0.003)
        q.interrupt()
        p.result()
        answer = q.result()
        outcomes.add(isinstance(answer, tuple))
        if isinstance(answer, tuple):
            same((WR, 0, 0, 10), r.get(z, RD, 0, 10)[:4], "granted and held")
            same(0, q.set(y, UN, 0, 10), "unlock")
        else:
            same(-errno.EINTR, answer, "interrupted")
            p.get(x, WR, 0, END)  # behind its unlock
            same(UN, r.get(z, RD, 0, 10)[0], "nobody has it")


def the_exclusive_holder_of_all_writes_the_value(a, b):
    for command in (fcntl.F_SETLK, OFD_SET):
        p, q = Process(), Process()
        x, y = p.open(a), q.open(b)
        same(0, p.set(x, WR, 1, END, command), "a part")
        same(-errno.EPERM, p.call("write_file", x, b"part"), "not of a part")
        same(0, p.set(x, WR, 0, 1, command), "the rest")
        same(5, p.call("write_file", x, b"whole"), "write")
        same(b"whole", q.call("read_file", y), "read elsewhere")
        same(-errno.EPERM, q.call("write_file", y, b"other"), "somebody else")
        p.close(x)
        eventually(lambda: q.get(y, WR, 0, END)[0] == UN)


def lockf_locks_from_where_it_stands(a, b):
    p, q = Process(), Process()
    x, y = p.open(a), q.open(b)
    same(None, p.call("lockf_at", x, fcntl.LOCK_EX | fcntl.LOCK_NB, 10, 5), "lockf")
    same(-errno.EAGAIN, q.call("lockf_at", y, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, 14), "overlaps")
    same(None, q.call("lockf_at", y, fcntl.LOCK_EX | fcntl.LOCK_NB, 5, 0), "before")


def lockf_at(fd, operation, length, start):
    fcntl.lockf(fd, operation, length, start)


def a_lost_session_is_told_to_who_holds(a, b, ready):
    holder, description, former, waiter = Process(), Process(), Process(), Process()
    x, again, y, z, w = holder.open(a), holder.open(a), description.open(a), former.open(a), waiter.open(a)
    same(0, holder.set(x, WR, 0, 10), "a process")
    same(0, holder.set(again, WR, 10, 10), "the same through another descriptor")
    same(0, description.set(y, WR, 20, 10, OFD_SET), "a description")
    same(0, former.set(z, WR, 30, 10), "and one more")
    same(0, former.set(z, UN, 30, 10), "which gives it up")
    waiter.wait(w, WR, 0, 10)
    assert waiter.waits()
    with open(ready, "w"):
        pass
    for process, fd in ((holder, x), (holder, again), (description, y)):
        eventually(lambda p=process, fd=fd: p.call("read_file", fd) == -errno.EIO)
        same(-errno.EIO, process.set(fd, WR, 50, 1), "lock")
    same(b"", former.call("read_file", z), "who holds nothing is not told")
    waiter.granted()  # in the next session


def settled(processes, files):
    """Until nobody has anything in the way that has nothing in the way locally."""
    for (i, _k), (fd, local_fd) in files.items():
        p = processes[i]
        for start in range(18):
            want = p.get(local_fd, WR, start, 1)[0]
            eventually(lambda p=p, fd=fd, at=start, want=want: p.get(fd, WR, at, 1)[0] == want)


def random_calls_answer_as_on_a_local_file(a, b, local):
    """Four processes with two descriptions each; POSIX and OFD locks of ranges, closes, opens."""
    seed = random.randrange(1 << 30)
    print("seed", seed)
    chance = random.Random(seed)
    processes = [Process() for _ in range(4)]
    mounts = [a, b]
    files = {
        (i, k): (p.open(mounts[i % 2]), p.open(local))
        for i, p in enumerate(processes)
        for k in range(2)
    }
    for step in range(1500):
        i, k = chance.randrange(4), chance.randrange(2)
        p, (fd, local_fd) = processes[i], files[i, k]
        if chance.random() < 0.04:
            p.close(fd)
            p.close(local_fd)
            files[i, k] = (p.open(mounts[i % 2]), p.open(local))
            settled(processes, files)  # RELEASE, which ends OFD locks, comes after close(2)
            continue
        kind = chance.choice((RD, WR, UN))
        start = chance.randrange(12)
        length = chance.choice((END, 1, 2, 5))
        ofd = chance.random() < 0.4
        if kind != UN and chance.random() < 0.3:
            command = OFD_GET if ofd else fcntl.F_GETLK
            want = p.get(local_fd, kind, start, length, command)
            got = p.get(fd, kind, start, length, command)
            # Which of several is named first is the kernel's own order.
            same(want[0] == UN, got[0] == UN, f"step {step}: get {kind} {start} {length}")
        else:
            command = OFD_SET if ofd else fcntl.F_SETLK
            want = p.set(local_fd, kind, start, length, command)
            got = p.set(fd, kind, start, length, command)
            same(want, got, f"step {step}: process {i} set {kind} {start} {length} ofd={ofd}")


def main():
    case = globals()[sys.argv[1]]
    case(*sys.argv[2:])


if __name__ == "__main__":
    main()
