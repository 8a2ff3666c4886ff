"""A DNS server in threads of the test, which answers by the table it was given."""

from __future__ import annotations

import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset

from support.processes import DEADLINE

#: The most that an answer by UDP holds without EDNS (RFC 1035 §4.2.1).
MAX_DATAGRAM = 512


class DnsServer:
    """Answers questions by UDP and TCP on one port of 127.0.0.1.

    A name without records does not exist; a type that the name has none of gives an empty answer.
    """

    def __init__(self) -> None:
        #: By name and type.
        self.records: dict[str, dict[str, list[str]]] = {}
        self.rcodes: dict[tuple[str, str], dns.rcode.Rcode] = {}
        self.silent: set[tuple[str, str]] = set()
        self.asked: list[tuple[str, str]] = []
        self.may_answer = threading.Event()
        self.may_answer.set()
        self.was_asked = threading.Event()
        self._servers = _servers_on_one_port(self)
        self.port: int = self._servers[0].server_address[1]
        self._threads = [
            threading.Thread(target=server.serve_forever, args=(0.005,)) for server in self._servers
        ]
        for thread in self._threads:
            thread.start()

    @property
    def where(self) -> str:
        """As ``dns.nameservers`` wants it."""
        return f"127.0.0.1:{self.port}"

    def fail(self, name: str) -> None:
        """Answer SERVFAIL to questions about a name, until `heal`."""
        self.rcodes.update({(name, kind): dns.rcode.SERVFAIL for kind in ("A", "AAAA", "SRV")})

    def heal(self) -> None:
        """Undo `fail`."""
        self.rcodes.clear()

    def close(self) -> None:
        self.may_answer.set()
        for server in self._servers:
            server.shutdown()
            server.server_close()
        for thread in self._threads:
            thread.join()

    def answer(self, wire: bytes, limit: int) -> bytes | None:
        """In a thread: the reply to a question, None for silence."""
        query = dns.message.from_wire(wire)
        question = query.question[0]
        name = question.name.to_text(omit_final_dot=True)
        kind = dns.rdatatype.to_text(question.rdtype)
        self.asked.append((name, kind))
        self.was_asked.set()
        self.may_answer.wait(DEADLINE)
        if (name, kind) in self.silent:
            return None
        response = dns.message.make_response(query)
        records = self.records.get(name)
        response.set_rcode(dns.rcode.NXDOMAIN if records is None else dns.rcode.NOERROR)
        response.set_rcode(self.rcodes.get((name, kind), response.rcode()))
        if records and (texts := records.get(kind)):
            response.answer.append(dns.rrset.from_text(question.name, 60, "IN", kind, *texts))
        reply = response.to_wire(max_size=65535)
        if len(reply) > limit:
            response.answer.clear()
            response.flags |= dns.flags.TC
            reply = response.to_wire()
        return reply


def _servers_on_one_port(dns_server: DnsServer) -> list[socketserver.BaseServer | Any]:
    class OverUdp(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            wire, sock = self.request
            if reply := dns_server.answer(wire, MAX_DATAGRAM):
                sock.sendto(reply, self.client_address)

    class OverTcp(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            length = int.from_bytes(self.rfile.read(2), "big")
            if reply := dns_server.answer(self.rfile.read(length), 65535):
                self.wfile.write(len(reply).to_bytes(2, "big") + reply)

    while True:
        udp = socketserver.UDPServer(("127.0.0.1", 0), OverUdp)
        try:
            return [udp, socketserver.TCPServer(udp.server_address, OverTcp)]
        except OSError:  # the number is free for UDP only
            udp.server_close()


@contextmanager
def running_dns() -> Iterator[DnsServer]:
    """A server that is closed at the end."""
    server = DnsServer()
    try:
        yield server
    finally:
        server.close()
