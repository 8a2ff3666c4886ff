"""Questions to DNS servers: for SRV records always, for addresses if servers were configured.

dnspython speaks the protocol: it asks again, asks the next server, and goes over to TCP when an
answer is truncated. It is imported when the first question is asked, because that takes a tenth
of a second, which most configurations can save at their start. It reckons with the wall clock,
which may jump, so every question has a deadline of ours as well.
"""

from __future__ import annotations

import importlib
import ipaddress
import itertools
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import outcome
import trio

from trio_proxy.http.addresses import TcpAddress, parse_address
from trio_proxy.net.dns.resolver import LIFETIME_SECONDS, Answer
from trio_proxy.net.network import LookupFailed, ServiceRecord

if TYPE_CHECKING:
    from dns.asyncresolver import Resolver
    from dns.resolver import NoNameservers

#: Where servers listen that were given without a port (RFC 1035 §4.2).
DEFAULT_PORT = 53

#: How long one server may take before the question is repeated or goes to the next one.
ATTEMPT_SECONDS = 1.0

#: How long the addresses of one family wait for those of the other. A dial could do with 50 ms
#: (RFC 8305 §3); but whoever is missing from the answer to a refresh is no member any more.
GRACE_SECONDS = 0.5

#: SRV records given out; beyond, the least preferred are left out.
MAX_RECORDS = 256

_TOO_LATE = f"no answer within {LIFETIME_SECONDS:g} s"


class NameServers:
    """The DNS servers to ask (nginx: ``resolver``): ``10.0.0.2``, ``10.0.0.2:5353``, ``[::1]:53``.

    They are asked in this order. None means those of ``/etc/resolv.conf``, which is read anew for
    each question. Names are taken as complete: no search list applies. Raises ValueError.
    """

    def __init__(self, servers: Sequence[str] = ()) -> None:
        self._servers = [read_server(text) for text in servers]

    def start_lookup(self, host: str, deliver: Callable[[Answer], None]) -> None:
        """Start a look-up of addresses that nobody's cancellation ends: a `StartLookup`."""
        trio.lowlevel.spawn_system_task(self._deliver_addresses, host, deliver, name=f"dns {host}")

    async def _deliver_addresses(self, host: str, deliver: Callable[[Answer], None]) -> None:
        answer: Answer
        try:
            answer = outcome.Value(await self._addresses(host))
        except Exception as exc:  # noqa: BLE001 - in a system task it would end the process
            answer = outcome.Error(exc)
        deliver(answer)

    async def _addresses(self, host: str) -> Sequence[str]:
        """A and AAAA, at least one, the families in turn (RFC 8305 §4). Raises _NoAnswer."""
        found: dict[str, Sequence[str]] = {}
        failures: dict[str, _NoAnswer] = {}

        async def ask(kind: str) -> None:
            try:
                found[kind] = [record.address for record in await self._ask(host, kind)]
            except _NoAnswer as exc:
                failures[kind] = exc
            if found.get(kind):
                nursery.cancel_scope.deadline = trio.current_time() + GRACE_SECONDS

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, "A")
            nursery.start_soon(ask, "AAAA")
        pairs = itertools.zip_longest(found.get("AAAA", ()), found.get("A", ()))
        addresses = [address for pair in pairs for address in pair if address]
        if not addresses:
            raise failures.get("A") or failures.get("AAAA") or _NoAnswer("it has no address")
        return addresses

    async def services(self, name: str) -> Sequence[ServiceRecord]:
        """See `Network.lookup_service`."""
        try:
            found = await self._ask(name, "SRV")
        except _NoAnswer as exc:
            raise LookupFailed(f"cannot resolve {name}: {exc}") from exc
        if not found:
            raise LookupFailed(f"cannot resolve {name}: it has no SRV records")
        records = {_service_record(record) for record in found if record.target.labels != (b"",)}
        if not records:
            raise LookupFailed(f"cannot resolve {name}: its domain says there is no such service")
        return sorted(records, key=_by_preference)[:MAX_RECORDS]

    async def _ask(self, name: str, kind: str) -> Sequence[Any]:
        """The records of this type, none if the name has others only. Raises _NoAnswer."""
        if "dns.asyncresolver" not in sys.modules:
            # Not in the event loop, which may be serving.
            await trio.to_thread.run_sync(importlib.import_module, "dns.asyncresolver")
        from dns.asyncbackend import get_backend
        from dns.exception import DNSException, Timeout
        from dns.name import from_text
        from dns.resolver import NXDOMAIN, NoNameservers

        try:
            with trio.move_on_after(LIFETIME_SECONDS):
                answer = await self._resolver().resolve(
                    from_text(name), kind, raise_on_no_answer=False, backend=get_backend("trio")
                )
                return list(answer)
        except Timeout as exc:
            raise _NoAnswer(_TOO_LATE) from exc
        except NXDOMAIN as exc:
            raise _NoAnswer("there is no such name") from exc
        except NoNameservers as exc:
            raise _NoAnswer(_complaints(exc)) from exc
        except (DNSException, OSError, ValueError) as exc:
            raise _NoAnswer(str(exc)) from exc
        raise _NoAnswer(_TOO_LATE)

    def _resolver(self) -> Resolver:
        from dns.asyncresolver import Resolver
        from dns.nameserver import Do53Nameserver

        resolver = Resolver(configure=not self._servers)
        resolver.lifetime = LIFETIME_SECONDS
        if self._servers:
            resolver.nameservers = [Do53Nameserver(host, port) for host, port in self._servers]
            resolver.timeout = ATTEMPT_SECONDS
        return resolver


class _NoAnswer(Exception):
    """Why a question was not answered, in words."""


def read_server(text: str) -> tuple[str, int]:
    """IP address and port of a DNS server. Raises ValueError."""
    try:
        return str(ipaddress.ip_address(text)), DEFAULT_PORT
    except ValueError:
        pass
    try:
        address = parse_address(text, lowest_port=1)
        if isinstance(address, TcpAddress):
            return str(ipaddress.ip_address(address.host)), address.port
    except ValueError as exc:
        raise ValueError(f"expected the IP address of a DNS server, got {text!r}") from exc
    raise ValueError(f"expected the IP address of a DNS server, got {text!r}")


def _service_record(record: Any) -> ServiceRecord:
    return ServiceRecord(
        host=record.target.to_text(omit_final_dot=True),
        port=record.port,
        priority=record.priority,
        weight=record.weight,
    )


def _by_preference(record: ServiceRecord) -> tuple[int, int, str, int]:
    return record.priority, -record.weight, record.host, record.port


def _complaints(exc: NoNameservers) -> str:
    """What each server did wrong, as "10.0.0.2@53: SERVFAIL"."""
    told = {
        f"{server.removeprefix('Do53:')}: {getattr(error, 'strerror', None) or error}": None
        for server, _, _, error, _ in exc.kwargs["errors"]
    }
    return "; ".join(told) or "no name server is known"
