"""A file that is sent in parts with the real client, and read back byte for byte."""

# mypy: ignore-errors
import hashlib
import random
import tempfile
from pathlib import Path

import mlflow
from mlflow import MlflowClient

content = random.Random(7).randbytes(12_345_678)
with tempfile.TemporaryDirectory() as folder, mlflow.start_run() as run:
    Path(folder, "large.bin").write_bytes(content)
    for path in (None, "in/a folder"):
        mlflow.log_artifact(str(Path(folder, "large.bin")), path)
    for path in ("large.bin", "in/a folder/large.bin"):
        kept = mlflow.artifacts.download_artifacts(
            run_id=run.info.run_id, artifact_path=path, dst_path=folder + "/back"
        )
        assert hashlib.sha256(Path(kept).read_bytes()).digest() == hashlib.sha256(content).digest()
assert {one.path: one.file_size for one in MlflowClient().list_artifacts(run.info.run_id)} == {
    "large.bin": len(content),
    "in": None,
}
print("done")
