#!/usr/bin/env python3
"""Makes ring.lua: what falls to whom by consistent choice, computed without
libsodium and by looking at every point, to test the C core against.

SipHash-2-4 is written out below from its paper (Aumasson and Bernstein, 2012)
and checked against its authors' vectors before anything is printed.

    python3 spec/vectors/ring.py > spec/vectors/ring.lua
"""
import hashlib
import struct

from jat import lua_string

MASK = (1 << 64) - 1
POINTS = 16
POSITIONS = 21


def rotate(value, count):
    return (value << count | value >> (64 - count)) & MASK


def siphash(key, data, size):
    k0, k1 = struct.unpack("<QQ", key)
    v = [k0 ^ 0x736F6D6570736575, k1 ^ 0x646F72616E646F6D, k0 ^ 0x6C7967656E657261, k1 ^ 0x7465646279746573]

    def rounds(count):
        for _ in range(count):
            v[0] = (v[0] + v[1]) & MASK
            v[2] = (v[2] + v[3]) & MASK
            v[1] = rotate(v[1], 13) ^ v[0]
            v[3] = rotate(v[3], 16) ^ v[2]
            v[0] = (rotate(v[0], 32) + v[3]) & MASK
            v[2] = (v[2] + v[1]) & MASK
            v[3] = rotate(v[3], 21) ^ v[0]
            v[1] = rotate(v[1], 17) ^ v[2]
            v[2] = rotate(v[2], 32)

    def result():
        rounds(4)
        return v[0] ^ v[1] ^ v[2] ^ v[3]

    if size == 16:
        v[1] ^= 0xEE
    padded = data + bytes(7 - len(data) % 8) + bytes([len(data) % 256])
    for (word,) in struct.iter_unpack("<Q", padded):
        v[3] ^= word
        rounds(2)
        v[0] ^= word
    v[2] ^= 0xEE if size == 16 else 0xFF
    hashes = [result()]
    if size == 16:
        v[1] ^= 0xDD
        hashes.append(result())
    return hashes


def self_check():
    key = bytes(range(16))
    assert siphash(key, bytes(range(15)), 8) == [0xA129CA6149BE45E5]
    assert struct.pack("<QQ", *siphash(key, b"", 16)).hex() == "a3817f04ba25a8e66df67214c7550293"
    assert struct.pack("<QQ", *siphash(key, b"\0", 16)).hex() == "da87c1d86b99af44347659119b22fc45"


def splitmix(state, count):
    for _ in range(count):
        state = (state + 0x9E3779B97F4A7C15) & MASK
        z = ((state ^ state >> 30) * 0xBF58476D1CE4E5B9) & MASK
        z = ((z ^ z >> 27) * 0x94D049BB133111EB) & MASK
        yield z ^ z >> 31


def choose(key, members, text):
    """The one with the point that is the nearest after any of the text's positions."""
    best = None
    positions = list(splitmix(siphash(key, text, 8)[0], POSITIONS))
    for number, member in enumerate(members, 1):
        start, rank = siphash(key, member, 16)
        for point in splitmix(start, POINTS):
            for position in positions:
                candidate = ((point - position) & MASK, rank, number)
                best = min(best or candidate, candidate)
    return best[2]


def strange():
    return [b"", b"\0", b"a", b"a\0b", b"\xff", "\u05d0@example".encode(), b"x" * 7, b"x" * 8, b"x" * 3071]


def backends(count):
    return [b"some-user@some-domain.example/%d" % number for number in range(1, count + 1)]


def requesters(count, host=b"some-domain.example"):
    return [b"user-%d@%s" % (number, host) for number in range(1, count + 1)]


def rooms(count):
    return [b"room-%d" % number for number in range(1, count + 1)]


def key_of(target):
    """The one that the module makes of the target's bare JID."""
    return hashlib.sha256(target).digest()[:16]


KEY = bytes(range(16))
# Found by search: under this key, their points are in the same positions.
TWINS = [b"u@h/8I4DdFrSVhP", b"u@h/ifIx2n754XJ"]

CASES = [
    (KEY, backends(1), requesters(3)),
    (KEY, backends(2), requesters(40) + strange()),
    (KEY, backends(3), requesters(40)),
    (KEY, backends(10), requesters(100) + strange()),
    (b"\xff" * 16, backends(10), requesters(40)),
    (KEY, strange(), requesters(40)),
    (KEY, TWINS + backends(2), requesters(40)),
    (KEY, backends(300), requesters(100) + rooms(40)),
    # This one is what each whole Prosody chooses, in every version.
    (
        key_of(b"some-user@some-domain.example"),
        [b"some-user@some-domain.example/" + resource for resource in (b"a", b"b", b"c")],
        requesters(60, b"component.example") + rooms(60),
    ),
]

if __name__ == "__main__":
    self_check()
    print("-- Made by ring.py beside this file, an implementation of its own.")
    print("return {")
    for key, members, texts in CASES:
        print("\t{")
        print("\t\tkey = %s," % lua_string(key))
        print("\t\tmembers = {")
        for member in members:
            print("\t\t\t%s," % lua_string(member))
        print("\t\t},")
        print("\t\t-- and the number of the one it falls to")
        print("\t\ttexts = {")
        for text in texts:
            print("\t\t\t{ %s, %d }," % (lua_string(text), choose(key, members, text)))
        print("\t\t},")
        print("\t},")
    print("}")
