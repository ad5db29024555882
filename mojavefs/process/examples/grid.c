/* A grid computation (Smith, Tapus, Hickey: "The Mojave compiler", figure 2): N processes, each with some rows of a plane,
 * tell each other the rows at their borders through files. Each saves its rows every SAVE steps and commits what it did
 * since; whoever has read a border of an undecided step depends on it. A process that dies is started again from what it
 * saved; the others go back with it, and the result is the same to the last bit.
 *
 *   specrun --no-speculation -- grid N STEPS [KILL]      KILL: the second process dies once, in this step
 */
#include <fcntl.h>
#include <mojave.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { WIDTH = 64, ROWS = 16, SAVE = 10, PAUSE_US = 200 };

struct band {
    long step;
    double row[ROWS + 2][WIDTH]; /* The first and the last are the neighbours'. */
};

static void check(int good, const char *what) {
    if (!good) {
        perror(what);
        exit(2);
    }
}

static void put(const char *name, const void *bytes, size_t length) {
    char waiting[64];
    snprintf(waiting, sizeof waiting, "%s.new", name);
    int file = open(waiting, O_CREAT | O_TRUNC | O_WRONLY, 0644);
    check(file >= 0 && write(file, bytes, length) == (ssize_t)length && close(file) == 0, waiting);
    check(rename(waiting, name) == 0, name);
}

static int get(const char *name, void *bytes, size_t length) {
    int file = open(name, O_RDONLY);
    if (file < 0) return 0;
    check(read(file, bytes, length) == (ssize_t)length && close(file) == 0, name);
    return 1;
}

static void border(char *name, int of, char side, long step) { sprintf(name, "border-%d-%c-%ld", of, side, step); }

/* Tells the neighbours, and waits until they have told. */
static void exchange(struct band *band, int me, int count) {
    char name[64];
    border(name, me, 'a', band->step);
    put(name, band->row[1], sizeof band->row[1]);
    border(name, me, 'z', band->step);
    put(name, band->row[ROWS], sizeof band->row[ROWS]);
    border(name, me - 1, 'z', band->step);
    while (me > 0 && !get(name, band->row[0], sizeof band->row[0])) usleep(PAUSE_US);
    border(name, me + 1, 'a', band->step);
    while (me < count - 1 && !get(name, band->row[ROWS + 1], sizeof band->row[0])) usleep(PAUSE_US);
}

static void compute(struct band *band) {
    static double next[ROWS + 2][WIDTH];
    for (int y = 1; y <= ROWS; y++)
        for (int x = 0; x < WIDTH; x++) {
            double left = band->row[y][x > 0 ? x - 1 : x], right = band->row[y][x < WIDTH - 1 ? x + 1 : x];
            next[y][x] = 0.2 * (band->row[y][x] + left + right + band->row[y - 1][x] + band->row[y + 1][x]);
        }
    memcpy(band->row[1], next[1], sizeof next[1] * ROWS);
    band->step++;
}

static void work(int me, int count, long steps, long kill_at) {
    static struct band band;
    char saved[64];
    snprintf(saved, sizeof saved, "rows-%d", me);
    if (!get(saved, &band, sizeof band))
        for (int y = 0; y < ROWS + 2; y++)
            for (int x = 0; x < WIDTH; x++) band.row[y][x] = (double)((me * ROWS + y) * 31 + x * 17) / 7.0;
    while (band.step < steps) {
        int code = speculate();
        if (code < 0) {
            fprintf(stderr, "grid: cannot speculate: %s\n", spec_error());
            exit(2);
        }
        if (code > 0) continue; /* A neighbour has died: all of this never happened, so once more. */
        do {
            exchange(&band, me, count);
            compute(&band);
            if (band.step == kill_at) raise(SIGKILL);
        } while (band.step % SAVE != 0 && band.step < steps);
        put(saved, &band, sizeof band);
        spec_commit(spec_current());
    }
    exit(0);
}

static pid_t start(int me, int count, long steps, long kill_at) {
    pid_t pid = fork();
    check(pid >= 0, "fork");
    if (pid == 0) work(me, count, steps, kill_at);
    return pid;
}

int main(int argc, char **argv) {
    int count = argc > 1 ? atoi(argv[1]) : 0;
    long steps = argc > 2 ? atol(argv[2]) : 0, kill_at = argc > 3 ? atol(argv[3]) : 0;
    if (count < 1 || count > 32 || steps < 1) {
        fprintf(stderr, "usage: grid N STEPS [KILL]\n");
        return 2;
    }
    pid_t band[32];
    for (int me = 0; me < count; me++) band[me] = start(me, count, steps, me == 1 ? kill_at : 0);
    for (int left = count; left > 0;) {
        int status;
        pid_t over = wait(&status);
        check(over > 0, "wait");
        for (int me = 0; me < count; me++) {
            if (band[me] != over) continue;
            if (WIFEXITED(status) && WEXITSTATUS(status) != 0) return WEXITSTATUS(status);
            if (WIFSIGNALED(status))
                band[me] = start(me, count, steps, 0);
            else
                left--;
        }
    }
    return 0;
}
