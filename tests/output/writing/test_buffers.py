"""The memory that windows are filled in: it lies in its pages as the file does, and is used again."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from vlconv.converters.output.writing.buffers import PAGE, Buffers


def address(memory: memoryview) -> int:
    """Of its first byte."""
    return int(np.frombuffer(memory, np.uint8).__array_interface__["data"][0])


@pytest.mark.parametrize("offset", [0, 1, 4095, 4096, 123_457])
def test_a_page_of_the_file_is_a_page_of_memory(offset: int) -> None:
    memory = Buffers(1 << 16).at(offset, 60_000)
    assert len(memory) == 60_000
    assert address(memory) % PAGE == offset % PAGE


def test_is_used_again_and_grows_for_what_is_larger() -> None:
    buffers = Buffers(1 << 16)
    first = address(buffers.at(0, 100))
    assert address(buffers.at(PAGE, 1 << 16)) == first
    assert len(buffers.at(5, 1 << 20)) == 1 << 20


def test_each_thread_has_its_own() -> None:
    buffers, found = Buffers(1 << 16), list[int]()
    held = buffers.at(0, 100)
    other = threading.Thread(target=lambda: found.append(address(buffers.at(0, 100))))
    other.start()
    other.join()
    assert found != [address(held)]
