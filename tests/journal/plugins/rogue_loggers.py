import logging
import logging.config
import os
import sys
import time

import oodbench


@oodbench.detector("silencer", needs="logits")
def silencer(logits):
    logging.disable(logging.CRITICAL)
    logging.config.dictConfig({"version": 1})
    return logits[:, 0]


@oodbench.detector("babbler", needs="logits")
def babbler(logits):
    class Raises(logging.Handler):
        def emit(self, record):
            raise ValueError("no luck")

    logging.getLogger("oodbench.events").addHandler(Raises())
    logging.getLogger("oodbench.mine").warning("odd", extra={"facts": 3})
    return logits[:, 0]


@oodbench.detector("forks", needs="logits")
def forks(logits):
    if os.fork() == 0:
        time.sleep(0.05)
        sys.exit(0)
    return logits[:, 0]
