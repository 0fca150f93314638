"""Attacks on a server of `docs/PROTOCOL.md`, a function each, from that page alone.

    attacks.py --list
    attacks.py NAME HOST PORT [--connections 1000] [--seconds 60] [--seed 1] [--idle]

prints, as JSON, what became of all connections. A *violation* is what a server may never do.
"""

import argparse
import functools
import itertools
import json
import resource

from peer import *
from rules import RULES, RULES_UNGREETED

import msgpack

ATTACKS = {}


class Attack:
    """What is done on a connection, and how the server is to close it if it must."""

    def __init__(self, act, codes, due, receive_buffer):
        self.name, self.what, self.act = act.__name__, act.__doc__, act
        self.codes, self.due, self.receive_buffer = codes, due, receive_buffer


def attack(*codes, due=3, receive_buffer=None):
    """`codes`: GOAWAYs of which each must be seen by somebody, when the attack has gone on for `due` seconds."""

    def add(act):
        ATTACKS[act.__name__] = Attack(act, codes, due, receive_buffer)
        return act

    return add


# ---- Who does not speak, or slowly ----


@attack()
async def silent(peer):
    """connects and says nothing"""
    await peer.is_closed(None, within=8)
    peer.insist(peer.received == 0, "a stranger was told something")


@attack()
async def silent_after_hello(peer):
    """a handshake, then nothing, not even PONG"""
    await peer.greet()
    await peer.is_closed(24, within=90)


@attack(21, due=7)
async def slow_handshake(peer):
    """a handshake at a byte a second"""
    opening = PREFACE + Frame(HELLO, GREEDY).encode()
    await peer.send(opening[: len(PREFACE)])
    slowly = asyncio.ensure_future(trickle(peer, opening[len(PREFACE) :], 1.0))
    try:
        await peer.is_closed(21, within=8)
    finally:
        slowly.cancel()


async def trickle(peer, data, pause):
    for byte in data:
        await asyncio.sleep(pause)
        await peer.send(bytes([byte]))


@attack()
async def slow_head(peer):
    """a frame's head and header at a byte a second"""
    await peer.greet()
    frame = request("echo", bytes(1000), extensions=((6, bytes(15_000)),))
    await trickle(peer, frame, 1.0)


@attack()
async def slow_bodies(peer):
    """as many large bodies as there is credit for, each at a byte a second"""
    await peer.greet()
    for slot in range(2):
        await peer.send(begun("measure", 4 * MIB, bytes(64), slot))
    for at in itertools.count(0, 16):
        for slot in range(2):
            await peer.send(data(64 + at, bytes(16), slot))
        await asyncio.sleep(8)


@attack(22, due=13)
async def large_claims(peer):
    """bodies of 4 MiB are begun, and nothing of them comes"""
    await peer.greet()
    for slot in range(2):
        await peer.send(begun("measure", 4 * MIB, bytes(1024), slot))
    await peer.is_closed(22, within=14, calls=2)


@attack(22, due=13)
async def large_header(peer):
    """a frame of 16 KiB is announced, and nothing of it comes"""
    await peer.greet()
    await peer.send(HEAD.pack(16_384 + 4 * MIB, REQUEST, 0, 16_384, 0))
    await peer.is_closed(22, within=14)


@attack(22, due=13)
async def large_bodies(peer):
    """as much of large bodies as there is credit for, but for the last bytes"""
    await peer.greet()
    part = bytes(256 * 1024)
    for slot in range(2):
        await peer.send(begun("measure", 4 * MIB, part, slot))
        for at in range(len(part), 4 * MIB - len(part), len(part)):
            await peer.send(data(at, part, slot))
    await peer.is_closed(22, within=30, calls=2)


# ---- Who does not read ----


@attack(receive_buffer=4096)
async def never_reads_replies(peer):
    """calls with large replies, none of which is read"""
    await peer.greet()
    body = bytes(256 * 1024)
    for slot in itertools.count():
        await peer.send(request("echo", body, slot % 1024, slot // 1024))


@attack(receive_buffer=4096)
async def never_reads_small_replies(peer):
    """calls in every slot with small replies, none of which is read"""
    await peer.greet()
    for first in itertools.count(0, 64):
        slots = range(first, first + 64)
        await peer.send(b"".join(request("echo", bytes(1024), slot % 1024, slot // 1024) for slot in slots))


@attack(receive_buffer=4096)
async def never_reads_streams(peer):
    """streams that would not end, of which no item is read"""
    await peer.greet()
    wanted = (2**32 - 1).to_bytes(4, "little") + (4096).to_bytes(4, "little")
    for slot in range(1024):
        await peer.send(request("count", wanted, slot, flags=ITEMS_OUT, deadline=NO_DEADLINE))
    await asyncio.sleep(3600)


@attack(receive_buffer=4096)
async def reads_a_byte_a_second(peer):
    """asks for a reply of 4 MiB and reads a byte a second"""
    await peer.greet()
    await peer.send(begun("echo", 4 * MIB, bytes(256 * 1024)))
    for at in range(256 * 1024, 4 * MIB, 256 * 1024):
        await peer.send(data(at, bytes(256 * 1024)))
    while True:
        await asyncio.sleep(1)
        await peer.raw(1)


# ---- Floods ----


async def flood(peer, frames):
    """Greets and sends until the server does not take any more."""
    await peer.greet()
    while True:
        await peer.send(frames)


@attack(25)
async def ping_flood(peer):
    """PINGs without end"""
    await flood(peer, Frame(PING, Probe(bytes(16))).encode() * 64)


@attack(27)
async def control_flood(peer):
    """LIMITS, CREDIT, PONG or GOAWAY without end"""
    frame = peer.rng.choice(
        [
            Frame(LIMITS, Limits(64, 65536)),
            Frame(CREDIT, Credit(1, REPLIES_POOL)),
            Frame(PONG, Probe(bytes(16))),
            Frame(GOAWAY, GoAway(2**64 - 1, 0)),
        ]
    )
    await flood(peer, frame.encode() * 64)


@attack(26)
async def rapid_reset(peer):
    """calls that are cancelled at once, without end"""
    await peer.greet()
    for generation in itertools.count():
        calls = (request("hold", bytes(4), slot, generation) for slot in range(64))
        cancels = (Frame(CANCEL, Cancel(), call_id(slot, generation)).encode() for slot in range(64))
        await peer.send(b"".join(call + cancel for call, cancel in zip(calls, cancels)))
        # A slot is free when its terminal REPLY is here.
        for _ in range(64):
            await peer.reply()


@attack()
async def rapid_reset_blindly(peer):
    """the same, and nothing is read"""
    await peer.greet()
    for generation in itertools.count():
        for slot in range(1024):
            await peer.send(
                request("hold", (10_000).to_bytes(4, "little"), slot, generation)
                + Frame(CANCEL, Cancel(), call_id(slot, generation)).encode()
            )


@attack(18)
async def ignored_flood(peer):
    """frames of kinds that must be ignored, without end"""
    await flood(peer, (HEAD.pack(1024, 200, 0, 0, 0) + bytes(1024)) * 16)


@attack(17)
async def reply_flood(peer):
    """replies that nobody waits for, without end"""
    await flood(peer, Frame(REPLY, Reply(), SERVER_BIT | 7).encode() * 64)


@functools.cache
def tiny_body():
    """More parts of 16 bytes than there may be."""
    return begun("measure", 2 * MIB, bytes(16)) + b"".join(data(at, bytes(16)) for at in range(16, 20_000 * 16, 16))


@attack(28)
async def tiny_parts(peer):
    """a body in parts of 16 bytes"""
    await peer.greet()
    await peer.send(tiny_body())
    await peer.is_closed(28, within=30)


@attack(15)
async def item_flood(peer):
    """empty items beyond all credit"""
    await peer.greet()
    await peer.send(request("gather", (60_000).to_bytes(4, "little"), flags=ITEMS_IN, deadline=NO_DEADLINE))
    while True:
        await peer.send(Frame(ITEM, Item(), call_id(0)).encode() * 64)


FLOODS = [ping_flood, control_flood, rapid_reset, ignored_flood, reply_flood, tiny_parts, item_flood]


@attack(15, 17, 18, 25, 26, 27, 28, due=5)
async def floods(peer):
    """each connection another of the floods that are closed for it, each time"""
    await FLOODS[peer.number % len(FLOODS)](peer)


@attack()
async def call_flood(peer):
    """calls as fast as they are answered, 256 at once"""
    await peer.greet()
    for generation in itertools.count():
        await peer.send(b"".join(request("echo", bytes(32), slot, generation) for slot in range(256)))
        expected = 256 * 80  # head, header, body of 32
        while expected > 0:
            expected -= len(await peer.raw())


@attack()
async def refused_flood(peer):
    """calls that are refused, each for another reason, as fast as they are"""
    await peer.greet()
    bad = [
        dict(name="no such method"),
        dict(name="echo", deadline=0),
        dict(name="echo", codec=JSON),
        dict(name="echo", compression=99),
        dict(name="echo", flags=ITEMS_IN),
        dict(name="echo", deadline=NO_DEADLINE),
        dict(name="typed", codec=MESSAGEPACK, body=b"\xc1"),
        dict(name="typed", codec=1, in_signature=7),
        dict(name="echo", extensions=((METADATA, b"\x01?"),)),
        dict(name="echo", extensions=tuple((METADATA, b"\x01k") for _ in range(65))),
        dict(name="echo", extensions=((CRITICAL | 4000, b""),)),
    ]
    for generation in itertools.count():
        frames = (request(**bad[slot % len(bad)], slot=slot, generation=generation) for slot in range(66))
        await peer.send(b"".join(frames))
        for _ in range(66):
            status = (await peer.reply()).header.status
            peer.insist(status >> 14 == REFUSED_CLASS, f"a senseless call has status {status:#x}")


@attack()
async def one_way_flood(peer):
    """one-way calls without end"""
    await peer.greet()
    for generation in itertools.count():
        await peer.send(b"".join(request("toss", bytes(64), slot, generation, ONE_WAY) for slot in range(64)))


@attack()
async def slots_full(peer):
    """a call that runs for a minute in every slot"""
    await peer.greet()
    minute = (60_000).to_bytes(4, "little")
    for first in range(0, 1024, 64):
        await peer.send(b"".join(request("hold", minute, slot, deadline=90_000_000) for slot in range(first, first + 64)))
    await peer.rest()


@attack()
async def streams_left_open(peer):
    """a call in every slot whose items never come"""
    await peer.greet()
    calls = (request("gather", bytes(4), slot, flags=ITEMS_IN, deadline=NO_DEADLINE) for slot in range(1024))
    await peer.send(b"".join(calls))
    await peer.rest()


@attack()
async def connect_flood(peer):
    """connects and goes, with FIN or with RST"""
    if peer.rng.random() < 0.5:
        peer.end_output()
    else:
        peer.reset()


@attack()
async def reconnect_flood(peer):
    """a whole handshake, a call, and gone"""
    await peer.greet()
    await peer.send(request("echo", b"bye"))
    await peer.reply()


# ---- Bombs ----


def lz4_bomb(length):
    """So many bytes `x`, as an LZ4 block of a 255th of that."""
    # A literal, one match of the rest at distance 1, and five literals, as a block must end.
    match = length - 1 - 5 - 4
    full, rest = divmod(match - 15, 255)
    return b"\x1fx\x01\x00" + b"\xff" * full + bytes([rest]) + b"\x50xxxxx"


@attack()
async def compression_bombs(peer):
    """bodies that become 4 MiB, more than they say, or nothing that makes sense"""
    hello = await peer.greet()
    peer.insist(hello.compressions & 0b10, "the server reads no LZ4: nothing is attacked")
    bomb = lz4_bomb(4 * MIB)
    said = (4 * MIB).to_bytes(8, "little")
    bodies = {
        said + bomb: OK,
        (16).to_bytes(8, "little") + bomb: BAD_BODY,
        (2**63).to_bytes(8, "little") + bomb: BAD_BODY,
        said + bomb[:100]: BAD_BODY,
        said + peer.rng.randbytes(20_000): BAD_BODY,
        b"": BAD_BODY,
    }
    for generation, (body, expected) in enumerate(itertools.cycle(bodies.items())):
        await peer.send(request("measure", body, 0, generation, compression=1))
        status = (await peer.reply()).header.status
        peer.insist(status in (expected, OVERLOADED), f"a bomb of {len(body)} bytes has status {status:#x}")


@attack()
async def messagepack_bombs(peer):
    """values that are deep, or say that they are long"""
    await peer.greet()
    deep = b"\x91" * 1_000_000
    named = lambda value: b"\x81" + msgpack.pack("items") + value
    bodies = [
        deep,
        named(deep),
        named(b"\xdd\xff\xff\xff\xff"),
        named(b"\xdd\x00\x10\x00\x00" + b"\x80" * (1 << 20)),
        b"\xdf\xff\xff\xff\xff",
        b"\xc6\xff\xff\xff\xff",
        b"\xdb\xff\xff\xff\xff",
        peer.rng.randbytes(100_000),
    ]
    for generation, body in enumerate(itertools.cycle(bodies)):
        await peer.send(request("typed", body, 0, generation, codec=MESSAGEPACK))
        status = (await peer.reply()).header.status
        peer.insist(status in (BAD_BODY, OVERLOADED), f"a bomb of {len(body)} bytes has status {status:#x}")


# ---- Confusion ----

STRANGERS = [
    b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(64),
    b"SSH-2.0-OpenSSH_9.6\r\n",
    bytes.fromhex("160301020001000001") + bytes(512),
    b"EHLO example.org\r\n",
    b"\x00" * 64,
    b"\xff" * 4096,
    PREFACE[:6] + b"X\x01" + bytes(64),
]


@attack()
async def strangers(peer):
    """other protocols: no byte is answered"""
    opening = peer.rng.choice([*STRANGERS, b"\x01" + peer.rng.randbytes(200)])
    await peer.send(opening)
    await peer.is_closed(None, within=8)
    peer.insist(peer.received == 0, f"a stranger was told something: {opening[:20]}")


@attack(2)
async def other_versions(peer):
    """a preface of another version"""
    await peer.send(PREFACE[:7] + bytes([peer.rng.choice([0, 2, 255])]))
    await peer.is_closed(2, within=8)


@attack(*sorted({code for _, code, _ in [*RULES, *RULES_UNGREETED]}))
async def rule_breakers(peer):
    """each rule of the protocol, broken once: closed with its code"""
    rules = RULES_UNGREETED + RULES
    which = peer.number % len(rules)
    what, code, frames = rules[which]
    if which >= len(RULES_UNGREETED):
        await peer.greet()
    await peer.send(frames)
    try:
        await asyncio.wait_for(peer.rest(), 8)
    except asyncio.TimeoutError:
        peer.insist(False, f"{what}: still open")
    peer.insist(peer.code == code, f"{what}: code {peer.code} instead of {code}")


def conversation():
    """What an honest client may say."""
    return b"".join(
        [
            PREFACE,
            Frame(HELLO, GREEDY).encode(),
            request("echo", b"hello", 0),
            begun("measure", 400, bytes(256), 1),
            request("echo", b"hello", 2, extensions=(encode_entry("key", b"value"),)),
            data(256, bytes(144), 1),
            request("gather", bytes(4), 3, flags=ITEMS_IN, deadline=NO_DEADLINE),
            Frame(ITEM, Item(), call_id(3), body=b"item").encode(),
            Frame(PING, Probe(bytes(16))).encode(),
            Frame(CANCEL, Cancel(), call_id(3)).encode(),
            Frame(CREDIT, Credit(1000, REPLIES_POOL)).encode(),
            request("count", bytes([9, 0, 0, 0, 9, 0, 0, 0]), 4, flags=ITEMS_OUT, deadline=NO_DEADLINE),
        ]
    )


CONVERSATION = conversation()
RESETS = itertools.count()


@attack()
async def reset_at_every_byte(peer):
    """an honest conversation that is reset behind each byte in turn"""
    await peer.send(CONVERSATION[: next(RESETS) % (len(CONVERSATION) + 1)])
    if peer.rng.random() < 0.5:
        await asyncio.sleep(0.01)
    peer.reset()


@attack()
async def end_at_every_byte(peer):
    """the same, ended by FIN"""
    cut = next(RESETS) % (len(CONVERSATION) + 1)
    await peer.send(CONVERSATION[:cut])
    peer.end_output()
    await peer.is_closed(None, within=15)


@attack()
async def flipped_bits(peer):
    """an honest conversation with one byte changed"""
    damaged = bytearray(CONVERSATION)
    damaged[next(RESETS) % len(damaged)] ^= 1 << peer.rng.randrange(8)
    await peer.send(damaged)
    peer.end_output()
    await peer.is_closed(None, within=15)


@attack()
async def random_frames(peer):
    """frames with heads that make sense, and nothing else does"""
    await peer.greet()
    rng = peer.rng
    while True:
        kind = rng.choice(list(KINDS))
        header_length = 16 * rng.randint(1, 4)
        length = header_length + rng.choice([0, 0, 5, 64])
        body = rng.randbytes(length) if rng.random() < 0.5 else bytes(length)
        head = HEAD.pack(length, kind, rng.choice([0, 0, 4, 8]), header_length, rng.choice([0, 1, call_id(1, 1)]))
        await peer.send(head + body + bytes(-length % 16))
        await asyncio.sleep(0)


@attack()
async def half_open(peer):
    """ends its direction between frames and stays: its calls are answered, then it is closed"""
    await peer.greet()
    await peer.send(request("echo", b"answered"))
    peer.end_output()
    reply = await peer.reply()
    peer.insist(reply.body == b"answered", "a half-closed connection is not answered")
    await peer.is_closed(None, within=8)


@attack()
async def everything(peer):
    """each connection another of these, each time, for 15 s at most"""
    others = [attack for name, attack in ATTACKS.items() if name != "everything"]
    try:
        await asyncio.wait_for(others[peer.number % len(others)].act(peer), 15)
    except asyncio.TimeoutError:
        pass


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--list", action="store_true")
    parser.add_argument("name", nargs="?", choices=ATTACKS)
    parser.add_argument("host", nargs="?")
    parser.add_argument("port", nargs="?", type=int)
    parser.add_argument("--connections", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=60)
    # Whoever is honest goes first where both share a core: what is measured is the server, not the scheduler.
    parser.add_argument("--idle", action="store_true")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    if arguments.list:
        said = [{"name": it.name, "what": it.what, "codes": it.codes, "due": it.due} for it in ATTACKS.values()]
        return print(json.dumps(said))
    if arguments.idle:
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    target = (arguments.host, arguments.port)
    attack = ATTACKS[arguments.name]
    report = asyncio.run(run(attack, target, arguments.connections, arguments.seconds, arguments.seed))
    print(json.dumps(report.to_dict()))


if __name__ == "__main__":
    main()
