"""File systems of a test's own, in a mount namespace that ends with this process, and the plug to pull on them.

A power cut is EXT4_IOC_SHUTDOWN without flushing the log: from then on the file system takes nothing to its device, and
what was not synced, journal included, is gone when it is mounted again. The device below is a file that goes on
living, so a disk whose own cache forgets what it was told to flush is not simulated.
"""
import ctypes
import fcntl
import os
import shutil
import struct
import subprocess

from waiting import eventually

CLONE_NEWNS = 0x20000
EXT4_IOC_SHUTDOWN = (2 << 30) | (4 << 16) | (ord("X") << 8) | 125  # _IOR('X', 125, __u32)
EXT4_GOING_FLAGS_NOLOGFLUSH = 2


class Unable(Exception):
    """It cannot be done here, and why."""


def own_mounts():
    """What is mounted from here on, nobody else sees, and it ends with this process."""
    if os.geteuid() != 0 or ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNS) != 0:
        raise Unable("needs root, to mount a file system")
    if subprocess.run(["mount", "--make-rprivate", "/"], capture_output=True).returncode != 0:
        raise Unable("may not mount here")


def mount(*words):
    done = subprocess.run(["mount", *map(str, words)], capture_output=True, text=True)
    if done.returncode != 0:
        raise Unable(done.stderr.strip())


class Disk:
    """A file system of its own, mounted on a directory."""

    def __init__(self, where):
        self.where = where

    def unmount(self):
        """Once the last process that was killed has closed its files."""
        eventually(lambda: subprocess.run(["umount", self.where], capture_output=True).returncode == 0,
                   f"{self.where} is unmounted")

    def abandon(self):
        """At the end, whatever still uses it."""
        subprocess.run(["umount", "--lazy", self.where], capture_output=True)


class Tmpfs(Disk):
    """In memory; needs no image."""

    def __init__(self, _image, where, size_bytes):
        super().__init__(where)
        mount("-t", "tmpfs", "-o", f"size={size_bytes}", "none", where)


class Ext4(Disk):
    """In a file."""

    def __init__(self, image, where, size_bytes):
        super().__init__(where)
        if not shutil.which("mkfs.ext4"):
            raise Unable("needs mkfs.ext4")
        self.image = image
        image.touch()
        os.truncate(image, size_bytes)
        subprocess.run(["mkfs.ext4", "-q", "-m", "0", image], check=True)
        self.mount()

    def mount(self):
        mount("-o", "loop", self.image, self.where)

    def cut_power(self):
        fd = os.open(self.where, os.O_RDONLY)
        try:
            fcntl.ioctl(fd, EXT4_IOC_SHUTDOWN, struct.pack("I", EXT4_GOING_FLAGS_NOLOGFLUSH))
        except OSError as e:
            raise Unable(f"EXT4_IOC_SHUTDOWN: {e.strerror}") from e
        finally:
            os.close(fd)
