"""Verify and make events with pycose alone: it imports nothing of dsmt (run in an environment with pycose, cbor2 < 6).

Reads one JSON object on stdin, writes one on stdout:
    {"do": "verify", "public": hex, "events": [hex, ...]} -> {"verdicts": [bool, ...], "payloads": [...]}
    {"do": "sign", "seed": hex, "public": hex, "payload": hex} -> {"event": hex}

The extra step for a member of a burst: its unprotected header -70010 holds [index, size, siblings]. The signature is over
the burst's root in the payload's place, and the root is computed from this member's own bytes (RFC 9162 2.1, and the size):
    leaf = SHA-256(0x00 || protected header's bytes || payload), inner = SHA-256(0x01 || left || right),
    root = SHA-256(0x02 || size as 8 bytes || top); a node without a sibling goes up as it is.
"""

import json
import sys
from hashlib import sha256

import cbor2
from pycose.algorithms import EdDSA
from pycose.headers import KID, Algorithm
from pycose.keys import OKPKey
from pycose.keys.curves import Ed25519
from pycose.messages import Sign1Message

PATH_LABEL = -70_010


def root_of_burst(protected, payload, path):
    index, size, siblings = path
    node, left, rest = sha256(b"\x00" + protected + payload).digest(), size, list(siblings)
    while left > 1:
        if index % 2 == 1:
            node = sha256(b"\x01" + rest.pop(0) + node).digest()
        elif index + 1 < left:
            node = sha256(b"\x01" + node + rest.pop(0)).digest()
        index, left = index // 2, (left + 1) // 2
    return sha256(b"\x02" + size.to_bytes(8, "big") + node).digest()


def verified(raw, public):
    message = Sign1Message.decode(raw)
    message.key = OKPKey(crv=Ed25519, x=public)
    payload = message.payload
    path = message.uhdr.get(PATH_LABEL)
    if path is not None:
        message.payload = root_of_burst(cbor2.loads(raw).value[0], payload, path)
    told = cbor2.loads(payload)
    return message.verify_signature(), [told["source"], *told["id"], told["topic"]]


def signed(payload, seed, public):
    message = Sign1Message(phdr={Algorithm: EdDSA, KID: sha256(public).digest()[:16]}, payload=payload)
    message.key = OKPKey(crv=Ed25519, x=public, d=seed)
    return message.encode()


def main():
    asked = json.load(sys.stdin)
    public = bytes.fromhex(asked["public"])
    if asked["do"] == "verify":
        found = [verified(bytes.fromhex(raw), public) for raw in asked["events"]]
        answer = {"verdicts": [good for good, _ in found], "payloads": [told for _, told in found]}
    else:
        answer = {"event": signed(bytes.fromhex(asked["payload"]), bytes.fromhex(asked["seed"]), public).hex()}
    json.dump(answer, sys.stdout)


main()
