/* The program that every supervisor keeps alive: says when its main began, and who it is, then waits to be killed.
 *
 * usage: stamp [PATH]: one line "<CLOCK_BOOTTIME in ns> <pid>\n" into the FIFO PATH (default: ./stamps).
 */
#include <fcntl.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

int main(int argc, char **argv)
{
    struct timespec now;
    char line[64];
    clock_gettime(CLOCK_BOOTTIME, &now);
    int length = snprintf(line, sizeof line, "%lld%09ld %d\n", (long long)now.tv_sec, now.tv_nsec, (int)getpid());
    int stamps = open(argc > 1 ? argv[1] : "stamps", O_WRONLY | O_APPEND | O_CLOEXEC);
    if (stamps < 0 || write(stamps, line, length) != length)
        return 1;
    for (;;)
        pause();
}
