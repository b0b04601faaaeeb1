import time
from pathlib import Path

import oodbench


@oodbench.detector("patient", needs="logits")
def patient(logits):
    while not Path(__file__).with_name("go").exists():
        time.sleep(0.02)
    return logits[:, 0]


@oodbench.detector("faulty", needs="logits")
def faulty(logits):
    raise ValueError("no luck")
