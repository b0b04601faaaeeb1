import os
from pathlib import Path

import oodbench


@oodbench.detector("counted", needs="features", fitted_on="training")
class Counted:
    """Says how often it is fitted, for each seed."""

    def __init__(self, seed=0):
        self.seed = seed

    def fit(self, evidence, labels):
        log = os.open(Path(__file__).with_name("fits.txt"), os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(log, f"{self.seed}\n".encode())
        self.mean = evidence.features.mean(dim=0)

    def score(self, evidence):
        return (evidence.features - self.mean).norm(dim=1)
