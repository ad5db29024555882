"""A database (SQLite) that is open here while a job changes it: says nothing if all is well.

    database.py JOURNAL WHEN COMMAND...

JOURNAL is `delete` or `wal`. When the job runs there is `no` transaction here, one that `reads`, or one that `writes`. COMMAND is put before
the job's program.
"""

import sqlite3
import subprocess
import sys

ROWS = 3000

JOB = """
import sqlite3
db = sqlite3.connect("data.db", isolation_level=None, timeout=1)
db.execute("begin immediate")
db.execute("update t set text = 'job' || hex(randomblob(80))")
db.execute("insert into t select number + 100000, text from t")
db.execute("create index i on t(text)")
db.execute("commit")
db.execute("pragma wal_checkpoint(truncate)")
"""


def connect():
    db = sqlite3.connect("data.db", isolation_level=None, timeout=3)
    # Most of what is read comes from the file.
    db.execute("pragma cache_size=3")
    return db


def check(what, is_so):
    if not is_so:
        print(what)


def count(db, condition="1"):
    return db.execute(f"select count(*) from t where {condition}").fetchone()[0]


def main():
    journal, when, *command = sys.argv[1:]
    db = connect()
    db.execute(f"pragma journal_mode={journal}")
    db.execute("create table t(number, text)")
    db.execute("begin")
    db.executemany("insert into t values(?, ?)", ((number, "old" * 50) for number in range(ROWS)))
    db.execute("commit")
    db.close()
    db = connect()
    if when == "writes":
        db.execute("begin immediate")
        db.execute("update t set text = 'here' where number < 50")
    if when == "reads":
        db.execute("begin")
        cursor = db.execute("select text from t order by number")
        read = [cursor.fetchone() for _ in range(100)]
    job = subprocess.run([*command, sys.executable, "-c", JOB], capture_output=True, text=True)
    committed = job.returncode == 0
    check(f"the job failed: {job.stderr}", committed or "locked" in job.stderr)
    if when == "reads":
        rows = read + cursor.fetchall()
        kinds = {text[:3] for (text,) in rows}
        check(f"the open transaction saw {len(rows)} rows, {kinds}", (len(rows), kinds) == (ROWS, {"old"}))
        db.execute("commit")
    if when == "writes":
        db.execute("commit")
        check("what was written here is gone", count(db, "text = 'here'") == 50)
    check("rows are gone, or too many", count(db) == ROWS * (2 if committed else 1))
    db.execute("insert into t values(-1, 'here')")
    db.close()
    for db in [connect()]:
        (integrity,) = db.execute("pragma integrity_check").fetchone()
        check(f"it is damaged: {integrity}", integrity == "ok")
        check("the last row is gone", count(db, "number = -1") == 1)
        db.close()


main()
