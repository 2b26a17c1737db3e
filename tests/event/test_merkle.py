"""Merkle trees: every leaf's path leads to the root, and no other does."""

from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from dsmt.errors import UnusableEventError
from dsmt.event.merkle import Path, leaf_hash, root_of, steps, tree

SIZES = [*range(1, 34), 63, 64, 65, 100, 127, 129]


def leaves(size):
    return [leaf_hash(b"header", b"%d" % i) for i in range(size)]


def gives(leaf, path):
    try:
        return root_of(leaf, path)
    except UnusableEventError:
        return None


@pytest.mark.parametrize("size", SIZES)
def test_every_path_leads_to_the_root(size):
    root, paths = tree(leaves(size))
    assert [root_of(leaf, path) for leaf, path in zip(leaves(size), paths, strict=True)] == [root] * size


@pytest.mark.parametrize("size", range(1, 18))
def test_no_other_index_size_or_leaf_leads_to_the_root(size):
    root, paths = tree(leaves(size))
    for i, path in enumerate(paths):
        for other in leaves(size)[:i] + leaves(size)[i + 1 :]:
            assert gives(other, path) != root
        for index in range(-1, 2 * size + 2):
            for told in range(2 * size + 2):
                if (index, told) != (i, size):
                    assert gives(leaves(size)[i], replace(path, index=index, size=told)) != root


@given(st.sampled_from([n for n in SIZES if n > 1]), st.data())
def test_an_altered_path_leads_elsewhere(size, data):
    root, paths = tree(leaves(size))
    i = data.draw(st.integers(0, size - 1))
    siblings = list(paths[i].siblings)
    place = data.draw(st.integers(0, len(siblings) - 1))
    match data.draw(st.sampled_from(["flip", "drop", "double", "append"])):
        case "flip":
            bit = data.draw(st.integers(0, 255))
            siblings[place] = (int.from_bytes(siblings[place], "big") ^ 1 << bit).to_bytes(32, "big")
        case "drop":
            del siblings[place]
        case "double":
            siblings.insert(place, siblings[place])
        case "append":
            siblings.append(bytes(32))
    assert gives(leaves(size)[i], replace(paths[i], siblings=tuple(siblings))) != root


@pytest.mark.parametrize("size", range(1, 18))
def test_how_long_each_path_is_is_known_without_the_tree(size):
    assert [steps(index, size) for index in range(size)] == [len(path.siblings) for path in tree(leaves(size))[1]]


def test_an_odd_node_is_promoted_and_not_doubled():
    a, b, c = leaves(3)
    inner = sha256(b"\x01" + a + b).digest()
    top = sha256(b"\x01" + inner + c).digest()
    root, paths = tree([a, b, c])
    assert root == sha256(b"\x02" + (3).to_bytes(8, "big") + top).digest()
    assert paths[2] == Path(2, 3, (inner,))
    assert tree([a, b, c, c])[0] != root


def test_a_leaf_an_inner_node_and_a_root_of_the_same_bytes_differ():
    a, b = leaves(2)
    assert len({leaf_hash(a, b), sha256(b"\x01" + a + b).digest(), tree([a])[0], tree([a, b])[0], a}) == 5
