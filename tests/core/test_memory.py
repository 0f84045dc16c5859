"""dhp_lab.core.memory: what glibc does with freed memory, and when."""

from types import SimpleNamespace

import pytest

from dhp_lab.core import memory, settings

MALLOC_H = {"M_TRIM_THRESHOLD": -1, "M_MMAP_THRESHOLD": -3}  # glibc, malloc.h


@pytest.fixture
def fresh():
    """Forget, before and after the test, that the allocator was set."""
    memory.keep_freed_memory.cache_clear()
    yield
    memory.keep_freed_memory.cache_clear()


@pytest.fixture
def calls(fresh, monkeypatch):
    """What a C library with mallopt is called with."""
    calls = []
    library = SimpleNamespace(mallopt=lambda option, value: calls.append((option, value)))
    monkeypatch.setattr(memory.ctypes, "CDLL", lambda name: library)
    return calls


def test_both_thresholds_are_raised_once(calls):
    for _ in range(3):
        memory.keep_freed_memory()
    assert calls == [(MALLOC_H["M_MMAP_THRESHOLD"], 2**27), (MALLOC_H["M_TRIM_THRESHOLD"], 2**29)]


def test_a_notebooks_settings_raise_them(calls, monkeypatch):
    monkeypatch.setenv("DHP_PROFILE", "ci")
    settings.current_settings()
    assert len(calls) == 2


@pytest.mark.parametrize("library", [object(), None])
def test_an_allocator_without_that_option_is_left_alone(fresh, monkeypatch, library):
    """musl and macOS have no mallopt; on Windows the program itself cannot be opened as a library."""

    def load(name):
        if library is None:
            raise TypeError("LoadLibrary() argument 1 must be str, not None")
        return library

    monkeypatch.setattr(memory.ctypes, "CDLL", load)
    assert memory.keep_freed_memory() is None


@pytest.mark.parametrize(
    "error, expected",
    [
        (MemoryError(), True),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried ..."), True),
        (RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"), True),
        (OSError("out of memory error when reading image file"), True),
        (OSError(12, "Cannot allocate memory"), True),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), False),
        (RuntimeError("the memory format is not channels_last"), False),
        (OSError(28, "No space left on device"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_a_shortage_of_memory_is_known_by_its_words(error, expected):
    assert memory.is_out_of_memory(error) == expected
