#!/usr/bin/env python3
"""Makes jat.lua: tokens computed without libsodium, to test the codec against.

BLAKE2b is Python's own; XChaCha20 is written out below from RFC 8439 section
2.3 and draft-irtf-cfrg-xchacha-03 section 2, and checked against their vectors
before anything is printed.

    python3 spec/vectors/jat.py > spec/vectors/jat.lua
"""
import base64
import hashlib
import re
import struct

MASK = 0xFFFFFFFF


def rotate(value, count):
    return ((value << count) | (value >> (32 - count))) & MASK


def quarter_round(state, a, b, c, d):
    for x, y, z, count in ((a, b, d, 16), (c, d, b, 12), (a, b, d, 8), (c, d, b, 7)):
        state[x] = (state[x] + state[y]) & MASK
        state[z] = rotate(state[z] ^ state[x], count)


def rounds(state):
    state = list(state)
    for _ in range(10):
        for i in range(4):
            quarter_round(state, i, 4 + i, 8 + i, 12 + i)
        for i in range(4):
            quarter_round(state, i, 4 + (i + 1) % 4, 8 + (i + 2) % 4, 12 + (i + 3) % 4)
    return state


def initial(key, tail):
    return struct.unpack("<16I", b"expand 32-byte k" + key + tail)


def hchacha20(key, nonce):
    state = rounds(initial(key, nonce))
    return struct.pack("<8I", *state[:4], *state[12:])


def chacha20_block(key, tail):
    start = initial(key, tail)
    return struct.pack("<16I", *((a + b) & MASK for a, b in zip(start, rounds(start))))


def xchacha20_xor(key, nonce, data):
    subkey = hchacha20(key, nonce[:16])
    out = bytearray()
    for counter in range(0, (len(data) + 63) // 64):
        block = chacha20_block(subkey, struct.pack("<Q", counter) + nonce[16:])
        out += bytes(a ^ b for a, b in zip(data[counter * 64 :], block))
    return bytes(out)


def self_check():
    key = bytes(range(32))
    # RFC 8439 section 2.3.2
    block = chacha20_block(key, struct.pack("<I", 1) + bytes.fromhex("000000090000004a00000000"))
    assert block[:16].hex() == "10f1e7e4d13b5915500fdd1fa32071c4", block.hex()
    # draft-irtf-cfrg-xchacha-03 section 2.2.1
    out = hchacha20(key, bytes.fromhex("000000090000004a0000000031415927"))
    assert out.hex() == "82413b4227b27bfed30e42508a877d73a0f9e4d58a74a853c12ec41326d3ecdc", out.hex()


def kdf(master, number):
    return hashlib.blake2b(
        digest_size=32, key=master, salt=struct.pack("<QQ", number, 0), person=b"JATtoken".ljust(16, b"\0")
    ).digest()


def base64url(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=")


def plaintext(jid):
    padded = jid + b"\x80"
    return b"\x01" + padded + bytes(-len(padded) % 32)


def siv(master, host, jid):
    return hashlib.blake2b(host + b"\0" + plaintext(jid), digest_size=24, key=kdf(master, 2)).digest()


def sealed(master, key_id, host, jid):
    nonce = siv(master, host, jid)
    return b"s" + base64url(bytes([key_id]) + nonce + xchacha20_xor(kdf(master, 1), nonce, plaintext(jid)))


def signed(master, key_id, host, jid):
    tag = hashlib.blake2b(host + b"\0\x01" + jid, digest_size=16, key=kdf(master, 3)).digest()
    return jid + b"#" + base64url(tag)


def plain(master, key_id, host, jid):
    return jid


def short(master, key_id, host, jid):
    name = hashlib.blake2b(host + b"\0\x01" + jid, digest_size=16, key=kdf(master, 4)).digest()[:9]
    return b"q" + base64url(name)


def backend(master, host, jid):
    name = hashlib.blake2b(host + b"\0\x02" + jid, digest_size=16, key=kdf(master, 4)).digest()[:9]
    return b"b" + base64url(name)


def second_backend(master, host, jid):
    """That of a backend whose token another one has"""
    padded = jid + b"\x80"
    padded = b"\x02" + padded + bytes(-len(padded) % 32)
    return b"b" + base64url(hashlib.blake2b(host + b"\0" + padded, digest_size=24, key=kdf(master, 2)).digest())


def digest(master, host, jid):
    return b"d" + base64url(siv(master, host, jid))


DIGEST = re.compile(rb"d[A-Za-z0-9_-]{32}")


def token(encode, master, key_id, host, jid):
    encoded = encode(master, key_id, host, jid)
    if re.fullmatch(rb"[ -~]{1,1023}", encoded) and not DIGEST.fullmatch(encoded):
        return encoded
    return digest(master, host, jid)


def code(encode, made):
    """What decoding says where it does not bring back the JID"""
    if DIGEST.fullmatch(made):
        return "digest"
    if encode is short:
        return "short"
    if encode is plain:
        return "plain" if re.fullmatch(rb"[^@/]+@[^@/]+(/.+)?", made) else "bad-token"
    return None


def lua_string(data):
    return '"' + "".join(chr(b) if 32 <= b < 127 and b not in b'"\\' else "\\%03d" % b for b in data) + '"'


CASES = [
    (sealed, bytes(range(32)), 0, b"proxy.domain.example", b"user@some-domain.example/abc"),
    (sealed, bytes(range(32)), 0, b"proxy.domain.example", b"a"),
    (sealed, bytes(range(32)), 1, b"proxy.domain.example", b"user@some-domain.example/abc"),
    (sealed, bytes(range(32)), 0, b"other.domain.example", b"user@some-domain.example/abc"),
    (sealed, b"\xff" * 32, 255, b"proxy.domain.example", b"x" * 31),
    (sealed, b"\xff" * 32, 255, b"proxy.domain.example", b"x" * 32),
    (sealed, bytes(32), 7, b"p", "\u05d0\u05d1@example/\u05d2".encode()),
    (sealed, bytes(32), 7, b"p", b"nul\0 and \xff\xfe bytes\\\""),
    (sealed, bytes(32), 7, b"p", b"l@h/" + b"r" * 731),
    (sealed, bytes(32), 7, b"p", b"l@h/" + b"r" * 732),
    (sealed, bytes(32), 7, b"p", b"l@h/" + b"r" * 1023),
    (sealed, bytes(32), 7, b"p", b"n" * 1023 + b"@" + b"h" * 1023 + b"/" + b"r" * 1023),
    (signed, bytes(range(32)), 0, b"proxy.domain.example", b"user@some-domain.example/abc"),
    (signed, bytes(range(32)), 255, b"proxy.domain.example", b"user@some-domain.example/abc"),
    (signed, bytes(range(32)), 0, b"other.domain.example", b"user@some-domain.example/abc"),
    (signed, b"\xff" * 32, 0, b"proxy.domain.example", b"user@some-domain.example/abc"),
    (signed, bytes(32), 7, b"p", b"a"),
    (signed, bytes(32), 7, b"p", b"#"),
    (signed, bytes(32), 7, b"p", b"#a@b/#c#"),
    (signed, bytes(32), 7, b"p", b"a@b/c#" + b"A" * 22),
    (signed, bytes(32), 7, b"p", b"d" * 33),
    (signed, bytes(32), 7, b"p", b" ~\"\\<&'> "),
    (signed, bytes(32), 7, b"p", b"l@h/" + b"r" * 996),
    (signed, bytes(32), 7, b"p", b"l@h/" + b"r" * 997),
    (signed, bytes(32), 7, b"p", b"l@h/tab\t"),
    (signed, bytes(32), 7, b"p", b"l@h/delete\x7f"),
    (signed, bytes(32), 7, b"p", "l@h/\u05d2".encode()),
    (plain, bytes(range(32)), 0, b"proxy.domain.example", b"user@some-domain.example/abc"),
    (plain, bytes(range(32)), 0, b"proxy.domain.example", b"user@some-domain.example"),
    (plain, bytes(range(32)), 0, b"proxy.domain.example", b"some-domain.example"),
    (plain, bytes(range(32)), 0, b"proxy.domain.example", b"some-domain.example/abc@def"),
    (plain, bytes(32), 7, b"p", b"a@b/ c@d/e#f "),
    (plain, bytes(32), 7, b"p", b"d" * 32),
    (plain, bytes(32), 7, b"p", b"d" * 33),
    (plain, bytes(32), 7, b"p", b"d" * 34),
    (plain, bytes(32), 7, b"p", b"d" * 31 + b"@d"),
    (plain, bytes(32), 7, b"p", b"s" * 79),
    (plain, bytes(32), 7, b"p", b"l@h/" + b"r" * 1019),
    (plain, bytes(32), 7, b"p", b"l@h/" + b"r" * 1020),
    (plain, bytes(32), 7, b"p", b"l@h/nul\0"),
    (plain, bytes(32), 7, b"p", b"l@h/delete\x7f"),
    (plain, bytes(32), 7, b"p", "l@h/\u00fc".encode()),
    (short, bytes(range(32)), 0, b"proxy.domain.example", b"user@some-domain.example/abc"),
    (short, bytes(range(32)), 255, b"proxy.domain.example", b"user@some-domain.example/abc"),
    (short, bytes(range(32)), 0, b"other.domain.example", b"user@some-domain.example/abc"),
    (short, b"\xff" * 32, 0, b"proxy.domain.example", b"user@some-domain.example/abc"),
    (short, bytes(32), 7, b"p", b"a"),
    (short, bytes(32), 7, b"p", b"nul\0 and \xff\xfe bytes\\\""),
    (short, bytes(32), 7, b"p", "\u05d0\u05d1@example/\u05d2".encode()),
    (short, bytes(32), 7, b"p", b"d" * 33),
    (short, bytes(32), 7, b"p", b"l@h/" + b"r" * 1023),
    (short, bytes(32), 7, b"p", b"n" * 1023 + b"@" + b"h" * 1023 + b"/" + b"r" * 1023),
]

BACKENDS = [
    (bytes(range(32)), b"proxy.domain.example", b"some-user@some-domain.example/a"),
    (bytes(range(32)), b"proxy.domain.example", b"user@some-domain.example/abc"),
    (bytes(range(32)), b"other.domain.example", b"some-user@some-domain.example/a"),
    (b"\xff" * 32, b"proxy.domain.example", b"some-user@some-domain.example/a"),
    (bytes(32), b"p", "\u05d0\u05d1@example/\u05d2".encode()),
    (bytes(32), b"p", b"a@" + b"x" * 28),
    (bytes(32), b"p", b"a@" + b"x" * 29),
    (bytes(32), b"p", b"nul\0 and \xff\xfe bytes\\\""),
    (bytes(32), b"p", b"n" * 1023 + b"@" + b"h" * 1023 + b"/" + b"r" * 1023),
]


def print_backends():
    print("\tbackends = {")
    for master, host, jid in BACKENDS:
        print("\t\t{")
        print("\t\t\tkey = %s," % lua_string(master))
        print("\t\t\thost = %s," % lua_string(host))
        print("\t\t\tjid = %s," % lua_string(jid))
        print("\t\t\ttoken = %s," % lua_string(backend(master, host, jid)))
        print("\t\t\tsecond = %s," % lua_string(second_backend(master, host, jid)))
        print("\t\t},")
    print("\t},")


if __name__ == "__main__":
    self_check()
    print("-- Made by jat.py beside this file, an implementation of its own.")
    print("return {")
    print_backends()
    for encode, master, key_id, host, jid in CASES:
        made = token(encode, master, key_id, host, jid)
        print("\t{")
        print('\t\tformat = "%s",' % encode.__name__)
        print("\t\tkey = %s," % lua_string(master))
        print("\t\tkey_id = %d," % key_id)
        print("\t\thost = %s," % lua_string(host))
        print("\t\tjid = %s," % lua_string(jid))
        print("\t\ttoken = %s," % lua_string(made))
        if code(encode, made):
            print('\t\tcode = "%s",' % code(encode, made))
        print("\t},")
    print("}")
