"""Webhooks: signed, to checked addresses only, never through a redirect."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from ipaddress import ip_address

import pytest

from inferd.serving.webhook import AddressRefusedError, WebhookSender, check_address, signature

SECRET = b"0123456789abcdef0123456789abcdef"


@contextmanager
def receiver(status=200, headers=()):
    """A server on loopback; yields its URL and the requests that it got."""
    got = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["content-length"]))
            got.append((self.path, dict(self.headers), body))
            self.send_response(status)
            for name, value in headers:
                self.send_header(name, value)
            self.end_headers()

        do_GET = do_POST  # noqa: N815

        def log_message(self, *args):
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://localhost:{server.server_port}/hook?x=1", got
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def send(url, **options):
    async def run():
        sender = WebhookSender(SECRET, **({"allow_private": False} | options))
        try:
            return await sender.send(url, "alert_7", 1_700_000_000, b'{"a":1}')
        finally:
            await sender.close()

    return asyncio.run(run())


def test_delivery_is_signed_by_standard_webhooks():
    """R7"""
    with receiver() as (url, got):
        assert send(url) is None
    ((path, headers, body),) = got
    assert (path, body) == ("/hook?x=1", b'{"a":1}')
    assert headers["host"] == url.split("/")[2]
    expected = hmac.new(SECRET, b'alert_7.1700000000.{"a":1}', hashlib.sha256).digest()
    assert headers["webhook-signature"] == "v1," + base64.b64encode(expected).decode()
    assert (headers["webhook-id"], headers["webhook-timestamp"]) == ("alert_7", "1700000000")


def test_signature_equals_the_specifications():
    """The example of https://github.com/standard-webhooks/standard-webhooks (spec, "Signature scheme")."""
    secret = base64.b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    body = b'{"test": 2432232314}'
    assert (
        signature(secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, body)
        == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    )


@pytest.mark.parametrize("status", [301, 302, 400, 410, 500])
def test_delivery_answered_without_2xx_fails_and_follows_no_redirect(status):
    with receiver() as (elsewhere, got), receiver(status, [("location", elsewhere)]) as (url, _):
        assert send(url) == f"it answered with status {status}"
    assert got == []


def test_delivery_to_a_silent_host_fails():
    with receiver() as (url, _):
        pass
    assert "ConnectError" in send(url)
    assert "cannot be found" in send("https://nowhere.invalid/")


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "::1", "::ffff:127.0.0.1", "169.254.169.254", "fe80::1", "0.0.0.0", "224.0.0.1", "::"),
        *("10.1.2.3", "172.16.0.1", "192.168.1.1", "100.64.0.1", "fc00::1", "::ffff:10.0.0.1"),
        *("64:ff9b::10.1.2.3", "64:ff9b::169.254.169.254", "2002:0a01:0203::1", "2002:7f00:0001::1"),
    ],
)
def test_host_name_that_resolves_to_a_local_address_is_refused(address):
    """R7"""
    with pytest.raises(AddressRefusedError):
        check_address("hooks.example", ip_address(address), allow_private=False)


@pytest.mark.parametrize("address", ["10.1.2.3", "192.168.1.1", "100.64.0.1", "fc00::1"])
def test_private_addresses_can_be_allowed(address):
    check_address("hooks.example", ip_address(address), allow_private=True)


@pytest.mark.parametrize("address", ["127.0.0.1", "169.254.169.254", "fe80::1", "0.0.0.0"])
def test_link_local_addresses_and_names_for_loopback_cannot_be_allowed(address):
    """R7"""
    with pytest.raises(AddressRefusedError):
        check_address("hooks.example", ip_address(address), allow_private=True)


@pytest.mark.parametrize(
    ("host", "address"),
    [
        *(("localhost", "::1"), ("127.0.0.1", "127.0.0.1"), ("a.example", "8.8.8.8")),
        ("a.example", "64:ff9b::8.8.8.8"),
    ],
)
def test_loopback_by_name_and_public_addresses_are_allowed(host, address):
    check_address(host, ip_address(address), allow_private=False)


def test_connection_goes_to_the_checked_address(monkeypatch):
    """R7: a name that resolves to a private address, whatever it said before."""

    async def resolve(self, host, port, **options):
        return [(2, 1, 6, "", ("192.168.7.7", port))]

    monkeypatch.setattr(asyncio.BaseEventLoop, "getaddrinfo", resolve)
    assert "private address 192.168.7.7" in send("https://hooks.example/x")
