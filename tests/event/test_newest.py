from dsmt.newest import Newest


def filled(*keys: str) -> Newest[str, int]:
    newest = Newest[str, int](3)
    for number, key in enumerate(keys):
        newest[key] = number
    return newest


def test_beyond_the_most_the_one_that_was_put_longest_ago_is_forgotten() -> None:
    assert list(filled(*"abcd").items()) == [("b", 1), ("c", 2), ("d", 3)]


def test_what_is_put_again_is_the_newest_again() -> None:
    assert list(filled(*"abcad").items()) == [("c", 2), ("a", 3), ("d", 4)]


def test_what_is_only_read_grows_old_unless_its_reader_says_so() -> None:
    read, moved = filled(*"abc"), filled(*"abc")
    assert read["a"] == moved["a"] == 0
    moved.move_to_end("a")
    read["d"] = moved["d"] = 3
    assert (list(read), list(moved)) == (["b", "c", "d"], ["c", "a", "d"])


def test_what_is_put_in_one_go_is_bounded_too() -> None:
    newest = Newest[str, int](2)
    newest.update((key, 0) for key in "abc")
    assert list(newest) == ["b", "c"]
