"""Two processes that decide together, as in `together.rs`.

specrun --no-speculation -- python3 together.py FILE TEXT [TOKEN]
"""

import sys

import mojave

if len(sys.argv) not in (3, 4):
    sys.exit("usage: together.py FILE TEXT [TOKEN]")
name, text, *token = sys.argv[1:]
try:
    with mojave.speculation(*token):
        with open(name, "w") as file:
            file.write(text)
        print(mojave.share(), flush=True)
        if sys.stdin.readline().strip() != "commit":
            raise RuntimeError("told to abort")
except mojave.Aborted as aborted:
    print("undone, code", aborted.code, aborted.words)
    sys.exit(1)
mojave.barrier()
print("final")
