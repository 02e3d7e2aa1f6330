"""Object stores of the tests' own, on loopback: moto's S3 server and Azurite, ended by the session that began them."""

from __future__ import annotations

import base64
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

from trimtab.core.optional import need

AZURITE = "3.35.0"
_READY = 30.0


class ObjectServer:
    """A running server of objects.

    Attributes:
        secret: the planted key, which nothing may ever print.
        options: what a client needs to be let in.
    """

    scheme = ""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="objects-", dir="/tmp"))
        self.port = _free_port()
        self.secret = base64.b64encode(secrets.token_bytes(48)).decode()
        self.log = self.folder / "log"
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                self.argv(), stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.folder,
                env={**os.environ, **self.environment()},
            )  # fmt: skip
        try:
            self._wait()
            self.make_container()
        except BaseException:
            self.close()
            raise

    def argv(self) -> list[str]:
        """Return what starts it."""
        raise NotImplementedError

    def environment(self) -> dict[str, str]:
        """Return what it needs in its environment."""
        return {}

    @property
    def options(self) -> dict[str, str]:
        """What a client needs to be let in."""
        raise NotImplementedError

    def make_container(self) -> None:
        """Make the bucket or container ``trimtab``."""
        raise NotImplementedError

    def new_root(self) -> str:
        """Return the URL of a place where nothing lies yet."""
        return f"{self.scheme}://trimtab/{secrets.token_hex(6)}"

    def close(self) -> None:
        """End it and remove what it kept."""
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _wait(self) -> None:
        end = time.monotonic() + _READY
        while time.monotonic() < end and self._process.poll() is None:
            with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return
            time.sleep(0.05)
        raise RuntimeError(f"{type(self).__name__} does not start: {self.log.read_text()[-2000:]}")


class S3Server(ObjectServer):
    """moto's S3; one request at a time, because its compare-and-set is not atomic and that of S3 is."""

    scheme = "s3"

    def argv(self) -> list[str]:
        """Return what starts it: this file."""
        return [sys.executable, __file__, str(self.port)]

    @property
    def options(self) -> dict[str, str]:
        """What a client needs to be let in."""
        return {
            "aws_access_key_id": "AKIATRIMTABTESTS",
            "aws_secret_access_key": self.secret,
            "aws_region": "us-east-1",
            "aws_endpoint_url": f"http://127.0.0.1:{self.port}",
            "allow_http": "true",
        }

    def make_container(self) -> None:
        """Make the bucket."""
        boto3 = need("boto3")
        boto3.client(
            "s3",
            endpoint_url=self.options["aws_endpoint_url"],
            region_name="us-east-1",
            aws_access_key_id="AKIATRIMTABTESTS",
            aws_secret_access_key=self.secret,
        ).create_bucket(Bucket="trimtab")


class Azurite(ObjectServer):
    """Microsoft's emulator of Azure Blob Storage, with an account and a key of its own; it phones nobody."""

    scheme = "az"
    account = "trimtabtests"

    def __init__(self, program: Path) -> None:
        self._program = program
        super().__init__()

    def argv(self) -> list[str]:
        """Return what starts it."""
        return [
            str(self._program), "--blobHost", "127.0.0.1", "--blobPort", str(self.port), "--location",
            str(self.folder / "data"), "--silent", "--disableTelemetry", "--skipApiVersionCheck",
            "--disableProductStyleUrl",
        ]  # fmt: skip

    def environment(self) -> dict[str, str]:
        """Return the account and its key."""
        return {"AZURITE_ACCOUNTS": f"{self.account}:{self.secret}", "AZURITE_DISABLE_TELEMETRY": "true"}

    @property
    def endpoint(self) -> str:
        """Where the account answers."""
        return f"http://127.0.0.1:{self.port}/{self.account}"

    @property
    def options(self) -> dict[str, str]:
        """What a client needs to be let in."""
        return {
            "azure_storage_account_name": self.account,
            "azure_storage_account_key": self.secret,
            "azure_storage_endpoint": self.endpoint,
            "allow_http": "true",
        }
