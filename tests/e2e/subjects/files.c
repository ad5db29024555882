/* A process that speculates on files, and checks what it finds. Run in a directory of the filesystem. */
#include <errno.h>
#include <fcntl.h>
#include <mojave.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static void die(const char *what, int line) {
    fprintf(stderr, "line %d: %s (%s)\n", line, what, spec_error());
    _exit(9);
}
#define REQUIRE(good) ((good) ? (void)0 : die(#good, __LINE__))

static void put(const char *path, const char *text) {
    int file = open(path, O_CREAT | O_TRUNC | O_WRONLY, 0644);
    REQUIRE(file >= 0);
    REQUIRE(write(file, text, strlen(text)) == (ssize_t)strlen(text));
    REQUIRE(close(file) == 0);
}

static int is(const char *path, const char *text) {
    char found[64] = {0};
    int file = open(path, O_RDONLY);
    if (file < 0) return text == NULL;
    REQUIRE(read(file, found, sizeof found - 1) >= 0);
    close(file);
    return text != NULL && strcmp(found, text) == 0;
}

static int enter(void) {
    int code = speculate();
    REQUIRE(code >= 0);
    return code;
}

static void undone_with_memory(void) {
    int in_memory = 0;
    put("a", "old");
    put("gone", "gone");
    int code = enter();
    if (code == 0) {
        in_memory = 1;
        put("a", "new");
        put("b", "new");
        REQUIRE(unlink("gone") == 0 && mkdir("dir", 0755) == 0 && rename("a", "dir/a") == 0);
        REQUIRE(is("dir/a", "new") && is("a", NULL));
        spec_abort(spec_current(), 7);
    }
    REQUIRE(code == 7 && in_memory == 0);
    REQUIRE(is("a", "old") && is("b", NULL) && is("gone", "gone") && is("dir/a", NULL));
}

static void kept(void) {
    REQUIRE(enter() == 0);
    int id = spec_current();
    put("a", "kept");
    spec_commit(id);
    REQUIRE(spec_depth() == 0 && is("a", "kept"));
    /* A job is decided later. */
    REQUIRE(spec_barrier(-1) == 0 || errno == EDEADLK);
    REQUIRE(spec_outcome(id) == SPEC_COMMITTED && spec_commit(id) == 0 && is("a", "kept"));
}

/* Goes on while a vote is on its way, and is refused nothing. */
static void gone_on(void) {
    char text[16];
    for (int round = 0; round < 200; round++) {
        snprintf(text, sizeof text, "%d", round);
        REQUIRE(enter() == 0);
        put("voted", text);
        spec_commit(spec_current());
        REQUIRE(is("voted", text));
        put("later", text);
        REQUIRE(mkdir("dir", 0755) == 0 && rename("later", "dir/later") == 0 && is("dir/later", text));
        REQUIRE(unlink("dir/later") == 0 && rmdir("dir") == 0);
    }
}

static void nested(void) {
    put("n", "0");
    if (enter() == 0) {
        int outer = spec_current();
        put("n", "1");
        if (enter() == 0) {
            put("n", "2");
            spec_abort(spec_current(), 1);
        }
        REQUIRE(is("n", "1"));
        REQUIRE(enter() == 0);
        put("n", "3");
        spec_commit(spec_current());
        REQUIRE(is("n", "3"));
        spec_abort(outer, 1);
    }
    REQUIRE(is("n", "0"));
}

/* Directories that are in use, and moved in what is undone, can be moved again. */
static void moved_again(void) {
    char path[4096];
    int top = open(".", O_RDONLY);
    REQUIRE(top >= 0 && mkdir("from", 0755) == 0 && mkdir("to", 0755) == 0 && mkdir("from/dir", 0755) == 0);
    int dir = open("from/dir", O_RDONLY);
    int code = enter();
    if (code == 0) {
        REQUIRE(dir >= 0 && rename("from/dir", "to/dir") == 0);
        spec_abort(spec_current(), 7);
    }
    REQUIRE(code == 7 && rename("from/dir", "to/dir") == 0 && close(dir) == 0 && chdir("to/dir") == 0);
    for (volatile int tries = 0; tries < 2; tries++) {
        code = enter();
        if (code == 0) {
            REQUIRE(renameat(top, "to/dir", top, "from/dir") == 0);
            /* Entered again, it is where it was. */
            if (spec_code() == 0 && tries == 1) spec_retry(spec_current(), 1);
            spec_abort(spec_current(), 7);
        }
        REQUIRE(code == 7 && getcwd(path, sizeof path) && strcmp(strrchr(path, 't'), "to/dir") == 0);
    }
    REQUIRE(renameat(top, "to/dir", top, "from/dir") == 0 && fchdir(top) == 0 && close(top) == 0);
    REQUIRE(rmdir("from/dir") == 0 && rmdir("from") == 0 && rmdir("to") == 0);
}

static void mapped(void) {
    int file = open("m", O_CREAT | O_RDWR, 0644);
    REQUIRE(file >= 0 && ftruncate(file, 8192) == 0);
    char *at = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    REQUIRE(at != MAP_FAILED);
    strcpy(at, "before");
    for (int round = 0; round < 20; round++) {
        if (enter() == 0) {
            strcpy(at, "after");
            strcpy(at + 4096, "more");
            spec_abort(spec_current(), 1);
        }
        REQUIRE(strcmp(at, "before") == 0 && at[4096] == 0);
    }
    REQUIRE(is("m", "before"));
    REQUIRE(enter() == 0);
    strcpy(at, "kept");
    spec_commit(spec_current());
    munmap(at, 8192);
    close(file);
    REQUIRE(is("m", "kept"));
}

/* A mapped file that is unmapped in a level is mapped again, whatever it is called by then. */
static void mapped_and_renamed(void) {
    for (int round = 0; round < 6; round++) {
        int file = open("m2", O_CREAT | O_TRUNC | O_RDWR, 0644);
        REQUIRE(file >= 0 && ftruncate(file, 4096) == 0);
        char *at = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
        REQUIRE(at != MAP_FAILED && close(file) == 0);
        strcpy(at, "before");
        if (round >= 3) {
            /* The kernel knows it by a name that it had for a while. */
            if (enter() == 0) {
                REQUIRE((round == 3 ? unlink("m2") : rename("m2", "m3")) == 0);
                spec_abort(spec_current(), 1);
            }
        }
        if (enter() == 0) {
            strcpy(at, "after");
            REQUIRE(munmap(at, 4096) == 0);
            if (round % 3 == 0) REQUIRE(unlink("m2") == 0);
            if (round % 3 == 1) REQUIRE(rename("m2", "m3") == 0);
            spec_abort(spec_current(), 1);
        }
        REQUIRE(strcmp(at, "before") == 0 && is("m3", NULL) && munmap(at, 4096) == 0 && unlink("m2") == 0);
    }
}

/* What is locked when the first level is entered would be lost. */
static void locks(void) {
    put("locked", "x");
    int file = open("locked", O_RDWR);
    for (int kind = 0; kind < 2; kind++) {
        struct flock range = {.l_type = F_WRLCK, .l_len = 1};
        REQUIRE((kind == 0 ? flock(file, LOCK_EX) : fcntl(file, F_SETLK, &range)) == 0);
        REQUIRE(speculate() == -1 && errno == ENOTSUP && strstr(spec_error(), "is locked") != NULL);
        range.l_type = F_UNLCK;
        REQUIRE((kind == 0 ? flock(file, LOCK_UN) : fcntl(file, F_SETLK, &range)) == 0);
    }
    REQUIRE(enter() == 0);
    REQUIRE(flock(file, LOCK_EX) == 0);
    int code = enter();
    if (code == 0) {
        REQUIRE(flock(file, LOCK_UN) == 0);
        spec_abort(spec_current(), 1);
    }
    REQUIRE(flock(open("locked", O_RDONLY), LOCK_EX | LOCK_NB) == -1);
    spec_commit(spec_current());
}

static void offsets(void) {
    int file = open("log", O_CREAT | O_WRONLY | O_APPEND | O_TRUNC, 0644);
    REQUIRE(write(file, "1", 1) == 1);
    if (enter() == 0) {
        REQUIRE(write(file, "2", 1) == 1);
        spec_abort(spec_current(), 1);
    }
    REQUIRE(write(file, "3", 1) == 1 && lseek(file, 0, SEEK_CUR) == 2);
    close(file);
    REQUIRE(is("log", "13"));
}

static void of_children(void) {
    put("c", "0");
    if (enter() == 0) {
        if (fork() == 0) {
            put("c", "child");
            put("child", "was here");
            pause();
        }
        while (!is("child", "was here")) usleep(100);
        spec_abort(spec_current(), 1);
    }
    REQUIRE(is("c", "0") && is("child", NULL));
    REQUIRE(enter() == 0);
    if (fork() == 0) {
        /* A child speculates on its own, inside of what its parent has open. */
        put("c", "1");
        if (enter() == 0) {
            put("c", "2");
            spec_abort(spec_current(), 1);
        }
        _exit(is("c", "1") ? 0 : 8);
    }
    int status;
    REQUIRE(wait(&status) > 0 && status == 0);
    spec_commit(spec_current());
    REQUIRE(is("c", "1"));
}

/* What a child of a child's does in a level is undone with it, and over: also when its parent has ended before. */
static void of_orphans(void) {
    static const char *starts[] = {
        "sh -c 'echo $$ > ../orphan; echo leaked > leaked; exec sleep 1000' &",
        "setsid sh -c 'echo $$ > ../orphan; echo leaked > leaked; exec sleep 1000' &",
    };
    /* Those started before it are not of the view. */
    REQUIRE(enter() == 0);
    spec_commit(spec_current());
    for (int round = 0; round < 4; round++) {
        int earlier = fork();
        REQUIRE(earlier >= 0);
        if (earlier == 0) {
            /* What this one starts meanwhile is not of the level. */
            while (access("inside", F_OK) != 0) usleep(100);
            if (fork() == 0) execl("/bin/sh", "sh", "-c", "echo $$ > ../earlier.new; exec sleep 1000", NULL);
            pause();
        }
        unlink("../orphan");
        unlink("../earlier.new");
        if (enter() == 0) {
            if (round >= 2 && enter() != 0) _exit(7);
            put("inside", "x");
            REQUIRE(system(starts[round % 2]) >= 0);
            while (access("leaked", F_OK) != 0 || access("../earlier.new", F_OK) != 0) usleep(100);
            spec_abort(round >= 2 ? spec_current() - 1 : spec_current(), 1);
        }
        REQUIRE(is("leaked", NULL) && is("inside", NULL));
        char pid[16] = {0}, path[32];
        int file = open("../orphan", O_RDONLY);
        REQUIRE(file >= 0 && read(file, pid, sizeof pid - 1) > 0 && close(file) == 0);
        snprintf(path, sizeof path, "/proc/%d/ns/mnt", atoi(pid));
        REQUIRE(access(path, F_OK) != 0);
        memset(pid, 0, sizeof pid);
        file = open("../earlier.new", O_RDONLY);
        REQUIRE(file >= 0 && read(file, pid, sizeof pid - 1) > 0 && close(file) == 0);
        REQUIRE(kill(atoi(pid), SIGKILL) == 0 && kill(earlier, SIGKILL) == 0 && waitpid(earlier, NULL, 0) == earlier);
    }
}

/* A file in each of many levels, which are undone together, or kept one after the other. */
static void deep(int count) {
    char path[16];
    for (int round = 0; round < 2; round++) {
        int code = 0, outermost = 0;
        for (int n = 0; n < count && code == 0; n++) {
            code = enter();
            if (n == 0) outermost = spec_current();
            snprintf(path, sizeof path, "deep%d", n);
            if (code == 0) put(path, path);
        }
        if (code == 0) {
            REQUIRE(spec_depth() == count);
            if (round == 0) spec_abort(outermost, 7);
            while (spec_depth() > 0) REQUIRE(spec_commit(spec_current()) == 0);
        }
        REQUIRE(spec_depth() == 0 && code == (round == 0 ? 7 : 0));
        for (int n = 0; n < count; n++) {
            snprintf(path, sizeof path, "deep%d", n);
            REQUIRE(is(path, round == 0 ? NULL : path));
        }
    }
}

static void many(int count) {
    char text[16];
    for (int n = 0; n < count; n++) {
        snprintf(text, sizeof text, "%d", n);
        if (enter() != 0) continue;
        put("many", text);
        if (n % 3 == 2) spec_abort(spec_current(), 1);
        spec_commit(spec_current());
    }
    snprintf(text, sizeof text, "%d", (count - 1) / 3 * 3 + ((count - 1) % 3 == 2 ? 1 : (count - 1) % 3));
    REQUIRE(is("many", text));
}

/* What is undone may answer ESTALE before the process is taken back. */
static void until_taken_back(void) {
    REQUIRE(errno == ESTALE);
    alarm(20);
    for (;;) pause();
}

int main(int argc, char **argv) {
    const char *what = argc > 1 ? argv[1] : "";
    if (strcmp(what, "all") == 0) {
        undone_with_memory();
        kept();
        nested();
        moved_again();
        mapped();
        offsets();
        of_children();
        many(300);
        gone_on();
        return 0;
    }
    if (strcmp(what, "deep") == 0) {
        deep(300);
        return 0;
    }
    if (strcmp(what, "locks") == 0) {
        locks();
        return 0;
    }
    if (strcmp(what, "mapped") == 0) {
        if (enter() == 0) spec_commit(spec_current());
        mapped_and_renamed();
        return 0;
    }
    if (strcmp(what, "orphans") == 0) {
        of_orphans();
        return 0;
    }
    if (strcmp(what, "look") == 0) {
        /* Has a view of its own by then. */
        kept();
        put("seen", is("shared", "undecided") ? "undecided" : strerror(errno));
        return 0;
    }
    if (strcmp(what, "count") == 0) {
        /* Counts in levels, some of them inside others and half of them undone, while others do the same; says how often. */
        int kept = 0;
        unsigned random = (unsigned)atoi(argv[2]);
        for (int round = 0; round < 60; round++) {
            random = random * 1103515245 + 12345;
            if (enter() == 0) {
                int outer = spec_current(), file = open("shared", O_CREAT | O_RDWR, 0666);
                char text[32] = {0};
                if (file < 0 || read(file, text, sizeof text - 1) < 0) until_taken_back();
                snprintf(text, sizeof text, "%d\n", atoi(text) + 1);
                if (pwrite(file, text, strlen(text), 0) <= 0 || close(file) != 0) until_taken_back();
                usleep(random >> 20);
                if (speculate() == 0) {
                    int mine = open(argv[2], O_CREAT | O_WRONLY, 0644);
                    if (mine < 0 || write(mine, text, strlen(text)) < 0 || close(mine) != 0) until_taken_back();
                    if (random & 0x10000) spec_abort(spec_current(), 4);
                    spec_commit(spec_current());
                }
                if (random & 0x20000) spec_abort(outer, 3);
                spec_commit(outer);
                kept++;
            }
        }
        printf("%d\n", kept);
        return 0;
    }
    if (strcmp(what, "die") == 0) {
        /* Dies with a level open. */
        put("before", "1");
        if (enter() == 0) {
            put("before", "2");
            put("inside", "1");
            raise(9);
        }
    }
    if (strcmp(what, "fall") == 0) {
        /* Falls with what it has read, after all was changed that is put back by way of files. */
        struct rlimit files, few = {.rlim_cur = 4};
        REQUIRE(mkdir("sub", 0755) == 0 && chdir("sub") == 0 && getrlimit(RLIMIT_NOFILE, &files) == 0);
        REQUIRE(enter() == 0);
        spec_commit(spec_current());
        int file = open("m", O_CREAT | O_RDWR, 0644), pid = getpid();
        REQUIRE(file >= 0 && ftruncate(file, 4096) == 0);
        char *at = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
        REQUIRE(at != MAP_FAILED && strcpy(at, "base"));
        int code = enter();
        if (code == 0) {
            REQUIRE(is("../data", "new\n"));
            put("after", "x");
            REQUIRE(munmap(at, 4096) == 0 && chdir("/") == 0);
            few.rlim_max = files.rlim_max;
            int told = open(argv[2], O_CREAT | O_WRONLY, 0644);
            REQUIRE(told >= 0 && setrlimit(RLIMIT_NOFILE, &few) == 0);
            if (argc > 3) spec_commit(spec_current());
            for (;;) pause();
        }
        REQUIRE(code == SPEC_FELL && pid == getpid() && strcmp(at, "base") == 0 && is("after", NULL) && is("../data", "old\n"));
        REQUIRE(getrlimit(RLIMIT_NOFILE, &few) == 0 && few.rlim_cur == files.rlim_cur);
        return 0;
    }
    if (strcmp(what, "family") == 0) {
        /* Children enter their first level while their parent votes. */
        for (int round = 0; round < 40; round++) {
            REQUIRE(enter() == 0);
            put("parent", "x");
            int child = fork();
            if (child == 0) {
                REQUIRE(enter() == 0);
                put("child", "x");
                spec_commit(spec_current());
                exit(0);
            }
            spec_commit(spec_current());
            int status;
            REQUIRE(waitpid(child, &status, 0) == child && status == 0);
        }
        return 0;
    }
    if (strcmp(what, "vote") == 0) {
        /* Votes, and dies before it can know what came of it. */
        if (enter() == 0) {
            put("inside", "1");
            spec_commit(spec_current());
            raise(9);
        }
    }
    if (strcmp(what, "wait") == 0 || strcmp(what, "abort") == 0) {
        /* Writes in a level, tells, and decides when it may; the code of the level is its exit status. */
        int code = enter();
        if (code == 0) {
            put("shared", "speculative");
            put("other", "speculative");
            int told = open("../told", O_CREAT | O_WRONLY, 0644);
            REQUIRE(told >= 0);
            while (access("../go", F_OK) != 0) usleep(1000);
            if (strcmp(what, "abort") == 0) spec_abort_saying(spec_current(), 7, "told to");
            spec_commit(spec_current());
        }
        if (code == 7) REQUIRE(strcmp(spec_error(), "told to") == 0);
        if (code == SPEC_CONFLICT) REQUIRE(strstr(spec_error(), "has changed") != NULL);
        if (code == SPEC_FELL) REQUIRE(strstr(spec_error(), "has undone") != NULL);
        return code;
    }
    if (strcmp(what, "share") == 0) {
        /* Lets another own its speculation; the other's decision is its own, too. */
        char token[32];
        REQUIRE(spec_barrier(0) == 0 && spec_share(token, sizeof token) == -1);
        int code = enter();
        if (code == 0) {
            put("shared", "speculative");
            REQUIRE(spec_barrier(0) == -1 && spec_share(token, 3) == -1 && spec_share(token, sizeof token) == 0);
            put("../token.new", token);
            REQUIRE(rename("../token.new", "../token") == 0);
            while (access("../go", F_OK) != 0) usleep(1000);
            spec_commit(spec_current());
        }
        return code;
    }
    if (strcmp(what, "own") == 0) {
        char token[32] = {0};
        int file = open("../token", O_RDONLY);
        REQUIRE(file >= 0 && read(file, token, sizeof token - 1) > 0 && close(file) == 0);
        REQUIRE(spec_own("nonsense") == -1);
        int code = spec_own(token);
        REQUIRE(code >= 0);
        if (code == 0) {
            put("own", "own");
            put("../go", "");
            if (argc > 2) spec_abort(spec_current(), atoi(argv[2]));
            spec_commit(spec_current());
        }
        return code;
    }
    return 2;
}
