"""Requests to addresses that clients name go where they may, in time, and to the address that was checked."""

from __future__ import annotations

import datetime as dt
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.receivers import Receiver
from trimtab.api.outbound import HOSTS, HTTP, Guard, is_allowed, post
from trimtab.core.errors import BadInput, Unavailable

HERE = frozenset({"127.0.0.1"})
OPEN = Guard(HERE, HERE)


def names(*addresses: str) -> Callable[..., Any]:
    """Return a name server that knows each name by these addresses."""

    def resolve(host: str, port: int, **more: Any) -> list[Any]:
        families = [(socket.AF_INET6 if ":" in one else socket.AF_INET, one) for one in addresses]
        return [
            (family, socket.SOCK_STREAM, 6, "", (one, port, 0, 0) if ":" in one else (one, port))
            for family, one in families
        ]

    return resolve


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "127.8.8.8", "0.0.0.0", "0.1.2.3", "10.0.0.1", "172.16.5.4", "192.168.0.1", "100.64.0.1",
        "169.254.169.254", "168.63.129.16", "100.100.100.200", "192.0.0.192", "192.0.0.9", "192.0.2.1", "198.18.0.1",
        "192.88.99.1", "224.0.0.1", "239.1.1.1", "240.0.0.1", "255.255.255.255", "::", "::1", "::1.2.3.4",
        "::ffff:127.0.0.1", "::ffff:8.8.8.8", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::1", "2002:7f00:1::",
        "2002:a00:1::1", "2001::1", "2001:db8::1", "3fff::1", "fc00::1", "fd00:ec2::254", "fe80::1", "fe80::1%eth0",
        "fec0::1", "ff02::1", "5f00::1", "100::1", "no address",
    ],
)  # fmt: skip
def test_only_public_addresses_are_allowed(address: str) -> None:
    """No address of this machine, of a network inside, of nobody, or that hides one of these is public."""
    assert not is_allowed(address)


@pytest.mark.parametrize("address", ["8.8.8.8", "172.32.0.1", "2606:4700::1111", "64:ff9b::808:808", "2002:808:808::"])
def test_public_addresses_are_allowed(address: str) -> None:
    """What everybody can reach may be asked, also through a gateway."""
    assert is_allowed(address)


def test_a_host_inside_may_be_private_and_no_more() -> None:
    """A host that was named may lie in a private network; what machines are told alone stays closed."""
    assert all(is_allowed(one, inside=True) for one in ("127.0.0.1", "::1", "10.0.0.1", "fd12::1", "100.64.0.1"))
    closed = ("169.254.169.254", "fe80::1", "fd00:ec2::254", "168.63.129.16", "224.0.0.1", "0.0.0.0", "0.1.2.3", "::")
    assert not any(
        is_allowed(one, inside=True) for one in (*closed, "::ffff:127.0.0.1", "240.0.0.1", "64:ff9b::7f00:1")
    )


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("http://a.example/", "Invalid webhook URL scheme: 'http'"),
        ("file:///etc/passwd", "Invalid webhook URL scheme: 'file'"),
        ("//a.example/", "Invalid webhook URL scheme: ''"),
        ("https://", "must include a hostname"),
        ("https://u:p@a.example", "must not have a user"),
        ("https://a.example@127.0.0.1", "must not have a user"),
        ("https://a.example\\@b.example", "characters that no URL has"),
        ("https://a.example/\r\nHost: b", "characters that no URL has"),
        ("https://a.ex\tample/", "characters that no URL has"),
        ("https://a.example:99999/", "Invalid webhook URL"),
        ("https://a.example:0/", "port 0"),
        ("https://[::1/", "Invalid webhook URL"),
        (f"https://{'a' * 64}.example", "Invalid webhook URL"),
        (f"https://a.example/{'a' * 2048}", "too long"),
    ],
)
def test_what_is_no_url_is_refused(url: str, message: str) -> None:
    """A URL that could mean two things to two readers is refused before anything is asked."""
    with pytest.raises(BadInput) as caught:
        Guard().target(url)
    assert message in caught.value.message


def test_where_a_url_leads() -> None:
    """The name is in lower case and ASCII, the port is there, and the path is as it is sent."""
    found = Guard().target("https://BÜCHER.Example./a b".replace(" ", "%20") + "?x=é&y=%41#part")
    assert (found.host, found.port, found.path) == ("xn--bcher-kva.example", 443, "/a%20b?x=%C3%A9&y=%41")
    assert Guard(plain=frozenset({"a"})).target("http://a:8080").port == 8080
    assert Guard().target("https://[2606:4700::1]:1/").host == "2606:4700::1"


@pytest.mark.parametrize("host", ["127.1", "2130706433", "0x7f000001", "0177.0.0.1", "localhost", "[::ffff:7f00:1]"])
def test_other_words_for_this_machine_are_seen_through(host: str) -> None:
    """What a name means is asked of the system, and judged after that."""
    guard = Guard()
    with pytest.raises(BadInput, match="non-public IP address"):
        guard.addresses(guard.target(f"https://{host}/"))


def test_every_address_of_a_name_is_judged() -> None:
    """One address inside refuses the name, wherever it stands among public ones."""
    guard = Guard(resolve=names("8.8.8.8", "10.0.0.1"))
    with pytest.raises(BadInput, match=r"'a.example' resolves to 10.0.0.1"):
        guard.addresses(guard.target("https://a.example/"))
    with pytest.raises(BadInput, match="has no address"):
        Guard(resolve=names()).addresses(guard.target("https://a.example/"))


def test_a_name_that_changes_its_mind_changes_nothing() -> None:
    """The name is resolved once, and the connection goes to the address that was judged."""
    asked: list[str] = []
    first = names("127.0.0.1")

    def rebinds(host: str, port: int, **more: Any) -> Any:
        asked.append(host)
        return first(host, port) if len(asked) == 1 else names("10.255.255.1")(host, port)

    name = frozenset({"moving.example"})
    with Receiver() as receiver:
        url = f"http://moving.example:{receiver.port}/x?y=1"
        assert post(Guard(name, name, rebinds), url, b"{}", {"X-A": "b"}, timeout_s=5).status == 200
        got = receiver.wait(1)[0]
    assert asked == ["moving.example"]
    assert (got.path, got.headers["host"], got.headers["x-a"]) == ("/x?y=1", f"moving.example:{receiver.port}", "b")


def test_a_second_address_is_tried() -> None:
    """Where one address does not answer, the next one is asked."""
    name = frozenset({"two.example"})
    with Receiver() as receiver:
        guard = Guard(name, name, names("127.0.0.9", "127.0.0.1"))
        assert post(guard, f"http://two.example:{receiver.port}/", b"{}", {}, timeout_s=5).status == 200


def test_redirects_are_not_followed() -> None:
    """An answer that points elsewhere is the answer."""
    with Receiver() as inner, Receiver(302, headers={"Location": inner.url}) as outer:
        assert post(OPEN, outer.url, b"{}", {}, timeout_s=5, most=10).status == 302
        assert inner.got == []


def test_an_answer_is_read_as_far_as_it_is_wanted() -> None:
    """A large body is cut, and none is read where none is wanted."""
    with Receiver(body=b"x" * 10_000_000, headers={"Retry-After": "7"}) as receiver:
        found = post(OPEN, receiver.url, b"{}", {}, timeout_s=5, most=100)
        assert (found.body, found.later) == (b"x" * 100, 7.0)
        assert post(OPEN, receiver.url, b"{}", {}, timeout_s=5).body == b""


@pytest.fixture
def raw() -> Iterator[Callable[[Callable[[socket.socket], None]], str]]:
    """Return a function that serves one connection with a function, and returns its URL."""
    listening: list[socket.socket] = []

    def serve(answer: Callable[[socket.socket], None]) -> str:
        server = socket.create_server(("127.0.0.1", 0))
        listening.append(server)

        def once() -> None:
            try:
                line, _ = server.accept()
                with line:
                    line.recv(65536)
                    answer(line)
            except OSError:
                return

        threading.Thread(target=once, daemon=True).start()
        return f"http://127.0.0.1:{server.getsockname()[1]}/"

    yield serve
    for one in listening:
        one.close()


def test_a_slow_receiver_costs_no_more_than_its_time(raw: Callable[..., str]) -> None:
    """The whole exchange has one limit: a head that drips for ever does not begin it anew."""

    def drip(line: socket.socket) -> None:
        line.sendall(b"HTTP/1.1 200 OK\r\nX-A: ")
        for _ in range(200):
            line.sendall(b"a")
            time.sleep(0.05)

    start = time.monotonic()
    with pytest.raises(Unavailable, match=r"no answer within 0.4 s"):
        post(OPEN, raw(drip), b"{}", {}, timeout_s=0.4)
    assert time.monotonic() - start < 2


def test_a_body_that_never_ends_does_not_take_back_the_answer(raw: Callable[..., str]) -> None:
    """The status stands when the body breaks off."""

    def hold(line: socket.socket) -> None:
        line.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc")
        time.sleep(2)

    found = post(OPEN, raw(hold), b"{}", {}, timeout_s=0.3, most=100)
    assert (found.status, found.body) == (200, b"abc")


@pytest.mark.parametrize("said", [b"", b"nonsense\r\n\r\n", b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 200])
def test_what_is_not_http_is_no_answer(raw: Callable[..., str], said: bytes) -> None:
    """Nothing, nonsense, and too many headers are told as a receiver that does not answer."""
    with pytest.raises(Unavailable):
        post(OPEN, raw(lambda line: line.sendall(said)), b"{}", {}, timeout_s=2)


def test_the_environment_names_hosts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hosts are listed with commas, in any case; nothing is allowed by default."""
    monkeypatch.delenv(HOSTS, raising=False)
    monkeypatch.delenv(HTTP, raising=False)
    assert Guard.of_environment() == Guard()
    monkeypatch.setenv(HOSTS, "A.internal, [::1],b.")
    monkeypatch.setenv(HTTP, "c")
    assert Guard.of_environment() == Guard(frozenset({"a.internal", "::1", "b"}), frozenset({"c"}))


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a file with a certificate for ``tls.example`` that nobody else trusts, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "tests")])
    names = [x509.DNSName("tls.example"), x509.IPAddress(ip_address("127.0.0.1"))]
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
        .serial_number(1).not_valid_before(now - dt.timedelta(days=1)).not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(made.public_bytes(serialization.Encoding.PEM) + private)
    return path


def test_tls_is_of_the_name_and_not_of_the_address(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The certificate is checked for the name in the URL, which the receiver is asked for, at the address judged."""
    asked: list[str | None] = []
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    context.sni_callback = lambda _socket, name, _context: asked.append(name)
    hosts = frozenset({"tls.example", "other.example", "127.0.0.1"})
    guard = Guard(hosts, resolve=names("127.0.0.1"))
    with Receiver(context=context) as receiver:
        url = f"https://tls.example:{receiver.port}/"
        with pytest.raises(Unavailable, match="certificate verify failed"):
            post(guard, url, b"{}", {}, timeout_s=5)
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        assert post(guard, url, b"{}", {}, timeout_s=5, most=100).body == b"thanks"
        with pytest.raises(Unavailable, match=r"not valid for 'other\.example'"):
            post(guard, url.replace("tls.", "other."), b"{}", {}, timeout_s=5)
        assert post(guard, url.replace("tls.example", "127.0.0.1"), b"{}", {}, timeout_s=5).status == 200
    assert asked[:2] == ["tls.example", "tls.example"] and len(receiver.got) == 2
