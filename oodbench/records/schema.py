"""``python -m oodbench.records.schema`` writes the record's JSON schema beside this file."""

import json
from pathlib import Path

from oodbench.records.record import Record

FILE = Path(__file__).with_name("record.v1.schema.json")

if __name__ == "__main__":
    FILE.write_text(json.dumps(Record.model_json_schema(), indent=1) + "\n", encoding="utf-8")
