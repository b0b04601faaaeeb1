import os
import signal
import time
from pathlib import Path

import oodbench

here = Path(__file__).parent


@oodbench.detector("patient", needs="logits")
def patient(logits):
    """Waits in its first run, and says so."""
    log = os.open(here / "patient.txt", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(log, f"{os.getppid()}\n".encode())
    if not (here / "go").exists():
        time.sleep(60)
    return -logits.amax(dim=1)


@oodbench.detector("segfault", needs="logits")
def segfault(logits):
    os.kill(os.getpid(), signal.SIGSEGV)
    time.sleep(60)


@oodbench.detector("leaves", needs="logits")
def leaves(logits):
    os._exit(3)


@oodbench.detector("chatty", needs="logits")
def chatty(logits):
    print("to standard output")
    os.write(1, b"to its file descriptor")
    return logits[:, 0]


@oodbench.detector("deaf", needs="logits")
def deaf(logits):
    """Like native code, does not hear that its time is over."""
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGALRM])
    time.sleep(300)


def note(name):
    with (here / f"{name}.txt").open("a") as log:
        log.write(f"{os.getpid()} ")


@oodbench.detector("interrupts", needs="logits")
def interrupts(logits):
    note("interrupts")
    os.kill(os.getpid(), signal.SIGINT)  # nobody hears it
    raise KeyboardInterrupt


@oodbench.detector("closes", needs="logits")
def closes(logits):
    note("closes")
    os.closerange(3, 256)
    return logits[:, 0]


@oodbench.detector("stops", needs="logits")
def stops(logits):
    os.kill(os.getpid(), signal.SIGSTOP)


@oodbench.detector("rare-signal", needs="logits")
def rare_signal(logits):
    os.kill(os.getpid(), signal.SIGRTMIN + 6)
    time.sleep(60)


@oodbench.detector("leaves-a-child", needs="logits")
def leaves_a_child(logits):
    child = os.fork()
    if child == 0:
        time.sleep(600)
    (here / "child.txt").write_text(str(child))
    os._exit(4)


@oodbench.detector("intrudes", needs="logits")
def intrudes(logits):
    note("intrudes")
    for file in os.listdir("/proc/self/fd"):
        if os.readlink(f"/proc/self/fd/{file}").startswith("pipe:"):
            try:  # noqa: SIM105 - what people write
                os.write(int(file), b"1 {}\n2 {}\n3 {}\n4 {}\n")
            except OSError:
                pass
    return logits[:, 0]
