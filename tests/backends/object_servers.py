"""Object stores of the tests' own, on loopback: moto's S3 server and Azurite, ended by the session that began them."""

from __future__ import annotations

import base64
import fcntl
import hashlib
import hmac
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote
from urllib.request import Request, urlopen

from trimtab.core.optional import need

AZURITE = "3.35.0"
# Azure lists from a name on (``startFrom``), which the client of Delta tables asks for; Azurite 3.35 does not know it
# (https://github.com/Azure/Azurite/issues/2619), and is taught it here. Nothing else of Azurite is touched.
_START_FROM = """
const handler = require(process.env.AZURITE_HANDLER).default.prototype;
const list = handler.listBlobFlatSegment;
handler.listBlobFlatSegment = async function (options, context) {
  const response = await list.call(this, options, context);
  const from = context.request.getQuery("startFrom");
  if (from) response.segment.blobItems = response.segment.blobItems.filter((one) => one.name >= from);
  return response;
};
"""
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
                [*_with_us(), *self.argv()], stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.folder,
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
        taught = self.folder / "start_from.js"
        taught.write_text(_START_FROM)
        return [
            "node", "--require", str(taught), str(self._program), "--blobHost", "127.0.0.1",
            "--blobPort", str(self.port), "--location", str(self.folder / "data"), "--silent",
            "--disableTelemetry", "--skipApiVersionCheck", "--disableProductStyleUrl",
        ]  # fmt: skip

    def environment(self) -> dict[str, str]:
        """Return the account and its key."""
        handler = self._program.resolve().parent / "handlers" / "ContainerHandler.js"
        return {"AZURITE_ACCOUNTS": f"{self.account}:{self.secret}", "AZURITE_HANDLER": str(handler)}

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

    def make_container(self) -> None:
        """Make the container, signed with the account's key."""
        at = datetime.now(UTC).strftime("%a, %d %b %Y %H:%M:%S GMT")
        said = f"x-ms-date:{at}\nx-ms-version:2021-08-06\n/{self.account}/{self.account}/trimtab\nrestype:container"
        signature = self._signed("PUT" + "\n" * 12 + said)
        headers = {
            "x-ms-date": at, "x-ms-version": "2021-08-06", "Content-Length": "0",
            "Authorization": f"SharedKey {self.account}:{signature}",
        }  # fmt: skip
        with urlopen(Request(f"{self.endpoint}/trimtab?restype=container", method="PUT", headers=headers), timeout=10):
            pass

    def signature(self, may: str = "rwdlac") -> str:
        """Return a shared access signature of the account for one hour."""
        until = (datetime.now(UTC) + timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
        fields = [self.account, may, "b", "sco", "", until, "", "", "2019-12-12", ""]
        signature = quote(self._signed("\n".join(fields)), safe="")
        return f"sv=2019-12-12&ss=b&srt=sco&sp={may}&se={quote(until, safe='')}&sig={signature}"

    def _signed(self, text: str) -> str:
        key = base64.b64decode(self.secret)
        return base64.b64encode(hmac.new(key, text.encode(), hashlib.sha256).digest()).decode()


def installed_azurite() -> Path:
    """Return Azurite's program, installed once for this user outside of the repository.

    Raises:
        LookupError: it cannot be had here, and why.
    """
    npm = shutil.which("npm")
    if npm is None or shutil.which("node") is None:
        raise LookupError("npm and node are not installed")
    folder = Path(tempfile.gettempdir()) / f"trimtab-azurite-{AZURITE}-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.stat().st_uid != os.getuid():
        raise LookupError(f"{folder} is somebody else's")
    program = folder / "node_modules" / ".bin" / "azurite-blob"
    done = folder / "installed"
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists():
            argv = [npm, "install", "--no-audit", "--no-fund", "--no-save", "--ignore-scripts", f"azurite@{AZURITE}"]
            made = subprocess.run(argv, cwd=folder, capture_output=True, text=True, timeout=240)
            if made.returncode or not program.exists():
                raise LookupError(f"npm cannot install azurite: {made.stderr[-500:]}")
            done.touch()
    return program


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _with_us() -> list[str]:
    """Return what ends a server when the tests are killed before they could."""
    found = shutil.which("setpriv")
    return [found, "--pdeathsig", "TERM"] if found else []


def serve_s3(port: int) -> None:
    """Answer as moto does, one request after the other."""
    werkzeug, moto = need("werkzeug.serving"), need("moto.moto_server.werkzeug_app")
    app = moto.DomainDispatcherApplication(moto.create_backend_app)
    turn = threading.Lock()

    def one(environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        with turn:
            return list(app(environ, start))

    werkzeug.make_server("127.0.0.1", port, one, threaded=True, request_handler=moto.MotoRequestHandler).serve_forever()


if __name__ == "__main__":
    serve_s3(int(sys.argv[1]))
