"""A suite of few digits and a short training, for tests of whole runs."""

SMALL = """
name = "small"
version = 1
classifier = "cnn"
known = "digits"
seeds = [0]
[input]
size = 8
[sizes]
train = {train}
meta = {meta}
test = {test}
exposed = {exposed}
unknown = {unknown}
[unknown]
noise = {{ n = 80, group = "far" }}
[training]
epochs = {epochs}
"""


def small_suite(folder, *, train=120, meta=60, test=60, exposed=0, unknown=30, epochs=1):
    """Write the suite, and return its file."""
    sizes = {"train": train, "meta": meta, "test": test, "exposed": exposed, "unknown": unknown}
    file = folder / "small.toml"
    file.write_text(SMALL.format(**sizes, epochs=epochs))
    return file
