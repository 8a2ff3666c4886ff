"""The real network: binds listeners, resolves names and dials."""

from __future__ import annotations

import errno
import ipaddress
import socket
from collections.abc import Sequence

import trio

from trio_proxy.exchange.streams import Stream
from trio_proxy.http.addresses import Address, TcpAddress, UnixAddress
from trio_proxy.net import listen as listeners
from trio_proxy.net import sockets
from trio_proxy.net.dns.nameservers import NameServers
from trio_proxy.net.dns.resolver import Resolver
from trio_proxy.net.epoll import PeerWatch, new_peer_watch
from trio_proxy.net.epoll_stream import stream_of
from trio_proxy.net.network import Listener, ServiceRecord

#: Head start of one address over the next (RFC 8305 §5: 250 ms recommended).
ATTEMPT_DELAY_SECONDS = 0.25


class SocketNetwork:
    """`Network` on the operating system's sockets. `run` must be running while it is used.

    ``nameservers`` are asked for names that are dialled or looked up (nginx: ``resolver``), as
    ``10.0.0.2``, ``10.0.0.2:5353`` or ``[::1]:53``. Without any, hosts are looked up as the system
    does it, and services by the servers in ``/etc/resolv.conf``. The names in `listen`, and
    ``localhost`` (RFC 6761 §6.3), are the system's business in any case. Raises ValueError.
    """

    def __init__(self, watch: PeerWatch | None = None, nameservers: Sequence[str] = ()) -> None:
        self._system = self._resolver = Resolver()
        self._dns = NameServers()
        self.nameservers: Sequence[str] = ()
        self.use_nameservers(nameservers)
        self._watch = watch or new_peer_watch()

    def use_nameservers(self, servers: Sequence[str]) -> None:
        """Ask these from now on; what others said is forgotten. Raises ValueError."""
        servers = tuple(servers)
        if servers == self.nameservers:
            return
        self._dns = NameServers(servers)
        self._resolver = Resolver(self._dns.start_lookup) if servers else self._system
        self.nameservers = servers

    def asking(self, servers: Sequence[str]) -> SocketNetwork:
        """The same network for whoever wants these asked for names; itself for none.

        It need be neither run nor closed. Raises ValueError.
        """
        return SocketNetwork(self._watch, servers) if servers else self

    async def run(self) -> None:
        """Report hang-ups until cancelled."""
        await self._watch.run()

    def close(self) -> None:
        self._watch.close()

    async def listen(self, address: Address) -> Listener:
        return listeners.bind(await self.literal(address), self._watch)

    async def literal(self, address: Address) -> Address:
        """An address to listen on, with its host name looked up."""
        if isinstance(address, UnixAddress) or _is_ip_literal(address.host):
            return address
        hosts = await self._system.resolve(address.host)
        return TcpAddress(hosts[0], address.port)

    async def dial(self, address: Address) -> Stream:
        """Connect. Raises OSError: `LookupFailed` if the name has no address."""
        if isinstance(address, UnixAddress):
            return await self._connect(address)
        if _is_ip_literal(address.host):
            return await self._connect(address)
        candidates = await self._resolve(address)
        if len(candidates) == 1:
            return await self._connect(candidates[0])
        return await self._race(candidates)

    async def lookup(self, host: str) -> Sequence[str]:
        """See `Network.lookup`; IPv4 first, by number. At most `MAX_MEMBERS`, in 5 s."""
        if _is_ip_literal(host):
            await trio.lowlevel.checkpoint()
            return [host]
        return await self._resolver_of(host).refresh(host)

    async def lookup_service(self, name: str) -> Sequence[ServiceRecord]:
        """See `Network.lookup_service`; at most `MAX_RECORDS`, in 5 s."""
        return await self._dns.services(name)

    async def _resolve(self, address: TcpAddress) -> list[TcpAddress]:
        hosts = await self._resolver_of(address.host).resolve(address.host)
        return [TcpAddress(host, address.port) for host in hosts]

    def _resolver_of(self, host: str) -> Resolver:
        is_local = f".{host.rstrip('.').lower()}".endswith(".localhost")
        return self._system if is_local else self._resolver

    async def _connect(self, address: Address) -> Stream:
        family, where = sockets.family_and_sockaddr(address)
        sock = socket.socket(family, socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            code = sock.connect_ex(where)
            if code == errno.EINPROGRESS:
                await trio.lowlevel.wait_writable(sock)
                code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            elif code == errno.EAGAIN and isinstance(address, UnixAddress):
                code = await _connect_when_backlog_has_room(sock, address.path)
            if code:
                raise OSError(code, f"{address}: {errno.errorcode.get(code, code)}")
            return stream_of(sock, self._watch)
        except BaseException:
            sock.close()
            raise

    async def _race(self, candidates: list[TcpAddress]) -> Stream:
        """Happy Eyeballs (RFC 8305): start the next attempt when the last one fails or is slow."""
        winner: list[Stream] = []
        failures: list[OSError] = []

        async def attempt(address: TcpAddress, failed: trio.Event) -> None:
            try:
                stream = await self._connect(address)
            except OSError as exc:
                failures.append(exc)
                failed.set()
                return
            if winner:
                stream.close()
                return
            winner.append(stream)
            nursery.cancel_scope.cancel()

        try:
            async with trio.open_nursery() as nursery:
                for address in candidates:
                    failed = trio.Event()
                    nursery.start_soon(attempt, address, failed)
                    with trio.move_on_after(ATTEMPT_DELAY_SECONDS):
                        await failed.wait()
        except BaseException:
            for stream in winner:  # connected, but whoever asked has been cancelled
                stream.close()
            raise
        if winner:
            return winner[0]
        refused = [exc for exc in failures if isinstance(exc, ConnectionRefusedError)]
        raise (refused or failures)[0]


async def _connect_when_backlog_has_room(sock: socket.socket, path: str) -> int:
    """A unix socket whose backlog is full says EAGAIN and offers nothing to wait for: poll."""
    delay = 0.001
    while True:
        await trio.sleep(delay)
        code = sock.connect_ex(path)
        if code != errno.EAGAIN:
            return code
        delay = min(delay * 2, 0.05)


def _is_ip_literal(host: str) -> bool:
    try:
        ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return True
