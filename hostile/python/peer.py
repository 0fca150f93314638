"""A hostile end of a connection: raw bytes, and what the server does about them.

Frames are those of `ringcall/tests/suite/python/wire.py`, which was written from docs/PROTOCOL.md alone.
"""

import asyncio
import os
import random
import socket
import struct
import sys
import time
from collections import Counter

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "../../ringcall/tests/suite/python"))
from wire import *

# Whoever reads nothing wants to be sent as much as there is.
GREEDY = Hello(VERSION, VERSION, 2, 0, 1024, STREAMS, 0b1111, 4 * MIB, 2**40, 2**40, 2**40, 0, bytes(16))
READ_AT_ONCE = 1 << 16
RESET_ON_CLOSE = struct.pack("ii", 1, 0)

# The close code of a server whose connections hold too much together, and how it refuses calls by then.
MEMORY_SHORT = 31
OVERLOADED = 0x4007


class Ended(Exception):
    """The connection is over."""


class Report:
    """What all connections of an attack came to."""

    def __init__(self):
        self.codes = Counter()  # of GOAWAY
        self.statuses = Counter()  # of replies that were looked at
        self.opened = self.refused = self.closed = self.bytes_sent = 0
        self.violations = Counter()

    def to_dict(self):
        """For whoever started this, as JSON."""
        return {
            "opened": self.opened, "refused": self.refused, "closed": self.closed, "bytes_sent": self.bytes_sent,
            "codes": sorted(self.codes), "statuses": sorted(self.statuses), "violations": dict(self.violations),
        }


class Peer:
    """One connection. What is sent is said byte by byte; what comes is read only if it is asked for."""

    def __init__(self, target, number, report, receive_buffer=None):
        self.rng = random.Random(number)
        self.number = number
        self.report = report
        self.code = None  # of GOAWAY, if it came
        self.overloaded = 0  # calls that were refused because the server had too much to do
        self.received = 0
        self._target = target
        self._inbox = bytearray()
        self._preface_seen = False
        self._is_reset = False
        self._loop = asyncio.get_running_loop()
        self._socket = socket.socket()
        self._socket.setblocking(False)
        if receive_buffer:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)

    async def open(self):
        """Connects. From many addresses, because one has only so many ports."""
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket.setsockopt(socket.IPPROTO_IP, 24, 1)  # IP_BIND_ADDRESS_NO_PORT
        if self._target[0].startswith("127."):
            self._socket.bind((f"127.0.{self.number % 8}.{2 + self.number % 200}", 0))
        try:
            await self._loop.sock_connect(self._socket, self._target)
        except OSError:
            self.report.refused += 1
            raise Ended from None
        self.report.opened += 1

    async def send(self, data):
        """Returns when the kernel has taken everything."""
        await asyncio.sleep(0)  # What does not have to wait would not let others go on.
        try:
            await self._loop.sock_sendall(self._socket, data)
        except OSError:
            raise Ended from None
        self.report.bytes_sent += len(data)

    async def greet(self, hello=GREEDY):
        """A handshake as it should be; what the server's HELLO says."""
        await self.send(PREFACE + Frame(HELLO, hello).encode())
        return (await self.frame()).header

    async def raw(self, most=READ_AT_ONCE):
        """Whatever bytes have come, at least one."""
        await asyncio.sleep(0)
        try:
            data = await self._loop.sock_recv(self._socket, most)
        except OSError:
            self._is_reset = True
            raise Ended from None
        if not data:
            raise Ended
        self.received += len(data)
        return data

    async def frame(self):
        """The next frame that has come."""
        while True:
            if not self._preface_seen and len(self._inbox) >= len(PREFACE):
                self.insist(self._inbox[: len(PREFACE)] == PREFACE, "a preface that is none")
                del self._inbox[: len(PREFACE)]
                self._preface_seen = True
            if self._preface_seen:
                frame, size = decode_frame(self._inbox, 2**32)
                if frame:
                    del self._inbox[:size]
                    self._note(frame)
                    return frame
            self._inbox += await self.raw()

    def _note(self, frame):
        if frame.kind == GOAWAY and frame.header.code:
            self.code = frame.header.code
            self.report.codes[self.code] += 1
        if frame.kind in (REPLY, END):
            self.report.statuses[frame.header.status] += 1
            self.overloaded += frame.header.status == OVERLOADED

    async def reply(self):
        """The next REPLY or END."""
        while True:
            frame = await self.frame()
            if frame.kind in (REPLY, END) and not frame.flags & ITEMS_OUT:
                return frame

    async def rest(self):
        """Reads until the server has closed."""
        try:
            while True:
                await self.frame()
        except Ended:
            return

    async def is_closed(self, code, within, calls=None):
        """The server must close, within so many seconds, with this code if it is one; None is any or none. A reset may
        overtake the code: then whether any connection saw it is for the report to say. It is for so many calls, if any,
        and need not be when all of them were refused: what is still to come of them is nothing that anybody waits for."""
        try:
            await asyncio.wait_for(self.rest(), within)
        except asyncio.TimeoutError:
            self.insist(self.overloaded == calls, f"still open after {within} s, code {code} was due")
            return
        self.report.closed += 1
        if code is not None and not (self.code is None and self._is_reset):
            # Or others hold so much that this one was closed for memory before.
            self.insist(self.code in (code, MEMORY_SHORT), f"closed with code {self.code} instead of {code}")

    def insist(self, condition, text):
        """Notes what the server should not have done."""
        if not condition:
            self.report.violations[text] += 1
            raise Ended

    def end_output(self):
        """FIN."""
        try:
            self._socket.shutdown(socket.SHUT_WR)
        except OSError:
            raise Ended from None

    def reset(self):
        """RST, if it is open."""
        if self._socket.fileno() >= 0:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
            self._socket.close()

    async def last_words(self):
        """After an attack that sends until it cannot: what the server had to say."""
        if self._socket.fileno() >= 0:
            try:
                await asyncio.wait_for(self.rest(), 2)
            except asyncio.TimeoutError:
                pass


def call_id(slot, generation=0):
    return generation << 32 | slot


def request(name, body=b"", slot=0, generation=0, flags=0, extensions=(), **header):
    """A REQUEST of the server that is attacked, as bytes."""
    fixed = Request(method_id(f"hostile.Victim/{name}"), deadline=60_000_000)._replace(**header)
    return Frame(REQUEST, fixed, call_id(slot, generation), flags, extensions, body).encode()


def begun(name, total, body, slot=0, **header):
    """The same, of which the body goes on in DATA."""
    length = (CRITICAL | TOTAL_LENGTH, total.to_bytes(8, "little"))
    return request(name, body, slot, flags=MORE, extensions=(length,), **header)


def data(offset, body, slot=0):
    return Frame(DATA, Data(offset), call_id(slot), body=body).encode()


async def run(attack, target, connections, seconds, seed):
    """So many connections, each of which begins again when it has ended, for so long."""
    report = Report()
    until = time.monotonic() + seconds
    peers = (live(attack, target, seed + number, connections, report, until) for number in range(connections))
    await asyncio.gather(*peers)
    return report


async def live(attack, target, number, step, report, until):
    # Not all in the same instant: the queue of a listener is short.
    await asyncio.sleep(random.Random(number).random() * min(1.0, step / 1000))
    while (left := until - time.monotonic()) > 0:
        peer = Peer(target, number, report, attack.receive_buffer)
        try:
            await asyncio.wait_for(one(attack, peer), left)
        except asyncio.TimeoutError:
            pass
        except Failure as failure:  # The server broke the protocol.
            report.violations[str(failure)] += 1
        finally:
            peer.reset()  # It leaves no port behind, which FIN would.
        number += step


async def one(attack, peer):
    try:
        await peer.open()
        await attack.act(peer)
    except Ended:
        await peer.last_words()
