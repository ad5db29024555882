/* Changes a program as somebody who may not keep its set-id bits, and runs it at once: `set_ids HOW PROGRAM WORD`. All that changes lies
 * behind what the program needs to run. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/aio_abi.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define PART 4096

/* A direct write that the kernel does while its caller does something else. */
static int asynchronous(int fd, void *bytes, off_t at)
{
	aio_context_t context = 0;
	struct io_event event;
	struct iocb write = { .aio_lio_opcode = IOCB_CMD_PWRITE, .aio_fildes = fd, .aio_buf = (uintptr_t)bytes,
			      .aio_nbytes = PART, .aio_offset = at };
	struct iocb *writes[] = { &write };

	return syscall(SYS_io_setup, 1, &context) != 0 || syscall(SYS_io_submit, context, 1, writes) != 1 ||
	       syscall(SYS_io_getevents, context, 1, 1, &event, NULL) != 1 || event.res != PART;
}

static int change(const char *how, const char *path, int fd, off_t end)
{
	void *bytes = mmap(NULL, PART, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	off_t at = (end + PART - 1) / PART * PART, from = 0;
	int is_direct = strcmp(how, "direct") == 0, is_async = strcmp(how, "asynchronous") == 0;

	if (bytes == MAP_FAILED || ((is_direct || is_async) && fcntl(fd, F_SETFL, O_DIRECT) != 0))
		return 1;
	if (is_async)
		return asynchronous(fd, bytes, at);
	if (is_direct || strcmp(how, "write") == 0)
		return pwrite(fd, bytes, PART, at) != PART;
	if (strcmp(how, "append") == 0)
		return fcntl(fd, F_SETFL, O_APPEND) != 0 || write(fd, bytes, 1) != 1;
	if (strcmp(how, "truncate") == 0)
		return ftruncate(fd, at + PART) != 0;
	if (strcmp(how, "allocate") == 0)
		return fallocate(fd, 0, at, PART) != 0;
	if (strcmp(how, "punch") == 0)
		return fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, at, PART) != 0;
	if (strcmp(how, "zero") == 0)
		return fallocate(fd, FALLOC_FL_ZERO_RANGE, at, PART) != 0;
	if (strcmp(how, "copy") == 0)
		return copy_file_range(fd, &from, fd, &at, PART, 0) != PART;
	if (strcmp(how, "send") == 0)
		return lseek(fd, at, SEEK_SET) != at || sendfile(fd, open(path, O_RDONLY), &from, PART) != PART;
	if (strcmp(how, "owner") == 0)
		return fchown(fd, -1, getegid()) != 0;
	return 1;
}

int main(int argc, char **argv)
{
	struct stat found;
	int fd = argc == 4 ? open(argv[2], O_RDWR) : -1;

	if (fd < 0 || fstat(fd, &found) != 0 || change(argv[1], argv[2], fd, found.st_size) != 0) {
		perror(argv[1]);
		return 2;
	}
	/* A program that is open for writing can't be run. */
	for (fd = 3; fd < 16; fd++)
		close(fd);
	execl(argv[2], argv[2], argv[3], NULL);
	perror(argv[2]);
	return 2;
}
