"""What was asked for, as plain data that another process can be given."""

from pydantic import BaseModel, ConfigDict


class Asked(BaseModel):
    """The arguments of ``oodbench.run`` that say what is run, rather than where and how."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    suite: str
    detectors: list[str]
    protocols: list[str]
    seeds: list[int] | None
    classifier: str | None
    weights: str | None
    penultimate: str | None
    replace: dict[str, str]
    plugins: list[str]
    limit: int | None
    skip_missing: bool
    timeout: float | None
