"""Watches over one unit, from before its command starts until nothing of it is left. Run as a script.

It belongs to no server: it lives in its own session, holds nothing of the server's, and outlives it. Its argument is
the unit's folder; what to run comes through its standard input. It imports little, and the door only after the command
runs, because a unit waits for it.
"""

# ruff: noqa: PTH100 - pathlib is slow to import, and a unit waits for this

from __future__ import annotations

import os
import sys

if __name__ == "__main__":
    # Run by path without site packages; the package lies three folders up. Appended, so that nothing of the standard
    # library can be shadowed.
    sys.path.append(os.path.abspath(__file__).rsplit("/", 4)[0])

import select
import signal
import time

from gpuyard.engines.process import groups, processes
from gpuyard.engines.process.logwriter import LogWriter
from gpuyard.engines.process.records import Claim, End, Record, Start, boot_id
from gpuyard.engines.process.spawning import Child, Task, become_subreaper, exit_code_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from gpuyard.engines.process.exec_door import Door

BEAT_NS = 1_000_000_000
CHUNK = 65536
RECORD = "record"
LOG = "log"
_SHUTDOWN_GRACE_US = 10_000_000


class Supervisor:
    """One unit's life. `record` is locked and claimed."""

    def __init__(self, folder: str, task: Task, record: Record) -> None:
        self.folder = folder
        self.task = task
        self.record = record
        self.boot_id = boot_id()
        self.log = LogWriter(f"{folder}/{LOG}", task.log_bytes)
        self.door: Door | None = None
        self.main_pid = -1
        self.main_status: int | None = None
        self.started_ns: int | None = None
        self.ended_ns = 0
        self.checkpoint_pid = -1
        self.stop_reason: str | None = None
        self.shutting_down = False
        self.deadline_ns: int | None = None
        self.outputs: dict[int, str] = {}
        self.writers: dict[str, int] = {}
        self.wakeup = self._listen_to_signals()

    def run(self) -> None:
        """Starts the command, watches it, and writes down how it ended."""
        failure = self._launch()
        if failure is not None:
            self._clear_away()
            self._finish(End(time.monotonic_ns(), self.boot_id, None, "start_failed", failure, True))
            return
        self._open_door()
        self._watch()
        self._clear_away()
        code, signalled = exit_code_of(self.main_status or 0)
        reason = self.stop_reason or ("killed" if signalled else "exited")
        if self.stop_reason is None and code and groups.out_of_memory_kills(self.task.group_paths):
            reason = "out_of_memory"
        self._finish(End(self.ended_ns, self.boot_id, code, reason, "", True))

    def _listen_to_signals(self) -> int:
        reader, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        for number in (signal.SIGTERM, signal.SIGINT):  # the machine is being shut down
            signal.signal(number, self._shut_down)
        return reader

    def _shut_down(self, *_: object) -> None:
        self.shutting_down = True  # the rest is done outside the handler

    def _launch(self) -> str | None:
        """Why the unit cannot be started, or None once it runs."""
        become_subreaper()
        for stream in ("stdout", "stderr"):
            reader, self.writers[stream] = os.pipe2(os.O_CLOEXEC)
            os.set_blocking(reader, False)
            self.outputs[reader] = stream
        try:
            groups.make(self.task.groups)
        except OSError as error:
            return f"its limits cannot be set: {error.filename}: {error.strerror}"
        if not self.task.command:
            return "there is no command"
        child = self._child(self.task.command)
        self.main_pid = child.pid
        self.started_ns = time.monotonic_ns()
        ticks = processes.start_ticks(child.pid)
        self.record.write_start(Start(child.pid, ticks, self.started_ns, self.boot_id, self.task.mark))
        failure = child.go()
        if failure is None:
            self._beat()
        return failure

    def _child(self, command: tuple[str, ...]) -> Child:
        nothing = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
        try:
            return Child(self.task, command, (nothing, self.writers["stdout"], self.writers["stderr"]), False)
        finally:
            os.close(nothing)

    def _open_door(self) -> None:
        from gpuyard.engines.process.exec_door import Door

        try:
            self.door = Door(self.folder, self.task)
        except OSError as error:  # on a full disk the unit still runs; only nobody can be let in
            self._note(f"no command can be run inside this unit: {error.strerror}")

    def _watch(self) -> None:
        """Until the command has ended."""
        next_beat_ns = time.monotonic_ns() + BEAT_NS
        self._look_for_stop()
        while self.main_status is None:
            wake_ns = next_beat_ns if self.deadline_ns is None else min(next_beat_ns, self.deadline_ns)
            self._wait_for_events(max(0, wake_ns - time.monotonic_ns()) // 1_000_000 + 1)
            self._reap()
            if self.shutting_down:
                self._stop("killed", _SHUTDOWN_GRACE_US, ())
            now_ns = time.monotonic_ns()
            if now_ns >= next_beat_ns:
                self._beat()
                self._look_for_stop()
                if self.door is not None:
                    self.door.tick()
                next_beat_ns = now_ns + BEAT_NS
            if self.main_status is None and self.deadline_ns is not None and now_ns >= self.deadline_ns:
                self.deadline_ns = now_ns + BEAT_NS  # again, should something hang in the kernel
                self._kill_all()

    def _wait_for_events(self, timeout_ms: int) -> None:
        poll = select.poll()
        poll.register(self.wakeup, select.POLLIN)
        for fd in self.outputs:
            poll.register(fd, select.POLLIN)
        if self.door is not None:
            for fd in self.door.filenos():
                poll.register(fd, select.POLLIN)
        for fd, _ in poll.poll(timeout_ms):
            if fd == self.wakeup:
                os.read(fd, 4096)
            elif fd in self.outputs:
                self._read_output(fd)
            elif self.door is not None:
                self.door.ready(fd)
                self._look_for_stop()

    def _read_output(self, fd: int) -> bool:
        try:
            data = os.read(fd, CHUNK)
        except BlockingIOError:
            return False
        self.log.feed(self.outputs[fd], data)
        return bool(data)

    def _reap(self) -> bool:
        """Whether there is any child left, dead ones taken off."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return False
            if pid == 0:
                return True
            if pid == self.main_pid:
                self.main_status = status
                self.ended_ns = time.monotonic_ns()
            elif pid == self.checkpoint_pid:
                self.checkpoint_pid = -1
                self._terminate()
            elif self.door is not None:
                self.door.reaped(pid, exit_code_of(status)[0])

    def _beat(self) -> None:
        self.record.write_beat(time.monotonic_ns(), self.boot_id)

    def _look_for_stop(self) -> None:
        request = self.record.stop() if self.stop_reason is None else None
        if request is not None:
            self._stop("stopped", *request)

    def _stop(self, reason: str, grace_us: int, checkpoint: tuple[str, ...]) -> None:
        if self.stop_reason is not None:
            return
        self.stop_reason = reason
        self.deadline_ns = time.monotonic_ns() + grace_us * 1000
        if not checkpoint:
            self._terminate()
            return
        child = self._child(checkpoint)
        failure = child.go()
        if failure is None:
            self.checkpoint_pid = child.pid
        else:
            self._note(f"the checkpoint command was not run: {failure}")
            self._terminate()

    def _terminate(self) -> None:
        if self.main_status is None and self.main_pid > 0:
            try:
                os.killpg(self.main_pid, signal.SIGTERM)
            except OSError:  # it left its own group; the kill at the end of the grace finds it
                return

    def _note(self, text: str) -> None:
        self.log.feed("stderr", f"gpuyard: {text}\n".encode())

    def _kill_all(self) -> None:
        for pid, ticks in processes.descendants(os.getpid()).items():
            processes.kill_exactly(pid, ticks)
        groups.kill(self.task.group_paths)

    def _clear_away(self) -> None:
        """Ends everything that the unit left behind and takes its last output."""
        beat_ns = time.monotonic_ns()
        while self._reap():
            self._kill_all()
            time.sleep(0.001)
            if time.monotonic_ns() - beat_ns > BEAT_NS and self.started_ns is not None:
                self._beat()
                beat_ns = time.monotonic_ns()
            for fd in self.outputs:
                self._read_output(fd)
        groups.kill(self.task.group_paths)
        for fd in self.outputs:
            while self._read_output(fd):
                pass
        self.log.finish()

    def _finish(self, end: End) -> None:
        groups.remove(self.task.group_paths)
        self.record.write_end(end)
        if self.door is not None:
            self.door.close()


def main(folder: str) -> int:
    """The supervisor of the unit in `folder`; 0 also where another one was there first."""
    os.closerange(3, min(os.sysconf("SC_OPEN_MAX"), 1 << 20))
    sent = b""
    while piece := os.read(0, CHUNK):
        sent += piece
    try:
        task = Task.unpack(sent)
    except (EOFError, ValueError, TypeError):  # the server died before it had said everything: it will start again
        return 0
    record = Record(f"{folder}/{RECORD}")
    # Whoever holds the lock owns the unit; whoever claims it is the only one that ever will run it.
    if not record.try_lock() or record.claim() is not None:
        return 0
    own = os.getpid()
    record.write_claim(Claim(time.monotonic_ns(), own, processes.start_ticks(own), boot_id()))
    Supervisor(folder, task, record).run()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
