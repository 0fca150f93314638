"""The client's end of a ringcall connection: calls, streams, credit. It has no methods of its own."""

import contextlib
import select
import socket
import time
from collections import deque

from wire import *

PART = 256 * 1024  # where a body is cut
PATIENCE_SECONDS, DEADLINE_US = 30, 40_000_000  # a scenario fails before a deadline passes
OUR_HELLO = Hello(
    VERSION, VERSION, 2, 0, 16, STREAMS, 1, 3 * MIB, 6 * MIB, 6 * MIB, MIB, 0, bytes(16)
)


class ServerCloses(Failure):
    """GOAWAY with a code."""

    def __init__(self, code):
        super().__init__(f"the server closes with code {code}")
        self.code = code


class Connection:
    """Nothing happens behind the caller's back: whoever waits for something pumps frames until it is there."""

    def __init__(self, host, port, hello=OUR_HELLO):
        self.part = PART
        self.accepted = None  # what GOAWAY said, if it came
        self.pings_answered = self.limits_answered = self.cut_items = 0
        self.peer = None  # the server's HELLO, if it came; LIMITS changes it
        self.identity = None  # who the server says it is
        self._hello = hello
        self._preface_seen = False
        self._ended = False  # the server has ended its stream
        self._inbox = bytearray()
        self._outbox = bytearray(PREFACE)
        self._waiting = deque()  # calls without a slot or without credit yet
        self._calls = {}  # calls in flight, by message id
        self._requests_sent = self._requests_taken = 0
        self._limits = self._ping = None  # not yet answered
        self._pong = None  # the last PONG that came
        self._credit = None  # what we may send; only in the calls pool, since our replies have no body
        self._windows = {
            (CALLS_POOL, BYTES): Window(hello.calls_window),
            (CALLS_POOL, ITEMS): Window(pool_items(hello.calls_window)),
            (REPLIES_POOL, BYTES): Window(hello.replies_window),
            (REPLIES_POOL, ITEMS): Window(pool_items(hello.replies_window)),
        }
        self._give_up = time.monotonic() + PATIENCE_SECONDS
        self._socket = socket.create_connection((host, port), timeout=PATIENCE_SECONDS)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket.setblocking(False)
        self.send(Frame(HELLO, hello))
        self.pump_until(lambda: self.peer is not None)

    # What a scenario uses

    def call(self, name, body=b"", flags=0, metadata=(), **header):
        """Begins a call, with streams if the flags say so, and with metadata as (key, value). It fails at once
        after GOAWAY."""
        request = Request(method_id(name), deadline=DEADLINE_US)._replace(**header)
        call = Call(request, flags, body, tuple(encode_entry(*entry) for entry in metadata))
        if self.accepted is None:
            self._waiting.append(call)
            self._start_waiting_calls()
        else:
            call.fail("not sent after GOAWAY")
        return call

    def wait(self, call):
        """Status and body of the reply, or of the end of its items, whatever the status is."""
        self.pump_until(lambda: call.done)
        if call.error:
            raise call.error
        return call.reply.first.header.status, bytes(call.reply.data)

    def cancel(self, call):
        """Gives a call up when it is sent. It is still to be waited for: the server may have been faster."""
        self.pump_until(lambda: call.id is not None or call.done)
        call.stop_sending()
        call.is_cancelled = True
        self._drop_items(call)
        self.send(Frame(CANCEL, Cancel(), call.id))

    def next_item(self, call):
        """The next item that the server has sent, and credit for another; None after the last. Items that
        are not taken wait, and the server with them."""
        self.pump_until(lambda: call.items or call.done)
        if call.error:
            raise call.error
        if not call.items:
            return None
        item = call.items.popleft()
        self._give_back(REPLIES_POOL, len(item), items=1)
        if not call.reply:
            self._grant(call.windows[BYTES], len(item), STREAM, BYTES, call.id)
            self._grant(call.windows[ITEMS], 1, STREAM, ITEMS, call.id)
        return item

    def send_item(self, call, item, header=Item()):
        """Queues an item; it leaves when there is credit. After the terminal frame of the call it does not."""
        call.outbox.append((header, item))

    def end_items(self, call):
        """No more items behind those that are queued."""
        call.is_end_due = True

    def break_off(self, call, status):
        """Ends this side's items at once, also inside of one."""
        call.stop_sending()
        self.send(Frame(END, Reply(status=status), call.id))

    def ping(self, payload):
        """Returns when the PONG with these 16 bytes is here."""
        self.send(Frame(PING, Probe(payload)))
        self.pump_until(lambda: self._pong == Probe(payload))

    def send(self, frame):
        """Sends a frame as it is, right or wrong."""
        self._outbox += frame.encode()

    def wait_for_end(self):
        """Returns when the server has ended its stream between two frames."""
        self.pump_until(lambda: self._ended)

    def finish(self):
        """Ends this side's stream and waits for the server's end."""
        self.pump_until(lambda: not (self._outbox or self._ping or self._limits))
        self._socket.shutdown(socket.SHUT_WR)
        self.wait_for_end()

    # Reading and writing

    def pump_until(self, done):
        """Sends what may be sent and handles what arrives until `done()`."""
        while not done():
            if self._ended or time.monotonic() > self._give_up:
                raise Failure("the server has closed" if self._ended else "it takes too long")
            self._fill_outbox()
            writers = [self._socket] if self._outbox else []
            readable, writable, _ = select.select([self._socket], writers, [], 0.5)
            try:
                if readable:
                    self._read()
            except ProtocolError as error:
                self._close(error.code)
                raise
            if writable:
                self._write()

    def _read(self):
        data = self._socket.recv(1 << 18)
        if not data:
            must(not self._inbox, 20, "the stream ended inside a frame")
            is_cut = any(call.reply or call.arriving for call in self._calls.values())
            must(not is_cut, 20, "the stream ended inside a body")
            self._ended = True
        self._inbox += data
        if not self._preface_seen:
            if len(self._inbox) < len(PREFACE):
                return
            if not self._inbox.startswith(PREFACE):
                raise Failure(f"not a ringcall server of version {VERSION}: {self._inbox[:8].hex()}")
            del self._inbox[: len(PREFACE)]
            self._preface_seen = True
        while True:
            longest = self._hello.largest_message + MAX_HEADER if self.peer else MAX_HANDSHAKE - HEAD.size
            frame, size = decode_frame(self._inbox, longest)
            if frame is None:
                return
            del self._inbox[:size]
            self._handle(frame)

    def _write(self):
        try:
            del self._outbox[: self._socket.send(self._outbox)]
        except (BrokenPipeError, ConnectionResetError):
            # One of the sides has ended this direction. A GOAWAY that says why may still come.
            self._outbox.clear()

    def _close(self, code):
        """Says why, as far as the socket takes it, and closes."""
        if self._preface_seen:
            self.send(Frame(GOAWAY, GoAway(self._requests_taken, code)))
        with self._socket, contextlib.suppress(OSError):
            self._socket.settimeout(1.0)
            self._socket.sendall(self._outbox)

    # Frames on their way out

    def _fill_outbox(self):
        """Begins the calls that can begin. When there is nothing else to send, the last PING and LIMITS are
        answered, and each call goes on by a frame in its turn, so that small ones pass large bodies."""
        self._start_waiting_calls()
        if self._outbox:
            return
        if self._ping:
            self.send(Frame(PONG, self._ping))
            self._ping = None
            self.pings_answered += 1
        if self._limits and not any(call.sending for call in self._calls.values()):
            # What begins from now on has the new limits; nothing has begun since LIMITS came.
            self.send(Frame(LIMITS, self._limits, flags=ACKNOWLEDGES))
            self.peer = self.peer._replace(**self._limits._asdict())
            self._limits = None
            self.limits_answered += 1
        frames = True
        while frames and len(self._outbox) < PART:
            frames = [frame for frame in map(self._next_frame, self._calls.values()) if frame]
            for frame in frames:
                self.send(frame)

    def _start_waiting_calls(self):
        while self._waiting and not self._limits:
            call = self._waiting[0]
            used = {id & SLOT_BITS for id in self._calls}
            slot = next((slot for slot in range(self.peer.in_flight) if slot not in used), None)
            if len(call.body) > self.peer.largest_message:
                raise Failure(f"the server takes at most {self.peer.largest_message} bytes")
            if slot is None or len(call.body) > self._credit[BYTES]:
                return
            self._waiting.popleft()
            # All of the body is charged now, even if the rest will never be sent.
            self._credit[BYTES] -= len(call.body)
            call.number = self._requests_sent = self._requests_sent + 1
            # Counted for all slots together, the generation is different for each of them, too.
            id = call.number % 2**31 << 32 | slot
            call.begin(id, self.peer.stream_window, self._hello.stream_window)
            self._calls[id] = call
            self.send(call.next_part(self.part))

    def _next_frame(self, call):
        """A call's next part of a body, item or end; None if there is nothing, or no credit for it."""
        if call.sending:
            return call.next_part(self.part)
        if call.outbox:
            return self._begin_item(call)
        if call.is_end_due:
            call.is_end_due = False
            return Frame(END, Reply(), call.id)
        return None

    def _begin_item(self, call):
        header, item = call.outbox[0]
        # A quarter of the pool is left to calls. The stream's own credit may be overdrawn.
        left = self._credit[BYTES] - self.peer.calls_window // 4
        if self._limits or len(item) > left or self._credit[ITEMS] == 0 or min(call.credit.values()) <= 0:
            return None
        for credit in (self._credit, call.credit):
            credit[BYTES] -= len(item)
            credit[ITEMS] -= 1
        call.outbox.popleft()
        call.items_sent += 1
        call.sending = OutgoingBody(ITEM, header, 0, call.id, item)
        return call.next_part(self.part)

    # Frames that arrive

    def _handle(self, frame):
        name = KINDS[frame.kind].name if frame.kind in KINDS else "unknown"
        must((self.peer is None) == (frame.kind == HELLO), 9, f"{name}, but HELLO comes first and once")
        if frame.kind in (HELLO, PING, PONG, GOAWAY, LIMITS):
            must(frame.id == 0, 11, f"{name} with message id {frame.id:#x}")
        if frame.kind in (REQUEST, CANCEL, REPLY):
            must((frame.id >= SERVER_BIT) == (frame.kind != REPLY), 11, f"{name} for {frame.id:#x}")
        # Kinds of the future are ignored, and CANCEL, since calls are answered at once.
        handler = getattr(self, f"_on_{name.lower()}", None)
        if handler:
            handler(frame)

    def _on_hello(self, frame):
        hello = frame.header
        must(hello.lowest_version <= VERSION <= hello.highest_version, 2, f"no common version: {hello}")
        must(hello.in_flight > 0 and hello.stream_window <= MAX_CREDIT, 9, f"{hello}")
        for window in (hello.calls_window, hello.replies_window):
            must(0 < 2 * hello.largest_message <= window <= MAX_CREDIT, 9, f"the windows of {hello}")
        self.peer = hello
        self.identity = decode_identity(frame.extensions)
        self._credit = {BYTES: hello.calls_window, ITEMS: pool_items(hello.calls_window)}

    def _on_request(self, frame):
        """Calls are answered when their first frame is here; DATA and items may still follow."""
        must(frame.id & SLOT_BITS < self._hello.in_flight, 12, f"slot of {frame.id:#x}")
        body = self._take_body(frame, CALLS_POOL)
        self._requests_taken += 1
        if not frame.flags & ONE_WAY:
            self.send(Frame(REPLY, Reply(status=UNKNOWN_METHOD), frame.id))
        self._give_back(CALLS_POOL, body.total)

    def _on_reply(self, frame):
        body = self._take_body(frame, REPLIES_POOL)
        call = self._calls.get(frame.id)
        self._void_if_unconfirmed(call, frame)
        if call is None or call.answer or call.reply:
            self._give_back(REPLIES_POOL, body.total)
        elif frame.flags & ITEMS_OUT:
            is_bare = frame.header.status == OK and not body.total
            must(call.flags & ITEMS_OUT and is_bare, 30, f"items follow {frame.header}")
            call.answer = frame.header
            call.metadata = decode_metadata(frame.extensions)
        else:
            self._on_last(call, body)

    def _on_end(self, frame):
        if frame.id >= SERVER_BIT:
            return  # of a call that was answered when it began
        body = self._take_body(frame, REPLIES_POOL)
        call = self._calls.get(frame.id)
        self._void_if_unconfirmed(call, frame)
        must(call and call.answer and not call.reply, 30, f"END of {frame.id:#x}")
        if call.arriving:
            must(has_no_body(frame.header.status), 30, "END inside an item")
            self._give_back(REPLIES_POOL, call.arriving.total, items=1)
            call.arriving = None
        self._on_last(call, body)

    def _void_if_unconfirmed(self, call, frame):
        """A body that its sender could not send to its end is replaced by a status."""
        if call and call.reply and call.reply.awaits_confirmation:
            is_same_kind = frame.kind == call.reply.first.kind
            must(is_same_kind and has_no_body(frame.header.status), 8, f"{frame} in the middle of a body")
            self._give_back(REPLIES_POOL, call.reply.total)
            call.reply = None

    def _on_last(self, call, body):
        """The terminal frame of a call: nothing more is sent for it."""
        status = body.first.header.status
        must(not body.total or not has_no_body(status), 8, f"status {status:#x} with a body")
        call.stop_sending()
        call.reply = body
        last = decode_metadata(body.first.extensions)
        if call.answer:
            call.end_metadata = last
        else:
            call.metadata = last
        self._finish_if_complete(call)

    def _on_item(self, frame):
        pool = CALLS_POOL if frame.id >= SERVER_BIT else REPLIES_POOL
        body = self._take_body(frame, pool)
        self._windows[pool, ITEMS].charge(1)
        if pool == CALLS_POOL:
            return self._give_back(pool, body.total, items=1)
        call = self._calls.get(frame.id)
        is_expected = call and call.answer and not call.reply and not call.arriving
        must(is_expected, 30, f"ITEM of {frame.id:#x}")
        for window in call.windows.values():
            must(window.left > 0, 15, "an item without credit of its stream")
        call.windows[BYTES].left -= body.total
        call.windows[ITEMS].left -= 1
        header = frame.header
        if not call.reads(header):
            raise Failure(f"cannot read {header}")
        call.arriving = body
        self.cut_items += not body.is_complete()
        self._take_item_if_complete(call)

    def _take_item_if_complete(self, call):
        if call.arriving.is_complete():
            call.items.append(bytes(call.arriving.data))
            call.items_received += 1
            call.arriving = None
            if call.is_cancelled:
                self._drop_items(call)

    def _drop_items(self, call):
        for item in call.items:
            self._give_back(REPLIES_POOL, len(item), items=1)
        call.items.clear()

    def _on_data(self, frame):
        call = self._calls.get(frame.id)
        if not call:
            return
        must(call.reply or call.arriving, 14, f"DATA of {frame.id:#x}, of which nothing has begun")
        if call.reply:
            call.reply.add(frame)
            self._finish_if_complete(call)
        else:
            call.arriving.add(frame)
            self._take_item_if_complete(call)

    def _take_body(self, first, pool):
        body = IncomingBody(first, self._hello.largest_message)
        self._windows[pool, BYTES].charge(body.total)
        return body

    def _finish_if_complete(self, call):
        if not call.reply.is_complete():
            return
        del self._calls[call.id]
        self._give_back(REPLIES_POOL, call.reply.total)
        header, unknown = call.reply.first.header, critical_tags(call.reply.first.extensions)
        bare = has_no_body(header.status) and not (header.signature or header.codec or header.compression)
        if unknown or not (bare or call.reads(header)):
            call.fail(f"cannot read {header} with critical extensions {unknown}")
        call.done = True

    # Credit

    def _give_back(self, pool, bytes, items=0):
        """We no longer hold this of a pool of the connection."""
        self._grant(self._windows[pool, BYTES], bytes, pool, BYTES)
        self._grant(self._windows[pool, ITEMS], items, pool, ITEMS)

    def _grant(self, window, amount, pool, unit, id=0):
        grant = window.give_back(amount)
        if grant:
            self.send(Frame(CREDIT, Credit(grant, pool, unit), id))

    def _on_credit(self, frame):
        credit = frame.header
        has_streams = self._hello.features & self.peer.features & STREAMS
        is_known = credit.pool <= REPLIES_POOL and credit.unit <= ITEMS
        is_basic = credit.pool != STREAM and credit.unit == BYTES
        must(is_known and (has_streams or is_basic), 19, f"{credit}")
        must(credit.pool == STREAM or frame.id == 0, 11, f"{credit} with message id {frame.id:#x}")
        must(credit.amount > 0, 16, f"{credit}")
        ours = self._credit if credit.pool == CALLS_POOL else None
        if credit.pool == STREAM and frame.id in self._calls:
            ours = self._calls[frame.id].credit
        if ours:
            ours[credit.unit] += credit.amount
            must(ours[credit.unit] <= MAX_CREDIT, 16, f"{credit}, now {ours}")

    # Frames about the connection

    def _on_ping(self, frame):
        self._ping = frame.header

    def _on_pong(self, frame):
        self._pong = frame.header

    def _on_goaway(self, frame):
        if frame.header.code != 0:
            raise ServerCloses(frame.header.code)
        accepted = frame.header.accepted
        self.accepted = accepted if self.accepted is None else min(accepted, self.accepted)
        not_taken = [call for call in self._calls.values() if call.number > self.accepted]
        for call in [*self._waiting, *not_taken]:
            call.fail("not taken by a server that leaves")
            self._calls.pop(call.id, None)
        self._waiting.clear()

    def _on_limits(self, frame):
        if frame.flags & ACKNOWLEDGES:
            return
        limits, window = frame.header, min(self.peer.calls_window, self.peer.replies_window)
        must(limits.in_flight and 0 < 2 * limits.largest_message <= window, 8, f"senseless {limits}")
        self._limits = limits


class Call:
    """A call of this side: waiting to be sent, in flight (it has an id then), or done."""

    def __init__(self, request, flags, body, extensions=()):
        self.request, self.flags, self.body, self.extensions = request, flags, body, extensions
        self.id, self.number = None, 0
        self.sending = None  # the body of which parts are still to be sent: the request's or an item's
        self.answer = None  # the header of the REPLY that items follow
        self.reply = self.error = None  # the reply or the end is an IncomingBody, when it has begun
        self.metadata = self.end_metadata = None  # of the REPLY, and of the END behind its items
        self.done = self.is_cancelled = False
        # Items of this side: those that have not begun, whether END is to follow, the credit.
        self.outbox = deque()
        self.items_sent = 0
        self.is_end_due = False
        self.credit = None
        # Items of the server: those that nobody has taken, the one that arrives in parts, what may come.
        self.items = deque()
        self.items_received = 0
        self.arriving = self.windows = None

    def begin(self, id, their_window, our_window):
        self.id = id
        self.sending = OutgoingBody(REQUEST, self.request, self.flags, id, self.body, self.extensions)
        self.credit = {BYTES: their_window, ITEMS: stream_items(their_window)}
        self.windows = {BYTES: Window(our_window), ITEMS: Window(stream_items(our_window))}

    def reads(self, header):
        """Whether something is in what it was asked for: bytes as they are, or the codec with names."""
        if header.compression:
            return False
        if self.request.codec == RAW:
            return header.codec == RAW and header.signature == self.request.out_signature
        return header.codec == self.request.codec

    def next_part(self, part):
        """The next frame of the body that is being sent."""
        frame = self.sending.next_frame(part)
        if self.sending.is_complete():
            self.sending = None
        return frame

    def stop_sending(self):
        """The rest is not sent."""
        self.sending = None
        self.outbox.clear()
        self.is_end_due = False

    def fail(self, text):
        self.error, self.done = Failure(text), True


class OutgoingBody:
    """A body that is sent in one frame or in several."""

    def __init__(self, kind, header, flags, id, body, extensions=()):
        self._first = Frame(kind, header, id, flags, extensions)
        self._body = body
        self._sent = 0

    def next_frame(self, part):
        start, rest = self._sent, len(self._body) - self._sent
        body = self._body[start : start + part]
        self._sent += len(body)
        if start:
            return Frame(DATA, Data(start), self._first.id, body=body)
        if len(body) == rest:
            return self._first._replace(body=body)
        total = (CRITICAL | TOTAL_LENGTH, rest.to_bytes(8, "little"))
        extensions = (total, *self._first.extensions)
        return self._first._replace(flags=self._first.flags | MORE, extensions=extensions, body=body)

    def is_complete(self):
        return self._sent == len(self._body)


class Window:
    """What the server may send, in bytes or items, and what of it we have not granted again yet."""

    def __init__(self, size):
        self.left = self._size = size
        self._returned = 0

    def charge(self, amount):
        self.left -= amount
        must(self.left >= 0, 15, f"{-self.left} more than there was credit for")

    def give_back(self, amount):
        """How much to grant now: nothing until a sixteenth has come together, unless little is left."""
        self._returned += amount
        if self._returned * 16 < self._size <= self.left * 16:
            return 0
        grant, self._returned = self._returned, 0
        self.left += grant
        return grant


def stream_items(window):
    """How many items a stream may send at first."""
    return max(window // 1024, 16)


def pool_items(window):
    """The same of all streams of a pool together."""
    return max(window // 1024, 64)
