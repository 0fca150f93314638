"""As much of MessagePack as messages of ringcall need."""

import struct

FIXED = {0xCA: ">f", 0xCB: ">d", 0xCC: ">B", 0xCD: ">H", 0xCE: ">I", 0xCF: ">Q", 0xD0: ">b", 0xD1: ">h", 0xD2: ">i", 0xD3: ">q"}
# Marker to the size of a length, and what has it.
SIZED = {
    0xC4: (1, "bin"), 0xC5: (2, "bin"), 0xC6: (4, "bin"), 0xD9: (1, "str"), 0xDA: (2, "str"), 0xDB: (4, "str"),
    0xDC: (2, "list"), 0xDD: (4, "list"), 0xDE: (2, "dict"), 0xDF: (4, "dict"),
}


def pack(value):
    if value is None or isinstance(value, bool):
        return {None: b"\xc0", False: b"\xc2", True: b"\xc3"}[value]
    if isinstance(value, int):
        if -32 <= value < 128:
            return struct.pack("b", value)
        return b"\xcf" + struct.pack(">Q", value) if value > 0 else b"\xd3" + struct.pack(">q", value)
    if isinstance(value, float):
        return b"\xcb" + struct.pack(">d", value)
    if isinstance(value, bytes):
        return b"\xc6" + struct.pack(">I", len(value)) + value
    if isinstance(value, str):
        text = value.encode()
        return b"\xdb" + struct.pack(">I", len(text)) + text
    if isinstance(value, dict):
        inside = (pack(key) + pack(field) for key, field in value.items())
        return b"\xdf" + struct.pack(">I", len(value)) + b"".join(inside)
    return b"\xdd" + struct.pack(">I", len(value)) + b"".join(map(pack, value))


def unpack(data):
    value, rest = unpack_first(data)
    if rest:
        raise ValueError(f"{len(rest)} bytes behind the value")
    return value


def unpack_first(data):
    marker, rest = data[0], data[1:]
    if marker < 0x80 or marker >= 0xE0:
        return struct.unpack("b", data[:1])[0], rest
    if marker in (0xC0, 0xC2, 0xC3):
        return {0xC0: None, 0xC2: False, 0xC3: True}[marker], rest
    if marker in FIXED:
        size = struct.calcsize(FIXED[marker])
        return struct.unpack(FIXED[marker], rest[:size])[0], rest[size:]
    if marker < 0xC0:
        kind = "dict" if marker < 0x90 else "list" if marker < 0xA0 else "str"
        length = marker & (0x1F if kind == "str" else 0x0F)
    else:
        size, kind = SIZED[marker]
        length, rest = int.from_bytes(rest[:size], "big"), rest[size:]
    if kind in ("bin", "str"):
        return rest[:length] if kind == "bin" else rest[:length].decode(), rest[length:]
    values = []
    for _ in range(length * (2 if kind == "dict" else 1)):
        value, rest = unpack_first(rest)
        values.append(value)
    return (dict(zip(values[::2], values[1::2])) if kind == "dict" else values), rest
