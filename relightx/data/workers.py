"""What a reader process does before its first batch."""

import ctypes

import cv2
import torch

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
_TRIM_BYTES, _MMAP_BYTES = 1 << 29, 1 << 25


def prepare_reader(_worker: int) -> None:
    """For each reader process, as DataLoader's worker_init_fn."""
    use_one_thread()
    keep_memory()


def use_one_thread() -> None:
    """In this process."""
    # OpenCV's own threads would fight the training process for cores, and hang after a fork: to ask
    # for one waits for those of the parent, so none is asked for.
    cv2.setNumThreads(0)
    torch.set_num_threads(1)


def keep_memory() -> None:
    """Use memory again instead of giving it back, where the C library is glibc.

    It gives back the pixels of each batch and gets new pages, zeroed, for the next: a tenth of the
    time that a reader takes.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _MMAP_BYTES)
        mallopt(_M_TRIM_THRESHOLD, _TRIM_BYTES)
