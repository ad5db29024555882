"""Sparse files, written in every way and looked at in every way: whoever skips the holes must come to the same bytes.

holes.py table          every way of writing by every way of looking
holes.py look PATH      what there is at a path, by its holes, compared with what reading says
holes.py crowd          many look while one goes on writing through a mapping
"""
import ctypes
import errno
import fcntl
import mmap
import os
import subprocess
import sys

# Several blocks, and an end inside of a page.
SIZE = (1 << 20) + 5000
PLACES = [300_000, 300_001, 700_000, SIZE - 1]
PUNCH_HOLE = 3
FS_IOC_FIEMAP = 0xC020660B
libc = ctypes.CDLL(None, use_errno=True)


def pread(fd, length, at):
    parts = []
    while length and (part := os.pread(fd, length, at)):
        parts.append(part)
        at, length = at + len(part), length - len(part)
    return b"".join(parts)


# ---- Ways of looking, by an open descriptor.


def data(fd, at):
    try:
        return os.lseek(fd, at, os.SEEK_DATA)
    except OSError as error:
        assert error.errno == errno.ENXIO, error
        return None


def by_data(fd):
    """As `cp` and `tar` do it."""
    out, at = bytearray(os.fstat(fd).st_size), 0
    while (start := data(fd, at)) is not None:
        at = os.lseek(fd, start, os.SEEK_HOLE)
        assert start < at <= len(out), (start, at)
        out[start:at] = pread(fd, at - start, start)
    return bytes(out)


def by_holes(fd):
    out, at = bytearray(os.fstat(fd).st_size), 0
    while at < len(out):
        hole = os.lseek(fd, at, os.SEEK_HOLE)
        out[at:hole] = pread(fd, hole - at, at)
        at = hole
        while at < len(out) and at == hole:
            at = data(fd, hole)
            at = len(out) if at is None else at
    return bytes(out)


def into_new(fd, copy):
    new = os.open("new", os.O_RDWR | os.O_CREAT | os.O_TRUNC)
    at, size = 0, os.fstat(fd).st_size
    while at < size:
        at += copy(fd, new, size - at, at)
    content = pread(new, size, 0)
    os.close(new)
    return content


def by_copy_range(fd):
    return into_new(fd, lambda fd, new, count, at: os.copy_file_range(fd, new, count, at, at))


def by_sendfile(fd):
    return into_new(fd, lambda fd, new, count, at: os.sendfile(new, fd, at, count))


def by_reading(fd):
    return pread(fd, os.fstat(fd).st_size, 0)


# ---- The same by path, in another process.


def run(*words):
    return subprocess.run(words, check=True, stdout=subprocess.PIPE).stdout


def copied(*options):
    def copy(path):
        run("cp", *options, path, "copy")
        return run("cat", "copy")

    return copy


def archived(path):
    # It may warn (1): the file's times change when what was stored is written out.
    assert subprocess.run(["tar", "--sparse", "-cf", "archive", path], stderr=subprocess.DEVNULL).returncode in (0, 1)
    return run("tar", "-xOf", "archive")


def looked_at(path):
    run(sys.executable, __file__, "look", path)
    return run("cat", path)


BY_DESCRIPTOR = {look.__name__: look for look in (by_data, by_holes, by_copy_range, by_sendfile, by_reading)}
BY_PATH = {
    "cp": copied(),
    "cp --sparse=always": copied("--sparse=always"),
    "cp --reflink=never": copied("--reflink=never"),
    "tar --sparse": archived,
    "another process": looked_at,
}

# ---- Ways of writing: each leaves the file `f` behind, and returns what keeps it as it is.


def mapping(fd, places):
    stored = mmap.mmap(fd, SIZE)
    for place in places:
        stored[place] = ord("m")
    return stored


def new_file():
    fd = os.open("f", os.O_RDWR | os.O_CREAT | os.O_EXCL)
    os.ftruncate(fd, SIZE)
    return fd


def mapped():
    fd = new_file()
    return fd, mapping(fd, PLACES)


def mapped_and_the_descriptor_closed():
    fd, stored = mapped()
    os.close(fd)
    return stored


def mapped_and_synced():
    fd, stored = mapped()
    stored.flush()
    return fd, stored


def mapped_and_unmapped():
    fd, stored = mapped()
    stored.close()
    return fd


def mapped_unmapped_and_closed():
    os.close(mapped_and_unmapped())


def written():
    fd = new_file()
    for place in PLACES:
        os.pwrite(fd, b"m", place)
    return fd


def written_and_mapped():
    """Holes lie between what is known to be data."""
    fd = new_file()
    os.pwrite(fd, b"m", PLACES[2])
    return fd, mapping(fd, PLACES)


def punched_and_mapped():
    fd = new_file()
    os.pwrite(fd, b"x" * SIZE, 0)
    assert libc.fallocate(fd, PUNCH_HOLE, ctypes.c_long(0), ctypes.c_long(SIZE)) == 0
    return fd, mapping(fd, PLACES)


def mapped_in_another_process():
    (told, tell), (over, end) = os.pipe(), os.pipe()
    if os.fork() == 0:
        os.close(end)
        keeps = mapped()
        os.write(tell, b"x")
        os.read(over, 1)
        os._exit(0 if keeps else 1)
    assert os.read(told, 1) == b"x"
    for fd in (told, tell, over):
        os.close(fd)
    return end


WRITERS = (
    mapped,
    mapped_and_the_descriptor_closed,
    mapped_and_synced,
    mapped_and_unmapped,
    mapped_unmapped_and_closed,
    written,
    written_and_mapped,
    punched_and_mapped,
    mapped_in_another_process,
)


def let_go(kept):
    for thing in kept if isinstance(kept, tuple) else (kept,):
        if isinstance(thing, mmap.mmap):
            thing.close()
        elif thing is not None:
            os.close(thing)


def table():
    expected = bytearray(SIZE)
    for place in PLACES:
        expected[place] = ord("m")
    wrong = []
    for write in WRITERS:
        for way in (*BY_DESCRIPTOR, *BY_PATH):
            kept = write()
            if way in BY_DESCRIPTOR:
                fd = os.open("f", os.O_RDONLY)
                found = BY_DESCRIPTOR[way](fd)
                os.close(fd)
            else:
                found = BY_PATH[way]("f")
            if found != expected:
                wrong.append(f"{write.__name__}, {way}: {sum(byte != 0 for byte in found)} bytes of {len(PLACES)}")
            let_go(kept)
            if write is mapped_in_another_process:
                os.wait()
            os.unlink("f")
    assert not wrong, "\n".join(wrong)
    # Nobody is told where the pieces of a file lie; so everybody seeks.
    fd = new_file()
    try:
        fcntl.ioctl(fd, FS_IOC_FIEMAP, bytes(32))
        raise AssertionError("FIEMAP is answered")
    except OSError as error:
        assert error.errno in (errno.EOPNOTSUPP, errno.ENOTTY), error
    assert os.fstat(fd).st_blocks > 0, "a file without blocks counts as empty"


def look(path):
    fd = os.open(path, os.O_RDONLY)
    before = by_reading(fd)
    found = by_data(fd), by_holes(fd)
    # What lies in another kernel may be written out at any moment.
    assert all(one in (before, by_reading(fd)) for one in found), path


def crowd():
    """One stores, and says where; many look for what it has said."""
    size, step, count = 16 << 20, 70_000, 200
    fd = os.open("f", os.O_RDWR | os.O_CREAT | os.O_EXCL)
    os.ftruncate(fd, size)
    said = mmap.mmap(-1, 8)
    askers = []
    for _ in range(12):
        askers.append(os.fork())
        if askers[-1] == 0:
            mine = os.open("f", os.O_RDONLY)
            while (stored := int.from_bytes(said[:8], "little")) < count:
                at = stored * step
                assert not stored or data(mine, at - 10) <= at, stored
                assert not stored or os.lseek(mine, at, os.SEEK_HOLE) > at, stored
            assert by_data(mine) == by_reading(mine)
            os._exit(0)
    stored = mmap.mmap(fd, size)
    for number in range(1, count + 1):
        stored[number * step] = 1
        said[:8] = number.to_bytes(8, "little")
    assert all(os.waitpid(pid, 0)[1] == 0 for pid in askers)


if __name__ == "__main__":
    {"table": table, "look": look, "crowd": crowd}[sys.argv[1]](*sys.argv[2:])
