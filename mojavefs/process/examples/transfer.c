/* Money from one account to another (Smith, Tapus, Hickey: "The Mojave compiler", figure 1): two files, three things that
 * may fail on the way, and no code that cleans up.
 *
 *   specrun -- transfer FROM TO AMOUNT [FAIL]      FAIL: the step at which to fail, 1 to 4
 */
#include <fcntl.h>
#include <mojave.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int fail_at;
static int step;

/* Every system call of a transfer may fail; here it does when it is told to. */
static int fails(void) { return ++step == fail_at; }

static long balance_of(int account) {
    char text[32] = {0};
    if (fails() || pread(account, text, sizeof text - 1, 0) < 0) return -1;
    return atol(text);
}

static int set_balance(int account, long balance) {
    char text[32];
    int length = snprintf(text, sizeof text, "%ld\n", balance);
    return !fails() && ftruncate(account, 0) == 0 && pwrite(account, text, length, 0) == length;
}

int main(int argc, char **argv) {
    if (argc < 4) {
        fprintf(stderr, "usage: transfer FROM TO AMOUNT [FAIL]\n");
        return 2;
    }
    long amount = atol(argv[3]);
    fail_at = argc > 4 ? atoi(argv[4]) : 0;
    int from = open(argv[1], O_RDWR), to = open(argv[2], O_RDWR);
    if (from < 0 || to < 0) {
        perror("transfer");
        return 2;
    }
    int code = speculate();
    if (code == 0) {
        int id = spec_current();
        long mine = balance_of(from);
        if (mine < amount) spec_abort(id, 1);
        if (!set_balance(from, mine - amount)) spec_abort(id, 2);
        long theirs = balance_of(to);
        if (theirs < 0 || !set_balance(to, theirs + amount)) spec_abort(id, 3);
        spec_commit(id);
        spec_barrier(-1); /* Until it is final, before anybody is told. In a job that is when the job is, and this does not wait. */
        printf("transferred %ld\n", amount);
        return 0;
    }
    if (code < 0) {
        fprintf(stderr, "transfer: cannot speculate: %s\n", spec_error());
        return 2;
    }
    /* Nothing has happened: not in the files, not in memory. */
    printf("failed at %d: nothing was transferred; steps taken: %d\n", code, step);
    return 1;
}
