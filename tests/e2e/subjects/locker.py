"""Takes locks as it is told, line by line, and says what came of each."""

import errno, fcntl, os, struct, sys

KINDS = {"r": fcntl.F_RDLCK, "w": fcntl.F_WRLCK, "u": fcntl.F_UNLCK}
WHOLE = {"s": fcntl.LOCK_SH, "x": fcntl.LOCK_EX, "u": fcntl.LOCK_UN}
# F_OFD_GETLK, F_OFD_SETLK, F_OFD_SETLKW
OFD = {"test": 36, False: 37, True: 38}
FORM = "hhqqi"
files = {}


def pack(kind, start, length):
    return struct.pack(FORM, KINDS[kind], os.SEEK_SET, int(start), int(length), 0)


def answer(words):
    match words:
        case ["open", name, path, how]:
            files[name] = os.open(path, os.O_RDWR | os.O_CREAT if how == "rw" else os.O_RDONLY)
        case ["close", name]:
            os.close(files.pop(name))
        case ["flock", name, how, *waits]:
            fcntl.flock(files[name], WHOLE[how] | (0 if waits else fcntl.LOCK_NB))
        case ["posix", name, kind, start, length, *waits]:
            fcntl.fcntl(files[name], fcntl.F_SETLKW if waits else fcntl.F_SETLK, pack(kind, start, length))
        case ["ofd", name, kind, start, length, *waits]:
            fcntl.fcntl(files[name], OFD[bool(waits)], pack(kind, start, length))
        case ["test", name, kind, start, length]:
            kind, _, start, length, pid = struct.unpack(FORM, fcntl.fcntl(files[name], fcntl.F_GETLK, pack(kind, start, length)))
            kinds = {number: kind for kind, number in KINDS.items()}
            return "free" if kinds[kind] == "u" else f"{kinds[kind]} {start} {length} {pid}"
        case ["write", name, text]:
            os.pwrite(files[name], text.encode(), 0)
        case ["read", name]:
            return os.pread(files[name], 100, 0).decode()
        case ["fork", fifo]:
            # The child keeps what is open until somebody opens the fifo.
            if os.fork() == 0:
                open(fifo).read()
                os._exit(0)
        case ["pid"]:
            return str(os.getpid())
        case ["exit", code]:
            os._exit(int(code))
    return "ok"


while line := sys.stdin.readline():
    try:
        said = answer(line.split())
    except OSError as error:
        said = errno.errorcode[error.errno]
    print(said, flush=True)
