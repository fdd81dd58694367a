"""Time and memory on the emulated machine, seen by programs written in C that share its cards."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gpuyard.testing import Machine

pytest_plugins = ["gpuyard.testing.fixtures"]

SOURCE = Path(__file__).with_name("emulator_client.c")
GIB = 1 << 30
DEADLINE_S = 20.0

Make = Callable[..., Machine]
Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("cc") or pytest.skip("needs a C compiler")
    path = tmp_path_factory.mktemp("client") / "client"
    subprocess.run([compiler, "-O1", "-w", "-o", str(path), str(SOURCE), "-ldl", "-lpthread"], check=True)
    return path


@pytest.fixture
def start(program: Path) -> Iterator[Start]:
    running: list[subprocess.Popen[str]] = []

    def begin(machine: Machine, *words: str, **variables: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [program, *words], env=machine.env() | variables, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        running.append(process)
        return process

    yield begin
    for process in running:
        if process.poll() is None:
            process.kill()
        process.communicate()


def said(process: subprocess.Popen[str]) -> str:
    text, _ = process.communicate(timeout=60)
    assert process.returncode == 0, text
    return text.strip()


def until(holds: Callable[[], bool], what: str) -> float:
    """Seconds until it holds."""
    begun = time.monotonic()
    while not holds():
        assert time.monotonic() - begun < DEADLINE_S, what
        time.sleep(0.002)
    return time.monotonic() - begun


def test_one_process_has_the_card_to_itself(fake_driver: Make, start: Start) -> None:
    machine = fake_driver(clock="virtual")
    assert int(said(start(machine, "share", "k_1000000", "1000"))) == pytest.approx(1000, rel=0.01)
    assert machine.card(0).busy_ns == pytest.approx(1e9, rel=0.01)


def test_the_virtual_clock_gives_one_process_the_same_run_every_time(fake_driver: Make, start: Start) -> None:
    ends = set()
    for _ in range(3):
        machine = fake_driver(clock="virtual")
        said(start(machine, "share", "k_123457", "50"))
        ends.add((machine.now_ns, machine.card(0).busy_ns))
    assert len(ends) == 1


@pytest.mark.parametrize("turn_ns", [0, 2_000_000], ids=["evenly", "in turns"])
@pytest.mark.parametrize("processes", [2, 3, 8])
def test_busy_processes_get_equal_parts_of_a_card(
    fake_driver: Make, start: Start, processes: int, turn_ns: int
) -> None:
    machine = fake_driver(clock="virtual", processes=processes, turn_ns=turn_ns)
    running = [start(machine, "share", "k_1000000", "4000") for _ in range(processes)]
    done = [int(said(process)) for process in running]
    assert done == pytest.approx([4000 / processes] * processes, rel=0.02)  # a round is 8 kernels
    assert max(done) - min(done) <= 8
    assert machine.card(0).busy_ns == pytest.approx(sum(done) * 1e6, rel=0.001)


def test_the_shares_are_within_a_hundredth_when_kernels_differ(fake_driver: Make, start: Start) -> None:
    machine = fake_driver(clock="virtual", processes=2)
    short, long = start(machine, "share", "k_100000", "2000"), start(machine, "share", "k_5000000", "2000")
    assert int(said(short)) * 100_000 == pytest.approx(1e9, rel=0.01)
    assert int(said(long)) * 5_000_000 == pytest.approx(1e9, rel=0.04)  # whole rounds of 40 ms


def test_processes_on_two_cards_do_not_meet(fake_driver: Make, start: Start) -> None:
    machine = fake_driver("2xRTX4090", clock="virtual")
    process = start(machine, "share", "k_1000000", "100")
    said(process)
    assert machine.card(1).busy_ns == 0


def test_on_the_real_clock_a_kernel_takes_as_long_as_it_says(fake_driver: Make, start: Start) -> None:
    machine = fake_driver()
    begun = time.monotonic()
    done = int(said(start(machine, "share", "k_2000000", "100")))
    assert time.monotonic() - begun >= 0.1
    assert done >= 8


def test_a_launch_on_a_full_queue_waits_for_the_oldest(fake_driver: Make, start: Start) -> None:
    machine = fake_driver(clock="virtual")
    text = said(start(machine, "queue"))
    came_back = {int(line.split()[0]): int(line.split()[1]) for line in text.splitlines()}
    assert came_back[1023] < 2100  # 1,024 calls of 2 us: the first 1,024 do not wait
    assert 5000 <= came_back[1029] <= 6100  # the 1,030th waits for the 6th kernel of 1 ms


def test_memory_runs_out_exactly_at_the_card_s_size(fake_driver: Make, start: Start) -> None:
    machine = fake_driver(memory_bytes=GIB, context_bytes=1 << 20)
    assert said(start(machine, "fill", "65536")) == f"{GIB - (1 << 20)} 2"
    assert machine.card(0).peak_bytes == GIB
    assert machine.card(0).refused == 1
    assert machine.card(0).used_bytes == 0  # the process is gone


def test_two_processes_never_hold_more_than_the_card_has(fake_driver: Make, start: Start) -> None:
    machine = fake_driver(memory_bytes=GIB, context_bytes=1 << 20)
    held = start(machine, "hold", str(GIB // 2))
    assert held.stdout is not None
    assert held.stdout.readline() == "held\n"
    assert said(start(machine, "fill", "65536")) == f"{GIB // 2 - (2 << 20)} 2"


def test_kill_9_gives_the_memory_back_to_whoever_looks(fake_driver: Make, start: Start) -> None:
    machine = fake_driver(memory_bytes=GIB, context_bytes=1 << 20)
    held = start(machine, "hold", str(GIB // 2))
    assert held.stdout is not None
    assert held.stdout.readline() == "held\n"
    (use,) = machine.card(0).processes
    assert (use.pid, use.used_bytes, use.contexts) == (held.pid, GIB // 2 + (1 << 20), 1)
    os.kill(held.pid, signal.SIGKILL)
    held.wait()
    assert until(lambda: machine.card(0).used_bytes == 0, "the dead still hold memory") < 1.0
    assert said(start(machine, "fill", "65536")) == f"{GIB - (1 << 20)} 2"


def test_a_process_killed_in_a_wait_holds_up_nobody_on_the_virtual_clock(fake_driver: Make, start: Start) -> None:
    machine = fake_driver(clock="virtual", processes=2)
    doomed = start(machine, "crash", "k_3600000000000")
    other = start(machine, "share", "k_1000000", "100000")
    until(lambda: machine.card(0).busy_ns > 0, "nothing runs")
    os.kill(doomed.pid, signal.SIGKILL)
    doomed.wait()
    assert int(said(other)) > 49_000


def test_a_stopped_process_does_not_stop_time(fake_driver: Make, start: Start) -> None:
    machine = fake_driver(clock="virtual", processes=2)
    stopped = start(machine, "share", "k_1000000", "1000000000")
    other = start(machine, "share", "k_1000000", "2000")
    until(lambda: len(machine.card(0).processes) == 2, "both should be there")
    os.kill(stopped.pid, signal.SIGSTOP)
    try:
        assert int(said(other)) >= 990
    finally:
        os.kill(stopped.pid, signal.SIGCONT)


def test_threads_of_one_process_share_its_part_and_do_not_stop_time(fake_driver: Make, start: Start) -> None:
    machine = fake_driver(clock="virtual")
    assert int(said(start(machine, "threads"))) == pytest.approx(400, rel=0.02)


def test_memory_of_another_process_costs_nothing_and_goes_with_its_owner(fake_driver: Make, start: Start) -> None:
    machine = fake_driver(context_bytes=1 << 20)
    owner = start(machine, "lend")
    assert owner.stdout is not None
    ticket = owner.stdout.readline().strip()
    assert said(start(machine, "borrow", ticket)) == "0 1 0 1"
    assert machine.card(0).peak_bytes == (64 << 20) + 2 * (1 << 20)
    owner.kill()
    owner.wait()
    assert said(start(machine, "borrow", ticket)) == "1"
    assert said(start(machine, "borrow", "00" * 64)) == "1"


@pytest.mark.parametrize("clock", ["real", "virtual"])
def test_processes_killed_at_any_moment_leave_the_machine_right(fake_driver: Make, start: Start, clock: str) -> None:
    machine = fake_driver(clock=clock, memory_bytes=2 * GIB, context_bytes=1 << 20)
    for round_number in range(12):
        group = [start(machine, "churn", str(10 * round_number + number)) for number in range(3)]
        for process in group:
            assert process.stdout is not None
            assert process.stdout.readline() == "churning\n"
        for process in group:
            time.sleep(0.001 * (round_number % 4))  # another moment each time, not a synchronisation
            process.kill()
        for process in group:
            process.wait()
        state = machine.card(0)
        assert (state.used_bytes, state.processes) == (0, ())
        assert state.peak_bytes <= 2 * GIB
    assert said(start(machine, "fill", str(1 << 20))) == f"{2 * GIB - (1 << 20)} 2"


def test_a_process_stopped_in_the_middle_of_a_call_does_not_keep_the_machine(fake_driver: Make, start: Start) -> None:
    machine = fake_driver(memory_bytes=2 * GIB, context_bytes=1 << 20)
    churning = start(machine, "churn", "7")
    assert churning.stdout is not None
    assert churning.stdout.readline() == "churning\n"
    for _ in range(20):
        os.kill(churning.pid, signal.SIGSTOP)
        said(start(machine, "share", "k_1000", "0"))  # has to take the lock to come up and to end
        os.kill(churning.pid, signal.SIGCONT)
    assert churning.poll() is None


@pytest.mark.parametrize("clock", ["real", "virtual"])
@pytest.mark.parametrize("where", ["taken", "let go"])
def test_a_process_stopped_at_the_edge_of_the_lock_does_not_keep_the_machine(
    fake_driver: Make, program: Path, tmp_path: Path, start: Start, clock: str, where: str
) -> None:
    preload = tmp_path / "stop_in_lock.so"
    source = Path(__file__).with_name("stop_in_lock.c")
    subprocess.run(["cc", "-shared", "-fPIC", "-w", "-o", str(preload), str(source), "-ldl"], check=True)
    machine = fake_driver(clock=clock)
    edge = {"LD_PRELOAD": str(preload), "STOP_WHERE": where, "STOP_AT": "40"}
    words = [program, "share", "k_1000000", "1000000000"]
    stopped = subprocess.Popen(words, env={**machine.env(), **edge}, stdout=subprocess.DEVNULL)
    try:
        until(lambda: state_of(stopped.pid) == "T", "it stops itself with the lock")
        assert int(said(start(machine, "share", "k_1000000", "20"))) >= 8
        until(lambda: state_of(stopped.pid) == "T", "it stops again once it let the lock go")
    finally:
        stopped.kill()
        stopped.wait()


def state_of(pid: int) -> str:
    """As the kernel says: T for a stopped process."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
